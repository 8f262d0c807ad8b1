package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

// Completion asks the live cluster, briefly: a shell that waits for its tab key is worse than one without suggestions.
const (
	completeTimeout = 500 * time.Millisecond
	completeMost    = 50
)

func newCompletionCmd(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh, fish or powershell",
		Long: "Completion prints a script that lets a shell complete imctl's commands, node names and client ids.\n\n" +
			"  bash:        source <(imctl completion bash)\n  zsh:         imctl completion zsh > \"${fpath[1]}/_imctl\"\n" +
			"  fish:        imctl completion fish > ~/.config/fish/completions/imctl.fish\n  powershell:  imctl completion powershell | Out-String | Invoke-Expression",
		Args: args(1, "SHELL"), ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), a.io.Out
			switch args[0] {
			case "bash":
				return outputError(root.GenBashCompletionV2(out, true))
			case "zsh":
				return outputError(root.GenZshCompletion(out))
			case "fish":
				return outputError(root.GenFishCompletion(out, true))
			case "powershell":
				return outputError(root.GenPowerShellCompletionWithDesc(out))
			}
			return usage("", "shell %q: want bash, zsh, fish or powershell", args[0])
		},
	}
}

// completeWith makes a completion of the first most arguments from the live cluster; one that does not answer completes nothing.
func (a *app) completeWith(most int, list func(ctx context.Context, c *admin.Client, prefix string) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeTimeout)
		defer cancel()
		var names []string
		err := a.followAdmin(ctx, func(ctx context.Context, c *admin.Client) (err error) {
			names, err = list(ctx, c, prefix)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeNodes(most int) cobra.CompletionFunc {
	return a.completeWith(most, func(ctx context.Context, c *admin.Client, _ string) ([]string, error) {
		nodes, err := c.Nodes(ctx)
		names := make([]string, 0, len(nodes))
		for _, n := range nodes {
			names = append(names, n.Name+"\t"+n.Role+", "+n.State)
		}
		return names, err
	})
}

func (a *app) completeClients(most int) cobra.CompletionFunc {
	return a.completeWith(most, func(ctx context.Context, c *admin.Client, prefix string) ([]string, error) {
		page, err := c.Routes(ctx, admin.RouteListQuery{Prefix: prefix, Limit: completeMost})
		names := make([]string, 0, len(page.Routes))
		for _, r := range page.Routes {
			names = append(names, r.Client+"\ton "+r.Node)
		}
		return names, err
	})
}
