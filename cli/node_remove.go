package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

type nodeRemoveOptions struct {
	*app
	force bool
}

func newNodeRemoveCmd(a *app) *cobra.Command {
	o := &nodeRemoveOptions{app: a}
	c := &cobra.Command{
		Use: "remove NODE", Aliases: []string{"rm"}, Short: "Take a dead node out of the cluster for good",
		Long: "Remove takes a dead node out of the cluster; its identity never comes back (the machine can join again\n" +
			"with an empty data folder). A node that still lives should leave instead; --force removes it all the same:\nits right to deliver is ended first, which takes up to one lease.",
		Args: args(1, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().BoolVar(&o.force, "force", false, "also if the node is alive")
	return c
}

func (o *nodeRemoveOptions) run(ctx context.Context, ref string) error {
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		var n *admin.Node
		for i := range nodes {
			if nodes[i].Name == ref || (n == nil && nodes[i].ID.String() == ref) {
				n = &nodes[i]
			}
		}
		if n == nil {
			return &failure{exit: ExitNotFound, code: "not_found", text: "there is no node " + ref, hint: "\"" + o.program() + " node list\" shows the nodes"}
		}
		if n.State != admin.StateDown && !o.force {
			if !slices.ContainsFunc(nodes, func(n admin.Node) bool { return n.Leader }) { // it may be dead: nobody could declare it so
				return codeError(wire.Unavailable, "no leader is known, so nobody can be removed", "\""+o.program()+" cluster health\" says what is missing")
			}
			return fail("conflict", "let it leave with \""+o.program()+" node leave "+n.Name+"\", or add --force", "%s is alive (%s)", n.Name, n.State)
		}
		question := "remove " + n.Name + " (" + n.ID.String() + ") for good?"
		if n.State != admin.StateDown {
			question = n.Name + " is alive (" + n.State + "), its clients will be cut off: " + question
		}
		if err := o.confirm(ctx, question); err != nil {
			return err
		}
		if err := c.Remove(ctx, n.ID.String(), o.force); err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(map[string]any{"name": n.Name, "id": n.ID, "removed": true})
		}
		return o.printf("%s was removed\n", n.Name)
	})
}
