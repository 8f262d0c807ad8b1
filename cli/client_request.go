package cli

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/client"
)

type clientRequestOptions struct {
	clientSendOptions
	toClient bool
}

func newClientRequestCmd(a *app) *cobra.Command {
	o := &clientRequestOptions{clientSendOptions: clientSendOptions{loginOptions: loginOptions{app: a}}}
	c := &cobra.Command{
		Use: "request SERVICE TEXT|-", Short: "Log in, ask a service and print its answer",
		Long: "Request logs in, sends one request (\"-\": what it reads from its input) to one instance of a service, or with\n" +
			"--client to a client, and prints the answer: to a terminal as text, anywhere else just as it is. It exits with 3 if nobody is there to answer, with 4 if the\ncluster could not tell, and with 1 if the answer is a fault, or if none came and it is not known why.",
		Args: args(2, "SERVICE", "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	o.flags(c)
	c.Flags().Lookup("as").Usage = "client id to log in as (default: a random one)"
	c.Flags().BoolVar(&o.toClient, "client", false, "ask a client of that id in place of a service")
	return c
}

// requestOutput is the JSON of a request. Result is "answered", "fault", or a code's name.
type requestOutput struct {
	Result     string    `json:"result"`
	Code       wire.Code `json:"code,omitempty"`
	Fault      uint32    `json:"fault,omitempty"`
	Text       string    `json:"text,omitempty"`
	From       string    `json:"from,omitempty"`
	Payload    *string   `json:"payload,omitempty"`
	PayloadB64 string    `json:"payload_b64,omitempty"`
	RTTUS      int64     `json:"rtt_us,omitempty"`
	ID         string    `json:"id"`
}

func (o *clientRequestOptions) run(ctx context.Context, name, text string) error {
	to := client.ToService(name)
	if o.toClient {
		if _, err := clientID(o.tenant, name); err != nil {
			return err
		}
		to = client.ToClient(name)
	} else if err := checkService(name); err != nil {
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
	c, err := o.dial(ctx, cfg)
	if err != nil {
		return err
	}
	asking, cancelAsking := context.WithTimeout(ctx, o.timeout+time.Second) // a net below the request's own time-out
	defer cancelAsking()
	r, askErr := c.Request(asking, to, payload, client.WithTimeout(o.timeout))
	closing, cancelClose := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelClose()
	_ = c.Close(closing) // whatever it says, the answer is here
	if interrupted(ctx) && askErr != nil {
		return interruptedCall("request", "it may have been carried out, or may still be")
	}
	return o.show(name, r, askErr)
}

// answerText is an answer as it goes to the output: for a person with nothing in it that could steer the terminal, and with a mark
// before its further lines; else as it is, and if it is text with the end of its last line.
func (o *clientRequestOptions) answerText(payload []byte) string {
	text := string(payload)
	switch {
	case !o.io.OutTTY && !utf8.ValidString(text):
		return text
	case !o.io.OutTTY:
		return strings.TrimSuffix(text, "\n") + "\n"
	case !utf8.ValidString(text):
		return payloadText(payload) + "\n"
	}
	return printableLines(strings.TrimSuffix(text, "\n"), "| ") + "\n"
}

func (o *clientRequestOptions) show(name string, r client.Reply, err error) error {
	out := requestOutput{Result: "answered", From: r.From, ID: r.ID.String(), RTTUS: r.RTT.Microseconds()}
	var fault *client.Fault
	w, isWire := asWire(err)
	switch {
	case err == nil:
		if utf8.Valid(r.Payload) {
			s := string(r.Payload)
			out.Payload = &s
		} else {
			out.PayloadB64 = base64.StdEncoding.EncodeToString(r.Payload)
		}
	case errors.As(err, &fault):
		out.Result, out.Fault, out.Text = "fault", fault.Code, fault.Text
	case isWire:
		out.Result, out.Code, out.Text = w.Code.String(), w.Code, w.Text
	default:
		return err
	}
	if o.asJSON() {
		if err := o.printJSON(out); err != nil {
			return err
		}
	} else if err == nil {
		if err := o.printf("%s", o.answerText(r.Payload)); err != nil {
			return err
		}
		o.note("answered by %s, rtt %s", r.From, short(r.RTT))
	}
	switch {
	case err == nil:
		return nil
	case fault != nil:
		return &failure{exit: ExitError, code: "fault", text: fault.Error()}
	case w.Code == wire.Offline && o.toClient:
		return codeError(w.Code, name+" is not connected anywhere", "")
	case w.Code == wire.Offline:
		return codeError(w.Code, name+" has no instance", "be one with \""+o.program()+" client serve "+quoted([]string{name})+o.tenantFlag()+"\"")
	case w.Code == wire.Timeout, w.Code == wire.Unknown:
		return codeError(w.Code, w.Text, "the outcome is not known: the request may have been carried out, or may still be")
	}
	return codeError(w.Code, w.Text, "")
}
