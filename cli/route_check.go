package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type routeCheckOptions struct {
	*app
	fix bool
}

func newRouteCheckCmd(a *app) *cobra.Command {
	o := &routeCheckOptions{app: a}
	c := &cobra.Command{
		Use: "check", Short: "Compare the nodes' sessions with the table", Args: args(0),
		Long: "Check has every node that is up compare its open sessions with its rows in the table, both ways. Nodes do so\n" +
			"by themselves after a start, a restored snapshot or a lost lease and every few minutes. It exits with 2 if it\n" +
			"found a difference (with --fix: if one is left) or a node did not answer.",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	c.Flags().BoolVar(&o.fix, "fix", false, "remove rows without a session, and close sessions without a row: their clients log in again")
	return c
}

func (o *routeCheckOptions) run(ctx context.Context) error {
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.CheckRoutes(ctx, o.fix)
		if err != nil {
			return err
		}
		if o.asJSON() {
			err = o.printJSON(r)
		} else {
			err = o.show(r)
		}
		if err != nil || r.Clean {
			return err
		}
		f := &failure{exit: ExitDegraded, code: "degraded", text: "sessions and table differ, or a node did not answer", hint: "repair with \"" + o.program() + " route check --fix\""}
		if o.fix {
			f.text, f.hint = "not everything is repaired, or a node did not answer", "look again in a moment, and at \""+o.program()+" node list\""
		}
		return f
	})
}

func (o *routeCheckOptions) show(r admin.CheckResult) error {
	t := newTable("NAME", "ROWS", "SESSIONS", "DIFFERENCES", "REPAIRED", "ERROR")
	for _, n := range r.Nodes {
		t.row(n.Name, n.Rows, n.Sessions, len(n.Differences)+int(n.More), n.Repaired, n.Error)
	}
	if err := t.write(o.io.Out); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		for _, d := range n.Differences {
			what, done := "has a route at epoch %d but no session", ""
			if d.Kind == admin.SessionWithoutRow {
				what = "has a session at epoch %d but no route"
			}
			if d.Repaired {
				done = " (repaired)"
			}
			client := d.Client
			if d.Tenant != "" {
				client = d.Tenant + ":" + client
			}
			if err := o.printf("%s on %s "+what+"%s\n", printable(client), printable(n.Name), d.Epoch, done); err != nil {
				return err
			}
		}
		if n.More > 0 {
			if err := o.printf("%s has more that were not looked into: check again\n", printable(n.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}
