package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// refusals remembers why logins failed: the last reason alone would often be that of a node that is down.
type refusals struct {
	mu      sync.Mutex
	said    *wire.Error // what a node said that turns logins away for the moment
	reached bool        // a node took the connection
	heard   bool        // anything was heard of a login
	asked   bool        // askForeign was called
	mute    string      // an address that closed the connection without a word
	foreign []foreignPort

	left   int // addresses of which nothing foreign was heard
	giveUp context.CancelCauseFunc
}

// foreignPort is an address that answers and is no client port.
type foreignPort struct{ addr, text string }

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// watch notes which nodes can be connected to.
func (r *refusals) watch(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reached = true
		}
		return c, err
	}
}

// errNoClientPort ends a login for which no address is left.
var errNoClientPort = errors.New("no client port")

// expect has giveUp called once every address has answered in another language.
func (r *refusals) expect(addrs []string, giveUp context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.giveUp = len(addrs), giveUp
}

// note takes what the SDK reports while it logs in.
func (r *refusals) note(s client.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = r.heard || s.Kind != client.Closed || s.Code != wire.LoginTimeout
	if s.Kind != client.Closed {
		return
	}
	switch {
	case s.Peer == client.PeerForeign:
		r.foreignLocked(foreignPort{s.Addr, s.Text})
	case s.Peer == client.PeerMute:
		r.mute = s.Addr
	default:
		switch s.Code {
		case wire.NoQuorum, wire.Unavailable, wire.NotReady, wire.LeaseLost, wire.LoginTimeout, wire.Busy:
			r.said = &wire.Error{Code: s.Code, Text: s.Text}
		}
	}
}

// loginSilence is how long nothing is heard of a login before the addresses are asked whether they speak something else: an HTTP
// server waits for the end of a line that a login frame may not have.
const loginSilence = 1500 * time.Millisecond

// askAfterSilence calls askForeign if nothing is heard of the login for long.
func (o *loginOptions) askAfterSilence(ctx context.Context, cfg client.Config) {
	timer := time.NewTimer(loginSilence)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	o.refused.mu.Lock()
	silent := o.refused.reached && !o.refused.heard
	o.refused.mu.Unlock()
	if silent {
		o.askForeign(ctx, cfg)
	}
}

func (r *refusals) foreignLocked(p foreignPort) {
	if slices.ContainsFunc(r.foreign, func(o foreignPort) bool { return o.addr == p.addr }) {
		return
	}
	r.foreign = append(r.foreign, p)
	if r.left--; r.left == 0 && r.giveUp != nil {
		r.giveUp(errNoClientPort)
	}
}

// loginError explains why a login failed.
func (o *loginOptions) loginError(ctx context.Context, cfg client.Config, err error) error {
	r := &o.refused
	r.mu.Lock()
	said, reached, mute, asked := r.said, r.reached, r.mute, r.asked
	r.mu.Unlock()
	late := errors.Is(err, context.DeadlineExceeded)
	unsaid := said == nil || said.Code == wire.LoginTimeout
	if late && reached && !asked && unsaid {
		o.askForeign(ctx, cfg) // somebody who takes connections and says nothing: perhaps it waits for something else
	}
	r.mu.Lock()
	foreign := slices.Clone(r.foreign)
	r.mu.Unlock()
	where := "cannot log in as " + o.as + " at " + strings.Join(cfg.Addrs, ", ") + ": "
	switch {
	case len(foreign) >= len(cfg.Addrs), len(foreign) > 0 && late && unsaid:
		return o.foreignError(foreign)
	case said != nil && said.Code == wire.Busy:
		f := codeError(said.Code, said.Text, "\""+o.program()+" cluster health\" says what is wrong; try again in a moment")
		f.text = where + f.text
		return f
	case said != nil:
		f := codeError(wire.Unavailable, where+said.Error(), o.noLoginHint())
		f.cause = said
		return f
	case mute != "" && late:
		return fail("connection_lost", "is that a client port? one with TLS wants tls://HOST:PORT, a WebSocket port ws://HOST:PORT; the CLIENT column of \""+o.program()+" node list\" has the addresses",
			"%s%s takes connections and closes them without a word", where, mute)
	case late && reached:
		return codeError(wire.Unavailable, where+"no node could register it within "+o.timeout.String(), o.noLoginHint())
	}
	w, ok := asWire(err)
	if !ok {
		f := asFailure(err, o.timeout.String())
		f.text = where + err.Error()
		if f.code == "timeout" || f.hint == "" {
			f.hint = o.staleHint(cfg)
		}
		return f
	}
	f := codeError(w.Code, w.Text, "")
	f.text = where + f.text
	switch w.Code {
	case wire.BadToken, wire.TokenExpired:
		f.hint = "give a token with --client-token (\"" + o.program() + " client token " + o.as + "\" makes one, unless the nodes check tokens with keys of your own)"
	case wire.AlreadyOnline:
		f.hint = "this cluster refuses a second login under one id: \"" + o.program() + " route kick " + o.as + "\" ends the first"
	case wire.ConnectionLost, wire.Timeout, wire.LoginTimeout:
		f.hint = o.staleHint(cfg)
	}
	return f
}

// foreignError says what is wrong with addresses that are none for clients.
func (o *loginOptions) foreignError(foreign []foreignPort) error {
	var texts []string
	for _, p := range foreign {
		texts = append(texts, p.text)
	}
	return fail("not_a_client_port", "\""+o.program()+" node list\" has the addresses: those under CLIENT for HOST:PORT, those under WEBSOCKET for ws://HOST:PORT (with TLS tls:// and wss://)",
		"cannot log in as %s: %s", o.as, strings.Join(texts, "; "))
}

// noLoginHint: who gets no answer to a login cannot tell a cluster without a majority from nodes that hang.
func (o *loginOptions) noLoginHint() string {
	return "\"" + o.program() + " cluster health\" says which it is: start enough voters to have a majority; if there is one, these nodes hang: restart them, or name others with --addr"
}

// askForeign finds out which of the addresses that said nothing to a login speak HTTP.
func (o *loginOptions) askForeign(ctx context.Context, cfg client.Config) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	o.refused.mu.Lock()
	o.refused.asked = true
	o.refused.mu.Unlock()
	var tasks sync.WaitGroup
	for _, addr := range cfg.Addrs {
		host := strings.TrimPrefix(addr, "tcp://")
		if strings.Contains(host, "://") {
			continue
		}
		tasks.Go(func() {
			if speaksHTTP(ctx, o.io.dialer(), host) {
				o.refused.mu.Lock()
				defer o.refused.mu.Unlock()
				o.refused.foreignLocked(foreignPort{addr, addr + " speaks HTTP, not the client protocol: is it the admin address, or a WebSocket one, ws://" + host + "?"})
			}
		})
	}
	tasks.Wait()
}

// speaksHTTP asks, until ctx ends.
func speaksHTTP(ctx context.Context, dial dialFunc, addr string) bool {
	c, err := dial(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // it ends the read; the second Close changes nothing
	if _, err := io.WriteString(c, "HEAD / HTTP/1.0\r\n\r\n"); err != nil {
		return false
	}
	begin := make([]byte, 5)
	_, err = io.ReadFull(c, begin)
	return err == nil && string(begin) == "HTTP/"
}
