package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

type benchSendOptions struct {
	benchOptions
	load       bench.SendOptions
	local, mix bool
	ack        string
}

func newBenchSendCmd(a *app) *cobra.Command {
	o := &benchSendOptions{benchOptions: benchOptions{app: a}}
	c := &cobra.Command{
		Use: "send", Short: "Measure many clients messaging each other",
		Long: "Send logs in --pairs senders on one node and as many recipients on another and measures messages a second, latency\n" +
			"and CPU.\n\n" +
			"  --ack none          flat out, at most --window messages in flight for each recipient\n" +
			"  --rate N            an open loop: message n is due at n/N seconds, and latency counts from then\n" +
			"  --ack owner|client  each sender has --window messages in flight (1 by default) and sends another one for each\n" +
			"                      result; latency is from sending to the result",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	f := c.Flags()
	f.IntVar(&o.load.Pairs, "pairs", 100, "senders, and as many recipients")
	f.IntVar(&o.load.Size, "size", 128, "bytes of a message's payload")
	f.BoolVar(&o.load.Spread, "spread", false, "each sender goes round all recipients, instead of having one of its own")
	f.IntVar(&o.load.Window, "window", 0, "messages in flight a pair (default: 32768 shared among the pairs, less for large ones; 1 with --ack owner or client)")
	f.Float64Var(&o.load.Rate, "rate", 0, "messages a second over all pairs, as an open loop (0: flat out)")
	f.StringVar(&o.ack, "ack", "none", "what senders wait for: none, owner (written to the recipient's connection) or client (acknowledged by the recipient)")
	f.BoolVar(&o.local, "local", false, "senders and recipients on the same node")
	f.BoolVar(&o.mix, "mix", false, "senders and recipients over all nodes")
	c.MarkFlagsMutuallyExclusive("local", "mix")
	_ = c.RegisterFlagCompletionFunc("ack", cobra.FixedCompletions([]string{"none", "owner", "client"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func (o *benchSendOptions) run(ctx context.Context) (err error) {
	if o.load.Ack, err = parseAck(o.ack); err != nil {
		return err
	}
	least := 2
	o.load.Placement = bench.Across
	switch {
	case o.local:
		o.load.Placement, least = bench.Local, 1
	case o.mix:
		o.load.Placement, least = bench.Mix, 1
	}
	o.load.Warm, o.load.Duration = o.warm, o.duration
	if err := o.check(least); err != nil {
		return err
	}
	if err := o.load.Validate(); err != nil { // before a cluster is started
		return usage("", "%w", err)
	}
	return o.drive(ctx, least, func(ctx context.Context, t bench.Target, _ *benchCluster) (bench.Result, error) {
		return bench.Send(ctx, t, o.load)
	})
}
