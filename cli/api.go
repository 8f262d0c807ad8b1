package cli

import "github.com/spf13/cobra"

func newAPICmd(a *app) *cobra.Command {
	return group("api", "Let back ends use the HTTP API",
		group("key", "Make, list and revoke the keys of back ends", newKeyCreateCmd(a), newKeyListCmd(a), newKeyRevokeCmd(a)))
}
