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
	send   []string
	join   []string
	grants admin.TokenGrants
}

func newClientTokenCmd(a *app) *cobra.Command {
	o := &clientTokenOptions{app: a}
	c := &cobra.Command{
		Use: "token CLIENT", Short: "Have the cluster sign a login token for a client", Args: args(1, "CLIENT"),
		Long: "Token prints a token by which CLIENT can log in, signed with the cluster's own key. Clusters with keys of their\n" +
			"own (--client-keys) leave that to the owner of the keys. For this command --addr takes admin addresses.\n\n" +
			"--send and --join, several times or with commas, limit what the client may do: KIND:NAME, where NAME may end in *,\n" +
			"or just * for everything. Kinds to send to: client, user, group, service, prefix, all and others (without a NAME); to\n" +
			"join: group and service (to serve it). client:bob is that id alone, user:bob all devices of bob as well.\n\n" +
			"Without --send it may send to all but prefix, all and others; --send \"\" allows nothing. Without --join it may join\n" +
			"all groups and serve the service of its own name.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("send") {
				o.grants.Send = new(append([]string{}, o.send...)) // never null
			}
			if cmd.Flags().Changed("join") {
				o.grants.Join = new(append([]string{}, o.join...))
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	c.Flags().DurationVar(&o.ttl, "ttl", time.Hour, "how long it holds")
	c.Flags().StringSliceVar(&o.send, "send", nil, "what it may send to, such as user:* or group:room-*")
	c.Flags().StringSliceVar(&o.join, "join", nil, "which groups it may join and services it may serve, such as group:room-*")
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
		t, err := c.ClientTokenFor(ctx, id, o.ttl, o.grants)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(t)
		}
		return o.printf("%s\n", t.Token)
	})
}
