package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type nodeDrainOptions struct {
	*app
	wait, cancel bool
}

func newNodeDrainCmd(a *app) *cobra.Command {
	o := &nodeDrainOptions{app: a}
	c := &cobra.Command{
		Use: "drain NODE", Short: "Empty a node of its clients, or cancel that",
		Long: "Drain makes a node refuse new clients and send its own elsewhere. It stays a member and\nstays drained over restarts until --cancel.",
		Args: args(1, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until the node has no clients left and show progress (give it time with --timeout)")
	c.Flags().BoolVar(&o.cancel, "cancel", false, "let the node take clients again")
	c.MarkFlagsMutuallyExclusive("wait", "cancel")
	return c
}

func (o *nodeDrainOptions) run(ctx context.Context, ref string) error {
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		n, err := c.Drain(ctx, ref, o.cancel)
		if err != nil {
			return err
		}
		if o.wait {
			if n, err = o.waitEmpty(ctx, c, n); err != nil {
				return err
			}
		}
		if o.asJSON() {
			return o.printJSON(n)
		}
		if o.cancel {
			return o.printf("%s takes clients again\n", n.Name)
		}
		return o.printf("%s drains: %d clients left\n", n.Name, n.Clients)
	})
}

// waitEmpty watches the list of nodes until the node has no clients.
func (o *nodeDrainOptions) waitEmpty(ctx context.Context, c *admin.Client, n admin.Node) (admin.Node, error) {
	last := n.Clients
	for first := true; n.Clients > 0; first = false {
		if !first {
			if err := pause(ctx, pollNodes); err != nil {
				return n, err
			}
		}
		now, ok, err := findNode(ctx, c, n)
		if err != nil {
			return n, err
		}
		if !ok {
			return n, nil // it left altogether
		}
		if n = now; n.Clients != last {
			o.note("%s: %d clients left", n.Name, n.Clients)
			last = n.Clients
		}
	}
	return n, nil
}

// pollNodes is how often the list of nodes is read while waiting for a change.
const pollNodes = 200 * time.Millisecond

// findNode looks a node up again by its id.
func findNode(ctx context.Context, c *admin.Client, n admin.Node) (admin.Node, bool, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return admin.Node{}, false, err
	}
	for _, o := range nodes {
		if o.ID == n.ID {
			return o, true, nil
		}
	}
	return admin.Node{}, false, nil
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
