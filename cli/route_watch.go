package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type routeWatchOptions struct {
	*app
	tenant, client, prefix string
	allTenants             bool
	count                  int
}

func newRouteWatchCmd(a *app) *cobra.Command {
	o := &routeWatchOptions{app: a}
	c := &cobra.Command{
		Use: "watch [CLIENT]", Short: "Follow the changes of the table until Ctrl-C", Args: args(0, "CLIENT"), ValidArgsFunction: a.completeClients(1),
		Long: "Watch prints every change of a route and of a node's state as the asked node applies it, one line each.\nIf that node goes away it goes on at another one and says \"resync\": what changed in between is not shown.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.allTenants = !cmd.Flags().Changed("tenant")
			if len(args) > 0 {
				o.client = args[0]
			}
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "only clients of this tenant (\"\" is the default tenant)")
	c.Flags().StringVar(&o.prefix, "prefix", "", "only client ids that begin with this")
	c.Flags().IntVar(&o.count, "count", 0, "stop after this many changes (0: never)")
	return c
}

func (o *routeWatchOptions) run(ctx context.Context) error {
	if o.client != "" {
		if _, err := clientID(o.tenant, o.client); err != nil {
			return err
		}
	}
	q := admin.WatchQuery{Client: o.client, Prefix: o.prefix}
	if !o.allTenants {
		q.Tenant = &o.tenant
	}
	err := o.followAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		left := o.count
		heard := time.Now()
		for {
			err := c.WatchRoutes(ctx, q, func(e admin.RouteEvent) error {
				heard = time.Now()
				if err := o.print(e); err != nil {
					return err
				}
				if left--; left == 0 && e.Event != admin.EventResync {
					return errEnough
				}
				if e.Event == admin.EventResync {
					left++
				}
				return nil
			})
			switch {
			case err == errEnough:
				return nil
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case !passing(err), time.Since(heard) > o.timeout:
				return err
			}
			o.note("%v; watching again", err)
			if err := pause(ctx, pollNodes); err != nil {
				return context.Cause(ctx)
			}
		}
	})
	if interrupted(ctx) {
		return nil // that is how it is meant to end
	}
	return err
}

func (o *routeWatchOptions) print(e admin.RouteEvent) error {
	if o.asJSON() {
		return o.printLine(e)
	}
	client := e.Client
	if e.Tenant != "" {
		client = e.Tenant + ":" + client
	}
	client = printable(client)
	switch e.Event {
	case admin.EventSet:
		return o.printf("%d  set     %s  %s  incarnation %d  epoch %d\n", e.Index, client, printable(e.Node), e.Incarnation, e.Epoch)
	case admin.EventGone:
		return o.printf("%d  gone    %s  %s  epoch %d\n", e.Index, client, printable(e.Node), e.Epoch)
	case admin.EventNode:
		return o.printf("%d  node    %s  %s  incarnation %d\n", e.Index, printable(e.Node), printable(e.State), e.Incarnation)
	case admin.EventResync:
		return o.printf("%d  resync\n", e.Index)
	}
	return nil // a kind of a later version
}
