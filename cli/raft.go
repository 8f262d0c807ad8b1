package cli

import "github.com/spf13/cobra"

func newRaftCmd(a *app) *cobra.Command {
	return group("raft", "Look at the consensus underneath", newRaftPeersCmd(a), newRaftTransferCmd(a), newRaftVerifyCmd(a), newRaftSnapshotCmd(a), newRaftRecoverCmd(a))
}
