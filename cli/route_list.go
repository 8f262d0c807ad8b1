package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// routeListRow is a row as it is printed. The array has no place for the rest of the answer.
type routeListRow struct {
	admin.RouteRow
	Stale bool `json:"stale,omitempty"` // the node that said so had no lease
}

// staleText says how old an answer may be.
func staleText(s *admin.Stale) string {
	heard := "has heard no leader since it started"
	if s.LeaderHeardMS >= 0 {
		heard = "heard a leader " + short(time.Duration(s.LeaderHeardMS)*time.Millisecond) + " ago"
	}
	return "not current: " + s.Node + " has no lease and " + heard + "; this is what it knew then"
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
		rows := []routeListRow{}
		var stale *admin.Stale
		err := c.EachRoutePage(ctx, q, func(p admin.RoutePage) error {
			if p.Stale != nil {
				stale = p.Stale
			}
			for _, r := range p.Routes {
				rows = append(rows, routeListRow{RouteRow: r, Stale: p.Stale != nil})
				if len(rows) == o.limit {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if stale != nil { // also with --output json, where a list has no room for it but in its rows
			_, _ = fmt.Fprintln(o.io.Err, staleText(stale)) // a note that cannot be shown changes nothing
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
