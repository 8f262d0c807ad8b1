package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type clientTokenOptions struct {
	*app
	tenant string
	ttl    time.Duration
}

func newClientTokenCmd(a *app) *cobra.Command {
	o := &clientTokenOptions{app: a}
	c := &cobra.Command{
		Use: "token CLIENT", Short: "Have the cluster sign a login token for a client", Args: args(1, "CLIENT"),
		Long: "Token prints a token by which CLIENT can log in, signed with the cluster's own key. Clusters with keys of their\n" +
			"own (--client-keys) leave that to the owner of the keys. For this command --addr takes admin addresses.",
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	c.Flags().DurationVar(&o.ttl, "ttl", time.Hour, "how long it holds")
	return c
}

func (o *clientTokenOptions) run(ctx context.Context, client string) error {
	id, err := clientID(o.tenant, client)
	if err != nil {
		return err
	}
	if o.ttl < time.Second {
		return usage("", "--ttl must be at least 1s")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		t, err := c.ClientToken(ctx, id, o.ttl)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(t)
		}
		return o.printf("%s\n", t.Token)
	})
}
