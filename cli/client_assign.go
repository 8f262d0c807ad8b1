package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type assignOptions struct {
	*app
	tenant, transport string
}

func newClientAssignCmd(a *app) *cobra.Command {
	o := &assignOptions{app: a}
	c := &cobra.Command{
		Use: "assign CLIENT", Short: "Ask where a client should connect", Args: args(1, "CLIENT"),
		Long: "Assign asks the admin API which node a client should connect to, by the cluster's --assign-policy. Clients ask without\n" +
			"a token: GET /v1/assign?client=ID at any node's WebSocket port.",
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	c.Flags().StringVar(&o.transport, "transport", "tcp", "tcp or ws")
	return c
}

func (o *assignOptions) run(ctx context.Context, name string) error {
	id, err := clientID(o.tenant, name)
	if err != nil {
		return err
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		to, err := c.Assign(ctx, id, o.transport)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(to)
		}
		return o.printf("%s  %s  (%s, %d clients)\n", printable(to.Node), printable(to.URL), printable(to.Policy), to.Clients)
	})
}
