package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/client"
)

type clientServeOptions struct {
	loginOptions
	concurrency int

	mu sync.Mutex // orders what is printed
}

func newClientServeCmd(a *app) *cobra.Command {
	o := &clientServeOptions{loginOptions: loginOptions{app: a}}
	c := &cobra.Command{
		Use: "serve SERVICE [-- PROGRAM [ARG]...]", Short: "Be an instance of a service until Ctrl-C: echo requests, or run a program for each",
		Long: "Serve logs in and answers requests to a service, which the cluster spreads over all its instances. Without a\n" +
			"program it answers each request with what it carried. With one, it runs the program for each request: the\n" +
			"request is its input, the sender's id is in IMROUTE_FROM, and its output is the answer; if it fails, the\nrequester is told the fault 100 and what the program wrote to its error output. One that is still running when the\nrequester waits no longer is killed.",
		Args: func(cmd *cobra.Command, got []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(got) == 0 || dash == 0:
				return usage("usage: "+cmd.UseLine(), "SERVICE is missing")
			case len(got) > 1 && dash != 1:
				return usage("put \"--\" before the program: "+cmd.UseLine(), "%q is too much", got[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1:]) },
	}
	o.flags(c)
	c.Flags().Lookup("as").Usage = "client id to log in as (default SERVICE/ and something random)"
	c.Flags().IntVar(&o.concurrency, "concurrency", 64, "how many requests to take at a time")
	return c
}

// programFault is what a requester is told of a program that failed.
const programFault = 100

func (o *clientServeOptions) run(ctx context.Context, service string, program []string) error {
	if err := checkService(service); err != nil {
		return err
	}
	if o.concurrency < 1 || o.concurrency > wire.MaxServiceLoad {
		return usage("", "--concurrency %d: want 1 to %d", o.concurrency, wire.MaxServiceLoad)
	}
	if len(program) > 0 {
		if _, err := exec.LookPath(program[0]); err != nil {
			return fail("program", "name a file that can be run, with its path if it is not in PATH", "cannot run the program: %w", err)
		}
	}
	o.as = cmp.Or(o.as, service+"/"+anonymous())
	cfg, err := o.config(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx) // also ended by output that nobody reads any more
	defer stop(nil)
	cfg.OnState = func(s client.State) {
		o.refused.note(s)
		if err := o.showState(s); err != nil {
			stop(err)
		}
	}
	c, err := o.dial(ctx, cfg)
	if err != nil {
		return unlessInterrupted(err)
	}
	err = o.serve(ctx, c, service, o.handler(program, stop))
	return goodbye(ctx, c, err)
}

func (o *clientServeOptions) serve(ctx context.Context, c *client.Client, service string, h client.Handler) error {
	begin, cancel := o.bounded(ctx)
	defer cancel()
	s, err := c.Serve(begin, service, h, client.WithConcurrency(o.concurrency))
	if err != nil {
		if interrupted(ctx) {
			return nil
		}
		if w, ok := asWire(err); ok {
			return codeError(w.Code, w.Text, "")
		}
		return err
	}
	if err := o.show(serveEvent{Event: "serving", Client: o.as, Service: service}, "* serving %s as %s\n", service, o.as); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		if cause := context.Cause(ctx); !interrupted(ctx) {
			err = cause
		}
	case <-s.Done():
		w, _ := asWire(s.Err())
		err = codeError(w.Code, w.Text, "")
	case <-c.Done():
		err = o.ended(c.Err())
	}
	ending, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancelEnd()
	if closeErr := s.Close(ending); err == nil && closeErr != nil {
		err = fail("close", "", "%w", closeErr)
	}
	return err
}

// serveEvent is one line of "client serve --output json".
type serveEvent struct {
	Event   string `json:"event"` // connected, waiting, closed, serving or request
	Client  string `json:"client,omitempty"`
	Service string `json:"service,omitempty"`
	Node    string `json:"node,omitempty"`
	From    string `json:"from,omitempty"`
	ID      string `json:"id,omitempty"`
	Fault   uint32 `json:"fault,omitempty"`
	Text    string `json:"text,omitempty"`
}

func (o *clientServeOptions) show(e serveEvent, format string, args ...any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asJSON() {
		return o.printLine(e)
	}
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = printable(s) // what is printable already stays as it is
		}
	}
	return o.printf(format, args...)
}

func (o *clientServeOptions) showState(s client.State) error {
	return o.show(serveEvent{Event: s.Kind.String(), Client: o.as, Node: s.Node, Text: s.Text}, "* %s\n", s.String())
}

// handler answers requests; what cannot be printed ends the command.
func (o *clientServeOptions) handler(program []string, stop context.CancelCauseFunc) client.Handler {
	return func(ctx context.Context, r client.Request) ([]byte, error) {
		answer, err := r.Payload, error(nil)
		if len(program) > 0 {
			answer, err = runProgram(ctx, program, r)
		}
		e := serveEvent{Event: "request", Service: r.Service, From: r.From, ID: r.ID.String()}
		line := printable(r.From) + ": " + payloadText(r.Payload)
		var f *client.Fault
		switch {
		case errors.As(err, &f):
			e.Fault, e.Text = f.Code, f.Text
			line += " (" + f.Error() + ")"
		case err != nil:
			e.Fault, e.Text = client.FaultTimeout, "killed: its time was over"
			if ctx.Err() == context.Canceled {
				e.Fault, e.Text = client.FaultInternal, "killed: the service ends"
			}
			line += " (" + e.Text + ")"
		}
		if err := o.show(e, "%s\n", line); err != nil {
			stop(err)
		}
		return answer, err
	}
}

func runProgram(ctx context.Context, program []string, r client.Request) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "IMROUTE_FROM="+r.From, "IMROUTE_SERVICE="+r.Service)
	cmd.Stdin = bytes.NewReader(r.Payload)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // it was killed because nobody waits any more
		}
		text := strings.TrimSpace(errs.String())
		if text == "" {
			text = err.Error()
		}
		return nil, &client.Fault{Code: programFault, Text: text[:min(len(text), wire.MaxText)]}
	}
	return out.Bytes(), nil
}
