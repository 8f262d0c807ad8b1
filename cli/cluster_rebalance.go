package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type rebalanceOptions struct {
	*app
	rate uint32
	wait bool
}

func newClusterRebalanceCmd(a *app) *cobra.Command {
	o := &rebalanceOptions{app: a}
	c := &cobra.Command{
		Use: "rebalance", Short: "Move clients gently until the nodes have about the same number", Args: args(0),
		Long: "Rebalance has every node with more than its share of the clients ask some of them, a few at a time, to connect to the\n" +
			"node that has fewest; one that has not gone after ten seconds is closed and told where to go. It may be given again\n" +
			"at any time: what is under way goes on with the new rate.",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	c.Flags().Uint32Var(&o.rate, "rate", admin.DefaultRebalanceRate, "clients that each node moves in a second at most")
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until it is done, for as long as clients move")
	return c
}

// rebalanceStall ends a wait in which nothing changes any more; a client may take the ten seconds until it is closed.
const rebalanceStall = 30 * time.Second

func (o *rebalanceOptions) run(ctx context.Context) error {
	if o.rate == 0 {
		return usage("", "--rate must be more than 0")
	}
	var st admin.Rebalance
	ask := func(f func(context.Context, *admin.Client) error) error { return o.withAdmin(ctx, f) }
	err := ask(func(ctx context.Context, c *admin.Client) (err error) {
		st, err = c.Rebalance(ctx, o.rate)
		return err
	})
	shown, since := "", time.Now()
	for err == nil && o.wait && st.Moving {
		if now := progress(st); now != shown {
			if !o.asJSON() {
				o.note("%s", now)
			}
			shown, since = now, time.Now()
		}
		if time.Since(since) > rebalanceStall {
			return fail("timeout", "see imctl node list; rebalance again to go on", "nothing has moved for %s", rebalanceStall)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err = ask(func(ctx context.Context, c *admin.Client) (err error) {
			st, err = c.RebalanceState(ctx)
			return err
		})
	}
	if err != nil {
		return err
	}
	if o.asJSON() {
		return o.printJSON(st)
	}
	t := newTable("NODE", "CLIENTS", "TARGET", "MOVED", "STATE")
	for _, n := range st.Nodes {
		state := "even"
		switch {
		case n.Error != "":
			state = n.Error
		case n.Moving:
			state = "moving"
		}
		t.row(n.Name, n.Clients, n.Target, n.Moved, state)
	}
	return t.write(o.io.Out)
}

// progress is one line about who has how many.
func progress(st admin.Rebalance) string {
	var parts []string
	for _, n := range st.Nodes {
		parts = append(parts, fmt.Sprintf("%s %d", printable(n.Name), n.Clients))
	}
	return strings.Join(parts, ", ")
}
