package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type routeKickOptions struct {
	*app
	tenant, reason string
}

func newRouteKickCmd(a *app) *cobra.Command {
	o := &routeKickOptions{app: a}
	c := &cobra.Command{
		Use: "kick CLIENT", Short: "Close a client's session; it is told not to come back by itself",
		Args: args(1, "CLIENT"), ValidArgsFunction: a.completeClients(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	c.Flags().StringVar(&o.reason, "reason", "", "what to tell the client")
	return c
}

func (o *routeKickOptions) run(ctx context.Context, client string) error {
	id, err := clientID(o.tenant, client)
	if err != nil {
		return err
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.Kick(ctx, id, o.reason)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(r)
		}
		return o.printf("%s was kicked: it was on %s at epoch %d\n", printable(id.String()), printable(r.Node), r.Epoch)
	})
}
