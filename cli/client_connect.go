package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/client"
)

type clientConnectOptions struct {
	loginOptions
	count  int
	groups []string

	mu sync.Mutex // orders what is printed: messages and states come from different goroutines
}

func newClientConnectCmd(a *app) *cobra.Command {
	o := &clientConnectOptions{loginOptions: loginOptions{app: a}}
	c := &cobra.Command{
		Use: "connect --as CLIENT", Short: "Log in, stay connected and print messages until Ctrl-C",
		Long: "Connect logs in and prints every message, each on one line: the ends of lines in it are shown as \\n. It acknowledges\n" +
			"those that ask for it once they are printed, and\n" +
			"reconnects over all known addresses when its node goes away. With --output json it prints one object a\nline; \"event\" is connected, waiting, message, left or closed.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	c.Flags().IntVar(&o.count, "count", 0, "end after this many messages (0: never)")
	c.Flags().StringSliceVar(&o.groups, "group", nil, "groups to be in, also after reconnecting")
	_ = c.MarkFlagRequired("as") // the flag exists
	return c
}

// connectEvent is one line of "client connect --output json".
type connectEvent struct {
	Event      string     `json:"event"`
	Client     string     `json:"client,omitempty"`
	Node       string     `json:"node,omitempty"`
	Addr       string     `json:"addr,omitempty"`
	LeftMS     int64      `json:"left_ms,omitempty"`
	From       string     `json:"from,omitempty"`
	Kind       string     `json:"kind,omitempty"`  // of a message to many
	Group      string     `json:"group,omitempty"` // that it was sent to, or that the client is in no more
	ID         string     `json:"id,omitempty"`
	Payload    *string    `json:"payload,omitempty"`
	PayloadB64 string     `json:"payload_b64,omitempty"` // instead of payload, if that is not UTF-8
	Epoch      wire.Epoch `json:"epoch,string,omitempty"`
	Code       wire.Code  `json:"code,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Text       string     `json:"text,omitempty"`
	Retrying   *bool      `json:"retrying,omitempty"`
	RetryMS    int64      `json:"retry_ms,omitempty"`
}

func (o *clientConnectOptions) run(ctx context.Context) error {
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
	for _, g := range o.groups {
		if err := checkGroup(g); err != nil {
			return err
		}
	}
	cfg.Groups = o.groups
	cfg.OnLeft = func(group string, why *wire.Error) {
		if err := o.showLeft(group, why); err != nil {
			stop(err)
		}
	}
	cfg.ManualAck = true
	c, err := o.dial(ctx, cfg)
	if err != nil {
		return unlessInterrupted(err)
	}
	err = o.receive(ctx, c)
	return goodbye(ctx, c, err)
}

// receive prints messages until there were enough, the SDK gave up, or ctx ended.
func (o *clientConnectOptions) receive(ctx context.Context, c *client.Client) error {
	for n := 1; ; n++ {
		m, err := c.Receive(ctx)
		switch {
		case interrupted(ctx):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			if errors.Is(err, client.ErrClosed) {
				return nil
			}
			return o.ended(err)
		}
		if err := o.showMessage(m); err != nil {
			return err
		}
		m.Ack() // printed: now it has arrived
		if n == o.count {
			return nil
		}
	}
}

func (o *clientConnectOptions) showMessage(m client.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asJSON() {
		from := m.From
		if m.Group != "" {
			from = "[" + m.Group + "] " + from
		}
		return o.printf("%s: %s\n", printable(from), payloadText(m.Payload))
	}
	e := connectEvent{Event: "message", From: m.From, ID: m.ID.String(), Epoch: m.Epoch, Group: m.Group}
	if m.Kind != wire.ToClient {
		e.Kind = m.Kind.String()
	}
	if utf8.Valid(m.Payload) {
		text := string(m.Payload)
		e.Payload = &text
	} else {
		e.PayloadB64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	return o.printLine(e)
}

func (o *clientConnectOptions) showLeft(group string, why *wire.Error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asJSON() {
		return o.printf("* no longer in %s (%s)\n", printable(group), printable(why.Error()))
	}
	return o.printLine(connectEvent{Event: "left", Group: group, Code: why.Code, Reason: why.Code.String(), Text: why.Text})
}

func (o *clientConnectOptions) showState(s client.State) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asJSON() {
		switch s.Kind {
		case client.Connected:
			return o.printf("* connected as %s to %s (%s), epoch %d\n", printable(o.as), printable(s.Node), printable(s.Addr), s.Epoch)
		case client.Waiting:
			return o.printf("* waiting at %s until the former owner is fenced, %s at most\n", printable(s.Addr), short(s.Left))
		}
		reason := s.Code.String()
		if s.Text != "" && s.Text != reason {
			reason += ": " + s.Text
		}
		if s.Retrying {
			return o.printf("* disconnected (%s), reconnecting in %s\n", printable(reason), short(s.After))
		}
		return o.printf("* closed (%s)\n", printable(reason))
	}
	e := connectEvent{Event: s.Kind.String(), Client: o.as, Node: s.Node, Addr: s.Addr, Epoch: s.Epoch, LeftMS: s.Left.Milliseconds()}
	if s.Kind == client.Closed {
		e.Code, e.Reason, e.Text, e.Retrying, e.RetryMS = s.Code, s.Code.String(), s.Text, &s.Retrying, s.After.Milliseconds()
	}
	return o.printLine(e)
}
