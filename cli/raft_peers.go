package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newRaftPeersCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "List the members of the Raft configuration", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runRaftPeers(cmd.Context()) },
	}
}

func (a *app) runRaftPeers(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		p, err := c.RaftPeers(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(p)
		}
		t := newTable("NAME", "ID", "SUFFRAGE", "LEADER", "STATE", "APPLIED", "MESH")
		for _, m := range p.Peers {
			suffrage := "non-voter"
			if m.Voter {
				suffrage = "voter"
			}
			t.row(m.Name, m.ID, suffrage, yesNo(m.Leader), m.State, m.AppliedIndex, m.Mesh)
		}
		if err := t.write(a.io.Out); err != nil {
			return err
		}
		return a.printf("leader %s, term %d, commit index %d, configuration of index %d\n", orNone(printable(p.Leader)), p.Term, p.CommitIndex, p.ConfigIndex)
	})
}
