package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

func newPresenceCmd(a *app) *cobra.Command {
	return group("presence", "See who is online: watch clients come and go, count them", newPresenceWatchCmd(a), newPresenceCountCmd(a))
}

type presenceWatchOptions struct {
	loginOptions
	friends bool
	count   int
}

func newPresenceWatchCmd(a *app) *cobra.Command {
	o := &presenceWatchOptions{loginOptions: loginOptions{app: a}}
	c := &cobra.Command{
		Use: "watch CLIENT...", Short: "Log in and print who of some clients is online, then every change, until Ctrl-C",
		Long: "Watch prints the present state of each client, then every change, one line each. A user's id without \"/\"\n" +
			"stands for all his devices together. It reconnects when its node goes away. With --friends it watches those\nwhom the cluster's friend source names for the client that it logs in as.",
		Args: func(cmd *cobra.Command, got []string) error {
			if len(got) == 0 && !o.friends {
				return usage("usage: "+cmd.UseLine(), "CLIENT is missing")
			}
			if len(got) > 0 && o.friends {
				return usage("", "name clients, or give --friends")
			}
			return nil
		},
		ValidArgsFunction: a.completeClients(wire.MaxWatches),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	o.flags(c)
	c.Flags().Lookup("as").Usage = "client id to log in as (default: a random one)"
	c.Flags().BoolVar(&o.friends, "friends", false, "watch the friends of the client that --as names")
	c.Flags().IntVar(&o.count, "count", 0, "stop after this many lines (0: never)")
	return c
}

// presenceEvent is one line of "presence watch --output json".
type presenceEvent struct {
	Client string     `json:"client"`
	Online bool       `json:"online"`
	Node   string     `json:"node,omitempty"`
	Epoch  wire.Epoch `json:"epoch,string,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
}

func (o *presenceWatchOptions) run(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := clientID(o.tenant, id); err != nil {
			return err
		}
	}
	if len(ids) > wire.MaxWatches {
		return usage("", "%d clients: at most %d", len(ids), wire.MaxWatches)
	}
	if o.as == "" {
		if o.friends {
			return usage("", "--friends needs --as: whose friends?")
		}
		o.as = anonymous()
	}
	cfg, err := o.config(ctx)
	if err != nil {
		return err
	}
	o.tellGaps(&cfg)
	c, err := o.dial(ctx, cfg)
	if err != nil {
		return unlessInterrupted(err)
	}
	watching, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	left := o.count
	show := func(p client.Presence) {
		if err := o.show(p); err != nil {
			stop(err)
			return
		}
		if left--; left == 0 {
			stop(errEnough)
		}
	}
	if o.friends {
		err = c.WatchFriends(watching, show)
	} else {
		err = c.Watch(watching, ids, show)
	}
	closing, cancelClose := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelClose()
	_ = c.Close(closing)
	if interrupted(ctx) || errors.Is(err, errEnough) {
		return nil // that is how it is meant to end
	}
	return o.ended(err)
}

// tellGaps says beside the output when what was printed may not be so any more, and when it is again.
func (o *presenceWatchOptions) tellGaps(cfg *client.Config) {
	before, up, gap := cfg.OnState, false, false
	cfg.OnState = func(s client.State) { // one call at a time
		if before != nil {
			before(s)
		}
		switch {
		case s.Kind == client.Connected && gap:
			o.note("connected again, to %s: changes since then are told now", s.Node)
			gap = false
		case s.Kind == client.Closed && s.Retrying && up && !gap:
			o.note("disconnected (%s): what is shown is not current until it is connected again", printable(s.Code.String()))
			gap = true
		}
		up = up || s.Kind == client.Connected
	}
}

func (o *presenceWatchOptions) show(p client.Presence) error {
	if o.asJSON() {
		e := presenceEvent{Client: p.Client, Online: p.Online, Node: p.Node, Epoch: p.Epoch}
		if !p.Since.IsZero() {
			since := p.Since.UTC()
			e.Since = &since
		}
		return o.printLine(e)
	}
	if !p.Online {
		return o.printf("%s  offline\n", printable(p.Client))
	}
	since := ""
	if !p.Since.IsZero() {
		since = "  since " + p.Since.Local().Format(time.RFC3339)
	}
	return o.printf("%s  online  %s  epoch %d%s\n", printable(p.Client), printable(p.Node), p.Epoch, since)
}

type presenceCountOptions struct {
	*app
	tenant string
	one    bool // a tenant was named, perhaps the one without a name
}

func newPresenceCountCmd(a *app) *cobra.Command {
	o := &presenceCountOptions{app: a}
	c := &cobra.Command{
		Use: "count [--tenant TENANT]", Short: "Count who is online, on each node and in all", Args: args(0),
		Long: "Count prints how many client ids are online, on each node and in all, as the asked node's table has them, and how\nmany users these are. All devices of a user are one user in all, and one at each node that has any of them: the\nnodes' numbers may add up to more than all. With millions of routes the figures may be some seconds old.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.one = cmd.Flags().Changed("tenant")
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "count this tenant only, \"\" for the one without a name (default: all)")
	return c
}

func (o *presenceCountOptions) run(ctx context.Context) error {
	var tenant *string
	if o.one {
		if _, err := clientID(o.tenant, "x"); err != nil {
			return err
		}
		tenant = &o.tenant
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		p, err := c.PresenceCount(ctx, tenant)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(p)
		}
		t := newTable("NODE", "USERS", "CLIENTS")
		for _, n := range p.Nodes {
			t.row(n.Node, n.Users, n.Clients)
		}
		t.row("all", p.Users, p.Clients)
		return t.write(o.io.Out)
	})
}
