package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newRaftTransferCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "transfer [NODE]", Short: "Hand leadership over, to NODE if one is named", Args: args(0, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := ""
			if len(args) > 0 {
				to = args[0]
			}
			return a.runRaftTransfer(cmd.Context(), to)
		},
	}
}

func (a *app) runRaftTransfer(ctx context.Context, to string) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.TransferLeadership(ctx, to)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(r)
		}
		return a.printf("%s leads in term %d (before: %s)\n", printable(r.Leader), r.Term, orNone(printable(r.From)))
	})
}
