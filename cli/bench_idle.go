package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

func newBenchIdleCmd(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	var load bench.IdleOptions
	c := &cobra.Command{
		Use: "idle", Short: "Measure what connections cost that say nothing",
		Long: "Idle logs in many clients on the first node, which then stay silent but for heartbeats, and measures that node's\n" +
			"memory for each and the CPU of all nodes. On loopback the connections come from many addresses of 127.0.0.0/8,\n" +
			"where the system has them. Memory and CPU are known on Linux only. --warm is the time to settle after the logins.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.Settle, load.Duration = o.warm, o.duration
			if load.Clients < 1 || load.Clients > 1_000_000 {
				return usage("", "--clients %d: want 1 to 1000000", load.Clients)
			}
			return o.drive(cmd.Context(), 1, func(ctx context.Context, t bench.Target, _ *benchCluster) (bench.Result, error) {
				return bench.Idle(ctx, t, load)
			})
		},
	}
	o.flags(c)
	c.Flags().IntVar(&load.Clients, "clients", 10_000, "how many connections")
	return c
}
