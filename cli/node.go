package cli

import "github.com/spf13/cobra"

func newNodeCmd(a *app) *cobra.Command {
	return group("node", "Run a node, and see and change the cluster's nodes",
		newNodeStartCmd(a), newNodeListCmd(a), newNodeShowCmd(a), newNodeDrainCmd(a), newNodeLeaveCmd(a),
		newNodeRemoveCmd(a), newNodePromoteCmd(a), newNodeDemoteCmd(a))
}
