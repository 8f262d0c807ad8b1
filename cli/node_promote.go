package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newNodePromoteCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "promote NODE", Short: "Make a non-voter a voter, once it has caught up", Args: args(1, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runRole(cmd.Context(), args[0], "%s is a voter\n", (*admin.Client).Promote)
		},
	}
}

// runRole changes a node's role.
func (a *app) runRole(ctx context.Context, ref, done string, change func(*admin.Client, context.Context, string) (admin.Node, error)) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		n, err := change(c, ctx, ref)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(n)
		}
		return a.printf(done, n.Name)
	})
}
