package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

func newBenchGroupCmd(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	var load bench.GroupOptions
	c := &cobra.Command{
		Use: "group", Short: "Measure messages to one large group",
		Long: "Group logs in the members of one group over all nodes, and has senders send to it, each its next message once it\n" +
			"was told how many members the last one reached. P50 to P99.9 are how long after the sending each member had its\n" +
			"copy. It exits with 1 if a message did not reach all members, or a copy was lost, came twice or out of order.\n\n" +
			"Each member is a real connection of this process, and its part of them one of each node: 100,000 need \"ulimit -n\"\n" +
			"above that. go test -bench Group100000 ./node measures as many without connections to clients.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.Warm, load.Duration = o.warm, o.duration
			return o.many(cmd.Context(), load.Validate(), func(ctx context.Context, t bench.Target) (bench.Result, error) {
				return bench.Group(ctx, t, load)
			})
		},
	}
	o.flags(c)
	c.Flags().IntVar(&load.Members, "members", 10_000, "members of the group, over all nodes")
	c.Flags().IntVar(&load.Senders, "senders", 1, "clients that send to it")
	c.Flags().IntVar(&load.Size, "size", 128, "bytes of a message's payload")
	return c
}

func newBenchServiceCmd(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	var load bench.ServiceOptions
	c := &cobra.Command{
		Use: "service", Short: "Measure requests to a service with several instances",
		Long: "Service logs in instances of one service and clients that ask it, both over all nodes. Each instance answers at once\n" +
			"with what it was sent; each client keeps some requests open. It exits with 1 if a request is not answered, is carried\n" +
			"out twice, or is answered with something else.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.Warm, load.Duration = o.warm, o.duration
			return o.many(cmd.Context(), load.Validate(), func(ctx context.Context, t bench.Target) (bench.Result, error) {
				return bench.Service(ctx, t, load)
			})
		},
	}
	o.flags(c)
	c.Flags().IntVar(&load.Instances, "instances", 6, "instances of the service, over all nodes")
	c.Flags().IntVar(&load.Askers, "askers", 30, "clients that ask, over all nodes")
	c.Flags().IntVar(&load.Window, "window", 4, "requests that each of them has open")
	c.Flags().IntVar(&load.Concurrency, "concurrency", 1000, "requests that an instance takes at a time")
	c.Flags().IntVar(&load.Size, "size", 128, "bytes of a request")
	return c
}

// many runs a load whose options are as good as invalid says, which is looked at before a cluster is started.
func (o *benchOptions) many(ctx context.Context, invalid error, load func(context.Context, bench.Target) (bench.Result, error)) error {
	if invalid != nil {
		return usage("", "%w", invalid)
	}
	return o.drive(ctx, 1, func(ctx context.Context, t bench.Target, _ *benchCluster) (bench.Result, error) { return load(ctx, t) })
}

// groupFields and serviceFields say in the table what only these runs have.
func groupFields(f *fields, g *bench.GroupResult) {
	f.add("members", count(float64(g.Members)))
	f.add("all members after", time.Duration(g.JoinMS)*time.Millisecond)
	f.add("messages", fmt.Sprintf("%s of %s, %s of them did not reach all", count(float64(g.Messages)), plural(g.Senders, "sender", "senders"), count(float64(g.Short))))
	f.add("sender was told after", fmt.Sprintf("p50 %s, p99 %s", micros(g.AnswerP50), micros(g.AnswerP99)))
	f.add("memory of all nodes", fmt.Sprintf("%s → %s", megabytes(g.RSSBefore), megabytes(g.RSSAfter)))
	f.add("memory of the generator", megabytes(g.LoadRSS))
}

func serviceFields(f *fields, s *bench.ServiceResult) {
	f.add("instances", s.Instances)
	f.add("askers", fmt.Sprintf("%d, each with %d open", s.Askers, s.Window))
	f.add("an instance's part", fmt.Sprintf("%.2f to %.2f times the average", s.LeastShare, s.MostShare))
}
