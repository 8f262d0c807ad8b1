package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type nodeLeaveOptions struct {
	*app
	noWait bool
}

// leaveTimeout replaces the default --timeout: draining takes a while.
const leaveTimeout = 60 * time.Second

func newNodeLeaveCmd(a *app) *cobra.Command {
	o := &nodeLeaveOptions{app: a}
	c := &cobra.Command{
		Use: "leave [NODE]", Short: "Make a node drain, leave the cluster and end",
		Long: "Leave empties a node of its clients, hands leadership over if it leads, takes it out of the cluster\n" +
			"and ends its process. Any node can leave, the leader and the founder included. Without NODE it is the\nnode that --addr names.\n\n" +
			"A node that is restarted in the middle goes on with it; \"imctl node drain NODE --cancel\" takes it back.",
		Args: args(0, "NODE"), ValidArgsFunction: a.completeNodes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("timeout") {
				a.timeout = leaveTimeout
			}
			ref := ""
			if len(args) > 0 {
				ref = args[0]
			}
			return o.run(cmd.Context(), ref)
		},
	}
	c.Flags().BoolVar(&o.noWait, "no-wait", false, "return as soon as leaving has begun")
	return c
}

func (o *nodeLeaveOptions) run(ctx context.Context, ref string) error {
	if ref == "" && len(o.addrs) != 1 && len(splitAddrs(o.env("IMCTL_ADDR"))) != 1 {
		return usage("\""+o.program()+" node list\" shows the nodes; or name the node that leaves by its own address with --addr", "NODE is missing: which node leaves?")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		if ref == "" {
			v, err := c.Version(ctx)
			if err != nil {
				return err
			}
			ref = v.Node
		}
		n, err := c.Node(ctx, ref) // by its real name, for the question and to watch it go
		if err != nil {
			return err
		}
		if err := o.confirm(ctx, "let "+n.Name+" ("+n.ID.String()+") leave the cluster?"); err != nil {
			return err
		}
		watch, err := o.others(ctx, c, n.Node)
		if err != nil {
			return err
		}
		if watch != c {
			defer watch.Close()
		}
		left, err := c.Leave(ctx, n.ID.String())
		if err != nil {
			return err
		}
		shown := left.Clients
		for !o.noWait {
			now, still, err := findNode(ctx, watch, n.Node)
			if err == nil && still && now.Clients != shown {
				o.note("%s: %d clients left", now.Name, now.Clients)
				shown = now.Clients
			}
			switch {
			case err == nil && !still:
				if o.asJSON() {
					return o.printJSON(map[string]any{"name": n.Name, "id": n.ID, "left": true})
				}
				return o.printf("%s has left the cluster\n", n.Name)
			case err != nil && !passing(err):
				return err
			}
			if err := pause(ctx, pollNodes); err != nil {
				return fail("timeout", "it goes on by itself: look with \""+o.program()+" node list\"", "%s has not left within %s: %w", n.Name, o.timeout, err)
			}
		}
		if o.asJSON() {
			return o.printJSON(left)
		}
		return o.printf("%s is leaving\n", n.Name)
	})
}

// others returns a client that asks all nodes but n: the one that leaves may never hear that it is gone. It returns c if n
// is alone.
func (o *nodeLeaveOptions) others(ctx context.Context, c *admin.Client, n admin.Node) (*admin.Client, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	t, err := o.adminTarget(true)
	if err != nil {
		return nil, err
	}
	scheme := ""
	if len(t.admin) > 0 && strings.HasPrefix(t.admin[0], "https://") {
		scheme = "https://"
	}
	t.admin = nil
	for _, m := range nodes {
		if m.ID != n.ID && m.State != admin.StateDown && m.Admin != "" {
			t.admin = append(t.admin, scheme+m.Admin)
		}
	}
	if len(t.admin) == 0 {
		return c, nil
	}
	return t.dial(o.app)
}

// passing says that an error is to be expected while a node goes and leadership moves.
func passing(err error) bool {
	return admin.IsUnavailable(err) || admin.IsUnreachable(err) || admin.IsTimeout(err)
}
