package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

func newBenchLoginCmd(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	var load bench.LoginOptions
	c := &cobra.Command{
		Use: "login", Short: "Measure logins, each with a new connection",
		Long: "Login logs in under ever new client ids, with a new connection each, over all nodes in turn, and measures logins a\n" +
			"second and how long each took until it was welcomed. Sessions are closed again at once.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.Warm, load.Duration = o.warm, o.duration
			if load.Concurrency < 1 || load.Concurrency > bench.MaxPairs {
				return usage("", "--concurrency %d: want 1 to %d", load.Concurrency, bench.MaxPairs)
			}
			return o.drive(cmd.Context(), 1, func(ctx context.Context, t bench.Target, _ *benchCluster) (bench.Result, error) {
				return bench.Login(ctx, t, load)
			})
		},
	}
	o.flags(c)
	c.Flags().IntVar(&load.Concurrency, "concurrency", 256, "logins under way at once")
	return c
}
