package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newRouteStatsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Count the routes, as the asked node has them", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runRouteStats(cmd.Context()) },
	}
}

func (a *app) runRouteStats(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		s, err := c.RouteStats(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(s)
		}
		var f fields
		if s.Stale != nil {
			f.add("not current", strings.TrimPrefix(staleText(s.Stale), "not current: "))
		}
		f.add("routes", s.Routes)
		for _, node := range slices.Sorted(maps.Keys(s.ByNode)) {
			f.add("  of "+printable(node), s.ByNode[node])
		}
		f.add("void rows", s.Void)
		f.add("pages", s.Pages)
		f.add("memory", bytesText(s.Bytes))
		f.add("index", s.Index)
		return f.write(a.io.Out)
	})
}
