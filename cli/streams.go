package cli

import (
	"context"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// IOStreams is everything of the outside world that imctl touches: streams, environment, network, signals. Tests give
// their own. A nil function or stream means: there is none (no environment variables, empty input, output thrown away),
// except DialContext, which then is an ordinary net.Dialer.
type IOStreams struct {
	In       io.Reader
	Out, Err io.Writer

	// InTTY, OutTTY and ErrTTY say whether a person sits at the other end: only then imctl asks questions or uses colour.
	InTTY, OutTTY, ErrTTY bool

	// LookupEnv reads the environment as os.LookupEnv does.
	LookupEnv func(key string) (string, bool)

	// DialContext opens the connections to admin APIs and client listeners.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Signals delivers interrupts. The first one ends the running command gracefully, the second one at once.
	Signals <-chan os.Signal

	// Program is imctl's name as a user should type it in the commands that it suggests, say "imctl" or
	// "go run ./cli/imctl". Empty means "imctl".
	Program string

	// Executable is the file to start child processes from ("imctl dev"). Empty: dev is not possible.
	Executable string

	// UserConfigDir is where the context file lives unless IMCTL_CONTEXT names it. Empty: nothing is remembered.
	UserConfigDir string
}

// System returns the streams of this process. Call it once: it takes over SIGINT and SIGTERM.
func System() IOStreams {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	exe, _ := os.Executable() // empty is understood
	configDir, _ := os.UserConfigDir()
	dialer := &net.Dialer{}
	return IOStreams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY:         term.IsTerminal(int(os.Stdin.Fd())),
		OutTTY:        term.IsTerminal(int(os.Stdout.Fd())),
		ErrTTY:        term.IsTerminal(int(os.Stderr.Fd())),
		LookupEnv:     os.LookupEnv,
		DialContext:   dialer.DialContext,
		Signals:       signals,
		Program:       programName(os.Args[0], exe),
		Executable:    exe,
		UserConfigDir: configDir,
	}
}

// programName is how this program can be called again: as it was typed, or by "go run" if that built it into a
// temporary folder that will be gone.
func programName(typed, exe string) string {
	if strings.Contains(filepath.ToSlash(exe), "/go-build") {
		return "go run ./cli/imctl"
	}
	base := strings.TrimSuffix(filepath.Base(typed), ".exe")
	if typed == filepath.Base(typed) { // found through PATH
		return base
	}
	if strings.ContainsAny(typed, " \t'\"$") {
		return "'" + strings.ReplaceAll(typed, "'", `'\''`) + "'"
	}
	return typed
}

// dialer is DialContext, or an ordinary one.
func (s IOStreams) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	if s.DialContext != nil {
		return s.DialContext
	}
	return (&net.Dialer{}).DialContext
}
