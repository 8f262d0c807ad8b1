package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newNodeListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List all nodes of the cluster", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runNodeList(cmd.Context()) },
	}
}

func (a *app) runNodeList(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			if nodes == nil {
				nodes = []admin.Node{}
			}
			return a.printJSON(nodes)
		}
		t := newTable("NAME", "ROLE", "STATE", "INC", "APPLIED", "CLIENTS", "MESH", "CLIENT", "WEBSOCKET", "ADMIN", "VERSION")
		for _, n := range nodes {
			t.row(n.Name, n.Role, n.State, n.Incarnation, n.AppliedIndex, n.Clients, n.Mesh, n.ClientTCP, n.ClientWS, n.Admin, n.Version)
		}
		return t.write(a.io.Out)
	})
}
