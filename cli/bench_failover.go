package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
	"imroute/node/admin"
)

type benchFailoverOptions struct {
	benchOptions
	load   bench.FailoverOptions
	leader bool
}

func newBenchFailoverCmd(a *app) *cobra.Command {
	o := &benchFailoverOptions{benchOptions: benchOptions{app: a}}
	c := &cobra.Command{
		Use: "failover", Short: "Measure how long clients are gone whose node is killed",
		Long: "Failover logs in many clients on one node of its own cluster, kills that node at once, and measures how long it takes\n" +
			"until each is routed again; then each has to acknowledge a message. Meanwhile --pairs other clients on the other\n" +
			"nodes message each other at --rate, from a process of their own, to see what they notice.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	f := c.Flags()
	f.IntVar(&o.load.Clients, "clients", 1000, "clients of the node that is killed")
	f.BoolVar(&o.leader, "leader", false, "kill the Raft leader (default: another one)")
	f.IntVar(&o.load.Pairs, "pairs", 20, "pairs of other clients")
	f.Float64Var(&o.load.Rate, "rate", 1000, "messages a second of the others, acknowledged by their recipients")
	f.IntVar(&o.load.Size, "size", 128, "bytes of their payload")
	f.DurationVar(&o.load.Most, "most", 30*time.Second, "how long clients may take to be routed again")
	return c
}

func (o *benchFailoverOptions) run(ctx context.Context) error {
	if len(o.addrs) > 0 {
		return usage("leave --addr away: it starts a cluster of its own", "\"bench failover\" kills a node: it does that to no cluster but its own")
	}
	o.load.Warm, o.load.Duration = o.warm, o.duration
	switch {
	case o.load.Clients < 1 || o.load.Clients > 1_000_000:
		return usage("", "--clients %d: want 1 to 1000000", o.load.Clients)
	case o.load.Most <= 0 || o.load.Most > benchMost/2:
		return usage("", "--most must be more than 0 and at most %s", benchMost/2)
	case o.load.Pairs < 1 || o.load.Rate <= 0:
		return usage("", "--pairs and --rate must be more than 0")
	}
	return o.drive(ctx, 3, func(ctx context.Context, t bench.Target, own *benchCluster) (bench.Result, error) {
		leader, err := own.leader(ctx)
		if err != nil {
			return bench.Result{}, err
		}
		o.load.Victim, o.load.Leader = leader, true
		if !o.leader {
			o.load.Victim, o.load.Leader = (leader+1)%len(t.Addrs), false
		}
		o.load.Name = own.dev.plan[o.load.Victim].name
		o.load.Others = o.apart
		o.load.Kill = func() error { return own.kill(o.load.Victim) }
		return bench.Failover(ctx, t, o.load)
	})
}

// leader is the number of the node that leads.
func (b *benchCluster) leader(ctx context.Context) (int, error) {
	c, err := admin.NewClient(admin.ClientConfig{Addrs: []string{b.dev.plan[0].addrs.Admin}, Timeout: 5 * time.Second})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	s, err := c.ClusterStatus(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking who leads: %w", err)
	}
	for i, p := range b.dev.plan {
		if p.name == s.Leader {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no node leads at the moment (%q)", s.Leader)
}
