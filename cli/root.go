package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootLong = `imctl runs a node of an imroute cluster and operates the cluster.

imroute holds long client connections on many equal nodes and delivers every message
to the node that owns its recipient. The nodes agree on the owners by Raft and talk to
each other directly; nothing else is needed beside this one binary.

Try it:   imctl dev`

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "imctl", Short: "Run and operate imroute clusters", Long: rootLong,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkGlobals() },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	a.globalFlags(root.PersistentFlags())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(flagHint(cmd, err), "%w", err)
	})
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	root.AddCommand(
		newDevCmd(a), newNodeCmd(a), newClusterCmd(a), newRaftCmd(a), newRouteCmd(a), newGroupCmd(a), newServiceCmd(a), newPresenceCmd(a), newClientCmd(a), newChatCmd(a), newAPICmd(a), newBenchCmd(a),
		newContextCmd(a), newVersionCmd(a), newCompletionCmd(a),
	)
	root.AddCommand(helpTopics()...)
	return root
}

func (a *app) globalFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&a.addrs, "addr", nil, "addresses to ask, tried in order (admin addresses; for \"client\" commands client addresses)")
	f.StringVarP(&a.output, "output", "o", outputTable, "table or json")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "give up after this long")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask before destructive commands")
	f.StringVar(&a.token, "token", "", "token for the admin API")
	f.StringVar(&a.tokenFile, "token-file", "", "file that holds the token for the admin API")
	f.StringVar(&a.ca, "ca", "", "file with the certificate authority of the admin API (PEM)")
}

func (a *app) checkGlobals() error {
	if a.output != outputTable && a.output != outputJSON {
		out := a.output
		a.output = outputTable
		return usage("", "--output %q: want table or json", out)
	}
	if a.timeout <= 0 {
		a.timeout = defaultTimeout
		return usage("", "--timeout must be more than 0")
	}
	return nil
}

// flagHint suggests the flag that may have been meant.
func flagHint(cmd *cobra.Command, err error) string {
	_, name, ok := strings.Cut(err.Error(), "unknown flag: --")
	if ok {
		best, most := "", 3
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if d := distance(name, f.Name); !f.Hidden && (d < most || (strings.HasPrefix(f.Name, name) && best == "")) {
				best, most = f.Name, min(d, most)
			}
		})
		if best != "" {
			return "did you mean --" + best + "?"
		}
	}
	return "\"" + cmd.CommandPath() + " --help\" lists the flags"
}

// distance is the Levenshtein distance of two flag names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
