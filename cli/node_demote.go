package cli

import (
	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newNodeDemoteCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "demote NODE", Short: "Make a voter a non-voter", Args: args(1, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd.Context(), "let "+args[0]+" vote no more?"); err != nil {
				return err
			}
			return a.runRole(cmd.Context(), args[0], "%s is a non-voter\n", (*admin.Client).Demote)
		},
	}
}
