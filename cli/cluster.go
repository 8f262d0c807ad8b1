package cli

import "github.com/spf13/cobra"

func newClusterCmd(a *app) *cobra.Command {
	return group("cluster", "See and change the cluster as a whole",
		newClusterStatusCmd(a), newClusterHealthCmd(a), newClusterSettingsCmd(a), newClusterTokenCmd(a), newClusterUpgradeCmd(a), newClusterRebalanceCmd(a))
}
