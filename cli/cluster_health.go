package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newClusterHealthCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Say in one word whether the cluster is well", Args: args(0),
		Long: "Health prints ok, degraded, electing or no_quorum and what is wrong; the exit codes are 0, 2, 2 and 4. \"electing\" is what it\n" +
			"says without a leader for as long as an election may take, three times heartbeat + election; after that it is no_quorum. A cluster\n" +
			"of one voter is ok, and a hint says that it tolerates no failure.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runClusterHealth(cmd.Context()) },
	}
}

func (a *app) runClusterHealth(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		s, err := c.ClusterStatus(ctx)
		if err != nil {
			return err
		}
		hints := healthHints(s)
		if a.asJSON() {
			problems := s.Problems
			if problems == nil {
				problems = []string{}
			}
			if err := a.printJSON(map[string]any{"health": s.Health, "problems": problems, "hints": hints}); err != nil {
				return err
			}
			return healthExit(s.Health)
		}
		if err := a.printf("%s\n", printable(s.Health)); err != nil {
			return err
		}
		for _, p := range s.Problems {
			if err := a.printf("problem: %s\n", printable(p)); err != nil {
				return err
			}
		}
		for _, h := range hints {
			if err := a.printf("hint: %s\n", printable(h)); err != nil {
				return err
			}
		}
		return healthExit(s.Health)
	})
}

// healthHints tell what is well and could be better.
func healthHints(s admin.ClusterStatus) []string {
	hints := []string{}
	if s.Voters == 1 && s.Health != admin.HealthNoQuorum {
		hints = append(hints, "one voter: as long as it stops, nothing can be agreed on; with three or more nodes one may fail")
	}
	return hints
}
