package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newRaftSnapshotCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot", Short: "Make the asked node write a snapshot now", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runRaftSnapshot(cmd.Context()) },
	}
}

func (a *app) runRaftSnapshot(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.TakeSnapshot(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(r)
		}
		return a.printf("%s wrote snapshot %s: index %d, %s\n", printable(r.Node), printable(r.ID), r.Index, bytesText(r.Bytes))
	})
}
