package cli

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Main runs imctl with the arguments behind its name and returns the exit code (see ExitOK and its neighbours). It may
// be called several times in a process, also at once, with different streams.
func Main(args []string, streams IOStreams) int {
	return run(args, newApp(streams))
}

func newApp(streams IOStreams) *app {
	if streams.In == nil {
		streams.In = strings.NewReader("")
	}
	if streams.Out == nil {
		streams.Out = io.Discard
	}
	if streams.Err == nil {
		streams.Err = io.Discard
	}
	return &app{io: streams, timeout: defaultTimeout, output: outputTable, startServer: startNode}
}

func run(args []string, a *app) int {
	root := newRootCmd(a)
	root.SetArgs(args)
	root.SetIn(a.io.In)
	root.SetOut(a.io.Out)
	root.SetErr(a.io.Err)
	ctx, stop := a.withSignals(context.Background())
	err := root.ExecuteContext(ctx)
	stop()
	if err == nil {
		return ExitOK
	}
	f := asFailure(a.explain(root, args, err), a.timeout.String())
	f.report(a.io.Err, a.asJSON() || wantsJSON(args))
	return f.exit
}

// explain improves errors that come out of cobra itself.
func (a *app) explain(root *cobra.Command, args []string, err error) error {
	if rest, ok := strings.CutPrefix(err.Error(), "required flag(s) "); ok {
		name, _, _ := strings.Cut(strings.TrimPrefix(rest, `"`), `"`)
		cmd, _, _ := root.Find(args)
		return usage("usage: "+cmd.UseLine(), "--%s is missing", name)
	}
	return err
}

// wantsJSON finds --output json in arguments that could not be parsed, so that even that error is JSON.
func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	for i, arg := range args {
		switch {
		case arg == "--output=json", arg == "-o=json", arg == "-ojson":
			return true
		case (arg == "--output" || arg == "-o") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}
