package cli

import (
	"github.com/spf13/cobra"

	"imroute/mesh/wire"
)

func newRouteCmd(a *app) *cobra.Command {
	return group("route", "See which node owns which client",
		newRouteGetCmd(a), newRouteListCmd(a), newRouteStatsCmd(a), newRouteWatchCmd(a), newRouteKickCmd(a), newRouteCheckCmd(a))
}

// clientID checks an id given as an argument.
func clientID(tenant, id string) (wire.ClientID, error) {
	c := wire.ClientID{Tenant: tenant, ID: id}
	if err := c.Validate(); err != nil {
		return c, usage("", "%w", err)
	}
	return c, nil
}
