package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newClusterUpgradeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "upgrade", Short: "Use what all nodes can do since they were upgraded", Args: args(0),
		Long: "Upgrade raises the cluster's feature level to the highest that every node which is up knows. Do it once all\n" +
			"nodes run the new version: the level never goes down again, and an older version cannot come back after it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runClusterUpgrade(cmd.Context()) },
	}
}

func (a *app) runClusterUpgrade(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		u, err := c.RaiseFeatureLevel(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(u)
		}
		if u.Level == u.From {
			return a.printf("the feature level is %d, which is all that every node can do\n", u.Level)
		}
		if err := a.printf("the feature level is now %d (it was %d)\n", u.Level, u.From); err != nil {
			return err
		}
		if len(u.HeldBackBy) > 0 {
			return a.printf("it is held back by %s\n", printable(strings.Join(u.HeldBackBy, ", ")))
		}
		return nil
	})
}
