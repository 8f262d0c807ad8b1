package cli

import (
	"context"
	"fmt"
	"slices"

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
		if err := t.write(a.io.Out); err != nil {
			return err
		}
		return a.noteNoLeader(nodes)
	})
}

// noteNoLeader says that a list of nodes may be out of date: without a leader nobody is declared down.
func (a *app) noteNoLeader(nodes []admin.Node) error {
	if len(nodes) == 0 || slices.ContainsFunc(nodes, func(n admin.Node) bool { return n.Leader }) {
		return nil
	}
	_, err := fmt.Fprintf(a.io.Err, "no leader is known at the moment: this is what was agreed on last, nodes may have died since (\"%s cluster health\")\n", a.program())
	return err
}
