package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/client"
)

type clientSendOptions struct {
	loginOptions
	to, user, group, prefix string
	all, others             bool
	ack                     string
}

// address is what the flags say.
func (o *clientSendOptions) address() (to client.Address, who string, err error) {
	var kind wire.Kind
	var given []string
	pick := func(is bool, k wire.Kind, id string, a client.Address) {
		if is {
			flag := "--" + k.String()
			if k == wire.ToClient {
				flag = "--to"
			}
			given = append(given, flag)
			kind, who, to = k, id, a
		}
	}
	pick(o.to != "", wire.ToClient, o.to, client.ToClient(o.to))
	pick(o.user != "", wire.ToUser, o.user, client.ToUser(o.user))
	pick(o.group != "", wire.ToGroup, o.group, client.ToGroup(o.group))
	pick(o.prefix != "", wire.ToPrefix, o.prefix, client.ToPrefix(o.prefix))
	pick(o.all, wire.ToAll, "", client.ToAll())
	pick(o.others, wire.ToOthers, "", client.ToOthers())
	switch {
	case len(given) == 0:
		return to, who, usage("", "--to is missing: name one of --to CLIENT, --user USER, --group GROUP, --prefix PREFIX, --all, --others")
	case len(given) > 1:
		return to, who, usage("send once for each", "%s: choose one, a message has one address", strings.Join(given, " and "))
	}
	if err := kind.ValidateTo(who); err != nil {
		return to, who, usage("", "%w", err)
	}
	return to, who, nil
}

