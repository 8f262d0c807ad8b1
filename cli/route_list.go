package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type routeListOptions struct {
	*app
	node, tenant, prefix string
	allTenants           bool
	limit                int
}

func newRouteListCmd(a *app) *cobra.Command {
	o := &routeListOptions{app: a}
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List routes, as the asked node has them", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.allTenants = !cmd.Flags().Changed("tenant")
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&o.node, "node", "", "only clients of this node")
	c.Flags().StringVar(&o.tenant, "tenant", "", "only clients of this tenant (\"\" is the default tenant)")
	c.Flags().StringVar(&o.prefix, "prefix", "", "only client ids that begin with this")
	c.Flags().IntVar(&o.limit, "limit", 0, "stop after this many (0: all)")
	_ = c.RegisterFlagCompletionFunc("node", a.completeNodes(1)) // the flag exists
	return c
}

// errEnough ends a listing early.
var errEnough = errors.New("enough")

func (o *routeListOptions) run(ctx context.Context) error {
	if o.limit < 0 {
		return usage("", "--limit must not be negative")
	}
	q := admin.RouteListQuery{Node: o.node, Prefix: o.prefix, Limit: admin.MaxPage}
	if !o.allTenants {
		q.Tenant = &o.tenant
	}
	if o.limit > 0 {
		q.Limit = min(o.limit, admin.MaxPage)
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		rows := []admin.RouteRow{}
		err := c.EachRoute(ctx, q, func(r admin.RouteRow) error {
			rows = append(rows, r)
			if len(rows) == o.limit {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if o.asJSON() {
			return o.printJSON(rows)
		}
		t := newTable("CLIENT", "OWNER", "INC", "EPOCH", "SESSION")
		for _, r := range rows {
			name := r.Client
			if r.Tenant != "" {
				name = r.Tenant + ":" + name
			}
			t.row(name, r.Node, r.Incarnation, r.Epoch, r.Session)
		}
		return t.write(o.io.Out)
	})
}
