package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// AskConfig says whom to ask. Zero values mean what the comments say.
type AskConfig struct {
	URL     string        // https, or http on loopback. Required
	Secret  string        // signs every question; at least 16 characters. Required
	Timeout time.Duration // of one question, waiting for a free request included. 0: 3 s
	AtOnce  int           // requests at the same time at most; others wait. 0: 64

	Client *http.Client // nil: one that follows no redirects
}

// Asker asks a back end questions: one signed POST each, which is not repeated. Its methods may be called from any goroutine.
type Asker struct {
	cfg   AskConfig
	slots chan struct{}
	own   *http.Transport // nil: the client is the caller's
}

// Denied is an answer 4xx: the back end understood and says no. Text is what it says about that, for people; it may be empty.
type Denied struct {
	Status int
	Text   string
}

func (d *Denied) Error() string {
	if d.Text != "" {
		return d.Text
	}
	return "the back end answers " + http.StatusText(d.Status)
}

// Limits of an answer.
const (
	maxAnswer = 512 << 10 // bytes
	maxDenial = 200       // bytes of Denied.Text
)

// NewAsker checks the configuration; nothing is asked yet.
func NewAsker(cfg AskConfig) (*Asker, error) {
	if err := checkTarget(cfg.URL, cfg.Secret); err != nil {
		return nil, err
	}
	def(&cfg.Timeout, 3*time.Second)
	def(&cfg.AtOnce, 64)
	if cfg.Timeout < 0 || cfg.AtOnce < 0 {
		return nil, fmt.Errorf("webhook: Timeout %v or AtOnce %d is out of range", cfg.Timeout, cfg.AtOnce)
	}
	a := &Asker{cfg: cfg, slots: make(chan struct{}, cfg.AtOnce)}
	if a.cfg.Client == nil {
		a.own, a.cfg.Client = newClient(cfg.AtOnce)
	}
	return a, nil
}

// Ask posts question as JSON and has read take what is answered with a status 2xx: a JSON object's members, each by its exact name
// and once. It must refuse those that it does not know: an answer that was meant otherwise than it is understood, such as
// {"error":…} with a status 200, must not be taken for one that says nothing. A *Denied is a 4xx that will not change by itself;
// any other error is a failure: no answer in time, 408, 425, 429, 5xx, or something else than was asked for.
func (a *Asker) Ask(ctx context.Context, question any, read func(name string, value json.RawMessage) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return fmt.Errorf("%d questions are waiting for their answers: %w", a.cfg.AtOnce, context.Cause(ctx))
	}
	raw, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.URL, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	sign(req, a.cfg.Secret, raw)
	resp, err := a.cfg.Client.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer: %w", err)
	case resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode == http.StatusTooEarly || resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("it answered %s", resp.Status)
	case resp.StatusCode/100 == 4:
		return &Denied{Status: resp.StatusCode, Text: denial(body)}
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it answered %s", resp.Status)
	case len(body) > maxAnswer:
		return fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	if err := wire.EachMember(body, read); err != nil {
		return fmt.Errorf("its answer is not what was asked for: %w", err)
	}
	return nil
}

// denial is the reason that a back end gives: {"error":"…"}, or else nothing. It goes to clients, so it is short, one line and text.
func denial(body []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, said.Error)
	if len(text) > maxDenial {
		text = strings.ToValidUTF8(text[:maxDenial], "") + "…"
	}
	return text
}

// Close gives idle connections back. Questions under way are not waited for: their callers are.
func (a *Asker) Close() {
	if a != nil && a.own != nil {
		a.own.CloseIdleConnections()
	}
}

// Login is what a back end is asked about a client that logs in.
type Login struct {
	Client string `json:"client"`
	Tenant string `json:"tenant"`
	User   string `json:"user"` // Client without its device
	Node   string `json:"node"` // where it logs in
}

// Allowed is the answer: patterns as in a token's claims of that name. Nil: it does not say.
type Allowed struct {
	Send, Join *[]string
}

// member takes one member of the answer. It refuses null, as tokens do: who has an empty list must not hand out everything.
func (a *Allowed) member(name string, value json.RawMessage) error {
	var to **[]string
	switch name {
	case "send":
		to = &a.Send
	case "join":
		to = &a.Join
	default:
		return unknown(name, `{"send":[…],"join":[…]}, each of which may be left out`)
	}
	list, err := wire.Strings(value)
	if err != nil {
		return fmt.Errorf("%s must be a list of patterns, each a string: [] allows nothing, leaving it out leaves it to the token and the node", name)
	}
	*to = &list
	return nil
}

// unknown is the error for a member that an answer must not have.
func unknown(name, want string) error {
	if name == "error" {
		return errors.New(`it has an "error" but a status 2xx: to refuse, answer 403`)
	}
	return fmt.Errorf("it has %.64q, which means nothing here: want %s; to refuse, answer 403", name, want)
}

// Allowed asks what a client that logs in may send to and join.
func (a *Asker) Allowed(ctx context.Context, client wire.ClientID, node string) (Allowed, error) {
	var answer Allowed
	err := a.Ask(ctx, struct {
		Login Login `json:"login"`
	}{Login{Client: client.ID, Tenant: client.Tenant, User: client.User(), Node: node}}, answer.member)
	return answer, err
}
