package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is what one run of imctl knows. It belongs to the goroutine that called Main.
type app struct {
	io IOStreams

	// global flags
	addrs     []string
	output    string
	timeout   time.Duration
	yes       bool
	token     string
	tokenFile string
	ca        string

	// force is closed by the second signal: whatever is still ending ends at once.
	force chan struct{}

	// startServer is package node behind a small interface, see node_run.go.
	startServer serverStarter
}

// defaultTimeout bounds every command that is not meant to run until stopped.
const defaultTimeout = 10 * time.Second

// env reads an environment variable; "" if it is not set.
func (a *app) env(key string) string {
	if a.io.LookupEnv == nil {
		return ""
	}
	v, _ := a.io.LookupEnv(key)
	return v
}

// program is how to call imctl again.
func (a *app) program() string {
	if a.io.Program == "" {
		return "imctl"
	}
	return a.io.Program
}

// colour tells whether w, a stream that is a terminal or not, may be coloured.
func (a *app) colour(tty bool) bool {
	return tty && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

// bounded gives a command its --timeout.
func (a *app) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.timeout)
}

// confirm asks before something that cannot be undone.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.yes {
		return nil
	}
	if !a.io.InTTY {
		return fail("confirmation", "add --yes if you mean it", "this wants a confirmation and nobody is there to ask: %s", question)
	}
	if _, err := fmt.Fprintf(a.io.Err, "%s [y/N] ", printable(question)); err != nil {
		return outputError(err)
	}
	line, err := withContext(ctx, func() (string, error) { return bufio.NewReader(a.io.In).ReadString('\n') })
	if err != nil && line == "" {
		return fail("confirmation", "add --yes if you mean it", "no answer: nothing was done")
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return fail("confirmation", "", "nothing was done")
}

// withContext runs f, which cannot be interrupted (it reads a terminal), but does not wait for it longer than ctx. f's
// goroutine then ends with its input or with the process.
func withContext[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	got := make(chan answer, 1)
	go func() {
		v, err := f()
		got <- answer{v, err}
	}()
	select {
	case r := <-got:
		return r.v, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// withSignals returns a context that ends with the first signal; force is closed by the second one. stop waits for the
// goroutine behind it.
func (a *app) withSignals(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.force = make(chan struct{})
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-a.io.Signals: // nil: never
			case <-ended:
				return
			}
			if n == 0 {
				cancel(errInterrupted)
			}
			if n == 1 {
				close(a.force)
			}
		}
	}()
	return ctx, func() {
		close(ended)
		<-done
		cancel(nil)
	}
}

// interrupted tells whether a signal ended ctx.
func interrupted(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errInterrupted) }

// readSecret reads a file that holds one token.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fail("token", "", "cannot read the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || strings.ContainsAny(t, " \t\r\n") {
		return "", fail("token", "", "%s does not hold one token", path)
	}
	return t, nil
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	c.AddCommand(subs...)
	return c
}

// unknownCommand suggests what may have been meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	hint := "\"" + cmd.CommandPath() + " --help\" lists the commands"
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		hint = "did you mean \"" + cmd.CommandPath() + " " + strings.Join(s, "\" or \""+cmd.CommandPath()+" ") + "\"?"
	}
	return usage(hint, "unknown command %q for %q", name, cmd.CommandPath())
}

// args turns cobra's complaints about the number of arguments into ours. names describe them, the last min of the list
// may not be left out.
func args(min int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		switch {
		case len(got) < min:
			return usage("usage: "+cmd.UseLine(), "%s is missing", names[len(got)])
		case len(got) > len(names):
			return usage("usage: "+cmd.UseLine(), "%q is too much: %q takes %d argument(s)", got[len(names)], cmd.CommandPath(), len(names))
		}
		return nil
	}
}
