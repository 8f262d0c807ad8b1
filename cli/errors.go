package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes. Scripts rely on them: their meaning never changes.
const (
	ExitOK       = 0 // done
	ExitError    = 1 // anything without a code of its own, wrong usage included
	ExitDegraded = 2 // "cluster health", "cluster status" or "route check": it works, but something is missing or wrong
	ExitNotFound = 3 // the client, node or token does not exist, or the recipient is offline
	ExitNoQuorum = 4 // no majority of voters answers: nothing was decided, try again later
)

// failure is an error as imctl shows it: what happened, what to do next, and the exit code.
type failure struct {
	exit  int
	code  string // for programs: a word that does not change
	text  string
	hint  string
	quiet bool // everything there is to say was printed already
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// fail makes a failure with exit code 1.
func fail(code, hint, format string, args ...any) *failure {
	err := fmt.Errorf(format, args...)
	return &failure{exit: ExitError, code: code, text: err.Error(), hint: hint, cause: errors.Unwrap(err)}
}

// usage is a failure whose cure is to type the command differently.
func usage(hint, format string, args ...any) *failure { return fail("usage", hint, format, args...) }

// asFailure brings any error into the form that is shown.
func asFailure(err error, timeout string) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{exit: ExitError, code: "timeout", text: "no answer within " + timeout, hint: "give it longer with --timeout, or ask another node with --addr", cause: err}
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return &failure{exit: ExitError, code: "interrupted", text: "interrupted", cause: err}
	}
	return &failure{exit: ExitError, code: "error", text: err.Error(), cause: err}
}

// errInterrupted is the cause of a context that a signal cancelled.
var errInterrupted = errors.New("interrupted")

// report writes a failure to w: one JSON object, or "imctl: text" and a line that starts with "hint:".
func (f *failure) report(w io.Writer, asJSON bool) {
	if f.quiet {
		return
	}
	if asJSON {
		type body struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
			Exit    int    `json:"exit"`
		}
		_ = json.NewEncoder(w).Encode(map[string]body{"error": {f.code, f.text, f.hint, f.exit}}) // nowhere left to complain
		return
	}
	_, _ = fmt.Fprintf(w, "imctl: %s\n", printableLines(strings.TrimSpace(f.text), "       "))
	if f.hint != "" {
		_, _ = fmt.Fprintf(w, "hint: %s\n", printableLines(f.hint, "      "))
	}
}