func newClientSendCmd(a *app) *cobra.Command {
	o := &clientSendOptions{loginOptions: loginOptions{app: a}}
	c := &cobra.Command{
		Use: "send --to CLIENT TEXT|-", Short: "Log in, send one message to a client or to many, and say how it ended",
		Long: "Send logs in, sends one message (\"-\": what it reads from its input) and prints the result, the owner of the\n" +
			"recipient and the round trip; for many recipients (--user, --group, --prefix, --all, --others) how many were reached, how many\n" +
			"were not, and some of these by name. It returns when everybody has answered, and after --timeout (10s unless given) at the\n" +
			"latest: who has not acknowledged by then is counted as missed. Nodes wait a minute at most.\n\n" +
			"It exits with 0 if the message was delivered, to one recipient at least (with --ack none: taken), with 3 if the recipient\n" +
			"is offline, with 4 if the cluster is unavailable, and with 1 otherwise.",
		Args: args(1, "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.to, "to", "", "client id of the recipient, or of a user: then all devices")
	c.Flags().StringVar(&o.user, "user", "", "all devices of this user")
	c.Flags().StringVar(&o.group, "group", "", "all members of this group")
	c.Flags().StringVar(&o.prefix, "prefix", "", "all clients whose ids begin with this")
	c.Flags().BoolVar(&o.all, "all", false, "all clients")
	c.Flags().BoolVar(&o.others, "others", false, "all clients but this one")
	c.Flags().StringVar(&o.ack, "ack", "owner", "what to wait for: none, owner (written to the recipient's connection) or client (acknowledged by the recipient)")
	_ = c.RegisterFlagCompletionFunc("ack", cobra.FixedCompletions([]string{"none", "owner", "client"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	_ = c.RegisterFlagCompletionFunc("to", a.completeClients(1))                                                                             // the flag exists
	return c
}

// sendOutput is the JSON of a sent message.
type sendOutput struct {
	Result string    `json:"result"`
	Code   wire.Code `json:"code"`
	Owner  string    `json:"owner"`
	Count  int       `json:"count"`
	RTTUS  int64     `json:"rtt_us"`
	ID     string    `json:"id,omitempty"` // absent: it was refused before it got one
	Text   string    `json:"text,omitempty"`

	Missed    int      `json:"missed"`
	MissedIDs []string `json:"missed_ids,omitempty"`
}

func (o *clientSendOptions) run(ctx context.Context, text string) error {
	ack, err := parseAck(o.ack)
	if err != nil {
		return err
	}
	to, who, err := o.address()
	if err != nil {
		return err
	}
	payload, err := o.payload(ctx, text)
	if err != nil {
		return err
	}
	o.as = cmp.Or(o.as, anonymous())
	cfg, err := o.config(ctx)
	if err != nil {
		return err
	}
	// It takes what it sends to many itself, or would wait for its own acknowledgement until the time-out. What others send to it
	// is not for it: it is left unacknowledged.
	cfg.ManualAck = true
	cfg.OnMessage = func(m client.Message) {
		if m.From == cfg.Client {
			m.Ack()
		}
	}
	c, err := o.dial(ctx, cfg)
	if err != nil {
		if f := asFailure(err, ""); f.exit == ExitNoQuorum && o.asJSON() { // that is a result, too
			if err := o.printJSON(sendOutput{Result: wire.Unavailable.String(), Code: wire.Unavailable, Text: f.text}); err != nil {
				return err
			}
		}
		return err
	}
	// The message has its own time-out; the context is only a net below it.
	sending, cancelSending := context.WithTimeout(ctx, o.timeout+time.Second)
	defer cancelSending()
	r, sendErr := c.SendTo(sending, to, payload, client.WithAck(ack), client.WithTimeout(o.timeout))
	closing, cancelClose := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelClose()
	if err := c.Close(closing); err != nil && ack == wire.AckNone && sendErr == nil {
		return fail("unknown", "ask for an answer with --ack owner", "the message may not have been written: %w", err)
	}
	if interrupted(ctx) && sendErr != nil {
		return interruptedCall("message", "it may have arrived, or may still arrive")
	}
	return o.show(r, sendErr, who)
}

// interruptedCall is for what was under way when Ctrl-C came.
func interruptedCall(what, fate string) *failure {
	return &failure{exit: ExitError, code: "interrupted", text: "interrupted before it was known what became of the " + what, hint: fate, cause: errInterrupted}
}

// tenantFlag is what a suggested command needs to mean the same tenant.
func (o *loginOptions) tenantFlag() string {
	if o.tenant == "" {
		return ""
	}
	return " --tenant " + quoted([]string{o.tenant})
}

// payload is what the command line says, "-" for what comes from the input.
func (o *clientSendOptions) payload(ctx context.Context, text string) ([]byte, error) {
	if text == "-" {
		return withContext(ctx, o.readInput)
	}
	return []byte(text), nil
}

// readInput reads the payload, up to the largest that any node takes.
func (o *clientSendOptions) readInput() ([]byte, error) {
	const most = 16 << 20
	b, err := io.ReadAll(io.LimitReader(o.io.In, most+1))
	if err != nil {
		return nil, fail("input", "", "cannot read the message: %w", err)
	}
	if len(b) > most {
		return nil, fail("too_large", "", "the message is larger than %d MiB", most>>20)
	}
	return b, nil
}

func (o *clientSendOptions) show(r client.Result, err error, who string) error {
	if w, ok := asWire(err); ok && (r.Code == wire.None || r.Code != w.Code) {
		r.Code, r.Text = w.Code, w.Text
	} else if err != nil && !ok {
		return err
	}
	if r.Code == wire.None && err == nil { // ack=none: taken
		r.Code = wire.Accepted
	}
	id := ""
	if r.ID != (wire.MessageID{}) {
		id = r.ID.String()
	}
	if o.asJSON() {
		if err := o.printJSON(sendOutput{r.Code.String(), r.Code, r.Owner, r.Count, r.RTT.Microseconds(), id, r.Text, r.Missed, r.MissedIDs}); err != nil {
			return err
		}
	} else {
		line := r.Code.String()
		if r.Owner != "" {
			line += "  owner " + r.Owner
		}
		if r.Count > 0 || o.to == "" && r.Code != wire.Accepted {
			line += fmt.Sprintf("  %d reached", r.Count)
		}
		line += missedText(r.Missed, r.MissedIDs)
		if r.RTT > 0 {
			line += "  rtt " + short(r.RTT)
		}
		if id != "" {
			line += "  id " + id
		}
		if err := o.printf("%s\n", printable(line)); err != nil {
			return err
		}
	}
	switch r.Code {
	case wire.Delivered, wire.Accepted:
		return nil
	case wire.Offline:
		if o.to == "" {
			return codeError(r.Code, "nobody is there to be reached", "")
		}
		return codeError(r.Code, who+" is not connected anywhere", "connect it with \""+o.program()+" client connect --as "+quoted([]string{who})+o.tenantFlag()+"\"")
	case wire.Unavailable, wire.NoQuorum:
		return codeError(r.Code, r.Text, "nothing was decided: see \""+o.program()+" cluster status\" and try again")
	case wire.TooLarge:
		return codeError(r.Code, r.Text, "nodes take messages of up to their --max-payload, 1 MiB unless they were started otherwise")
	case wire.Timeout, wire.Unknown:
		return codeError(r.Code, r.Text, "the outcome is not known: the message may have arrived or may still arrive")
	}
	return codeError(r.Code, r.Text, "")
}

// missedText names who was not reached: "  3 not: ann, bob, …".
func missedText(n int, ids []string) string {
	if n == 0 {
		return ""
	}
	text := fmt.Sprintf("  %d not", n)
	if len(ids) == 0 {
		return text
	}
	ids = slices.Sorted(slices.Values(ids))
	if text += ": " + strings.Join(ids, ", "); len(ids) < n {
		text += ", …"
	}
	return text
}

func parseAck(s string) (wire.AckMode, error) {
	switch s {
	case "none":
		return wire.AckNone, nil
	case "owner":
		return wire.AckOwner, nil
	case "client":
		return wire.AckClient, nil
	}
	return 0, usage("", "--ack %q: want none, owner or client", s)
}

// asWire finds the code in an error of the SDK.
func asWire(err error) (*wire.Error, bool) {
	var w *wire.Error
	ok := errors.As(err, &w)
	return w, ok
}
