package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newRaftVerifyCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Compare the tables of all nodes at one index", Args: args(0),
		Long: "Verify has every node hash its table at the same index. It exits with 1 if two tables differ and with 2 if\nthose that answered agree but not all answered.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runRaftVerify(cmd.Context()) },
	}
}

func (a *app) runRaftVerify(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.VerifyTables(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			if err := a.printJSON(r); err != nil {
				return err
			}
		} else {
			t := newTable("NAME", "INDEX", "HASH", "ERROR")
			for _, n := range r.Nodes {
				t.row(n.Name, n.Index, n.Hash, n.Error)
			}
			if err := t.write(a.io.Out); err != nil {
				return err
			}
		}
		hash, differ := "", false
		for _, n := range r.Nodes {
			if n.Error != "" {
				continue
			}
			differ = differ || (hash != "" && n.Hash != hash)
			hash = n.Hash
		}
		switch {
		case r.Agree:
			if a.asJSON() {
				return nil
			}
			return a.printf("all tables are the same at index %d\n", r.Index)
		case differ:
			return fail("tables_differ", "stop the node that stands alone, wipe its data folder and let it join again", "the tables differ at index %d", r.Index)
		}
		return &failure{exit: ExitDegraded, code: "degraded", text: "not every node answered; the tables of those that did are the same", hint: "\"" + a.program() + " node list\" shows which are down"}
	})
}
