package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type routeGetOptions struct {
	*app
	consistency, tenant string
	allNodes            bool
}

func newRouteGetCmd(a *app) *cobra.Command {
	o := &routeGetOptions{app: a}
	c := &cobra.Command{
		Use: "get CLIENT", Short: "Say where a client is, and how that is known",
		Long: "Get prints the owner of a client. By default the answer is linearizable: proven to be the cluster's answer\n" +
			"at a moment within the call; without a quorum there is none (exit code 4). --consistency local asks the\nnode for what it has applied so far. A client without a route exits with 3.",
		Args: args(1, "CLIENT"), ValidArgsFunction: a.completeClients(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().StringVar(&o.consistency, "consistency", admin.Linearizable, "linearizable or local")
	c.Flags().BoolVar(&o.allNodes, "all-nodes", false, "show every node's own view, too")
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	_ = c.RegisterFlagCompletionFunc("consistency", cobra.FixedCompletions([]string{admin.Linearizable, admin.Local}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func (o *routeGetOptions) run(ctx context.Context, client string) error {
	id, err := clientID(o.tenant, client)
	if err != nil {
		return err
	}
	if o.consistency != admin.Linearizable && o.consistency != admin.Local {
		return usage("", "--consistency %q: want linearizable or local", o.consistency)
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.Route(ctx, id, o.consistency, o.allNodes)
		if err != nil {
			return err
		}
		if o.asJSON() {
			if err := o.printJSON(r); err != nil {
				return err
			}
		} else if err := o.print(r); err != nil {
			return err
		}
		if r.Found || len(r.Devices) > 0 {
			return nil
		}
		return &failure{
			exit: ExitNotFound, code: "not_found", text: id.String() + " has no route (" + howKnown(r) + ")",
			hint: "it is not connected; connect it with \"" + o.program() + " client connect --as " + client + "\"",
		}
	})
}

func (o *routeGetOptions) print(r admin.Route) error {
	if r.Found {
		var f fields
		f.add("client", r.Client)
		f.add("tenant", r.Tenant)
		f.add("owner", r.Node)
		f.add("incarnation", r.Incarnation)
		f.add("node state", r.NodeState)
		f.add("session", r.Session)
		f.add("epoch", r.Epoch)
		f.add("known by", howKnown(r))
		f.add("owner says", r.OwnerCheck)
		if r.Since != nil {
			f.add("since", r.Since.Local().Format(time.RFC3339))
		}
		if err := f.write(o.io.Out); err != nil {
			return err
		}
	}
	if len(r.Devices) > 0 {
		t := newTable("DEVICE", "OWNER", "INC", "EPOCH", "SESSION")
		for _, d := range r.Devices {
			t.row(d.Client, d.Node, d.Incarnation, d.Epoch, d.Session)
		}
		if err := t.write(o.io.Out); err != nil {
			return err
		}
	}
	if len(r.Nodes) == 0 {
		return nil
	}
	t := newTable("ASKED", "OWNER", "INC", "EPOCH", "INDEX", "ERROR")
	for _, v := range r.Nodes {
		if v.Found {
			t.row(v.Name, v.Node, v.Incarnation, v.Epoch, v.Index, v.Error)
		} else {
			t.row(v.Name, "", "", "", v.Index, v.Error)
		}
	}
	return t.write(o.io.Out)
}

// howKnown tells what an answer rests on.
func howKnown(r admin.Route) string {
	if r.Consistency == admin.Linearizable {
		return fmt.Sprintf("linearizable read at index %d, confirmed by leader %s", r.Index, orNone(r.Leader))
	}
	return fmt.Sprintf("local table of one node at index %d, may be out of date", r.Index)
}
