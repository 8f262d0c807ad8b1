package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type nodeDrainOptions struct {
	*app
	wait, cancel bool
}

// drainTimeout replaces the default --timeout of a drain that is waited for.
const drainTimeout = 60 * time.Second

func newNodeDrainCmd(a *app) *cobra.Command {
	o := &nodeDrainOptions{app: a}
	c := &cobra.Command{
		Use: "drain NODE", Short: "Empty a node of its clients, or cancel that",
		Long: "Drain makes a node refuse new clients and send its own elsewhere. It stays a member and\nstays drained over restarts until --cancel. Draining goes on whether or not somebody waits for it: the same\ncommand again, with --wait, goes on watching.",
		Args: args(1, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.wait && !cmd.Flags().Changed("timeout") {
				a.timeout = drainTimeout
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until the node has no clients left and show progress (for up to --timeout, by default 60s)")
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
		if !o.cancel {
			o.warnLast(ctx, c, n.Name)
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

// warnLast says so if nobody can log in any more.
func (o *nodeDrainOptions) warnLast(ctx context.Context, c *admin.Client, name string) {
	nodes, err := c.Nodes(ctx)
	if err != nil || slices.ContainsFunc(nodes, func(n admin.Node) bool { return n.State == admin.StateUp }) {
		return
	}
	o.note("no node takes clients now: nobody can log in until one is started or \"%s node drain %s --cancel\"", o.program(), name)
}

// waitEmpty asks the node itself until it has no clients: what the others know of it is some time old. While it cannot be
// asked, or leadership moves, it waits on.
func (o *nodeDrainOptions) waitEmpty(ctx context.Context, c *admin.Client, n admin.Node) (admin.Node, error) {
	shown := false
	for {
		d, err := c.Node(ctx, n.ID.String())
		switch {
		case admin.IsNotFound(err):
			return n, nil // it left altogether
		case err == nil && (d.Reachable || d.State == admin.StateDown):
			if !shown || d.Clients != n.Clients {
				o.note("%s: %d clients left", d.Name, d.Clients)
				shown = true
			}
			if n = d.Node; n.Clients == 0 || n.State == admin.StateDown {
				return n, nil
			}
			if n.State == admin.StateUp {
				return n, fail("cancelled", "", "the drain of %s was cancelled, it has %d clients", n.Name, n.Clients)
			}
		case err != nil && !passing(err) && ctx.Err() == nil:
			return n, err
		}
		if err := pause(ctx, pollNodes); err != nil {
			if !shown {
				return n, fail("timeout", "the drain goes on by itself: look with \""+o.program()+" node drain "+n.Name+" --wait\"", "%s could not be asked within %s: %w", n.Name, o.timeout, err)
			}
			return n, fail("timeout", "it goes on by itself: look with \""+o.program()+" node drain "+n.Name+" --wait\"", "%s still has %d clients after %s: %w", n.Name, n.Clients, o.timeout, err)
		}
	}
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
