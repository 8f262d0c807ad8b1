package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"imroute/mesh/wire"
)

// Config is everything Dial needs. Only Addrs (or AssignFrom) and Client are required.
type Config struct {
	// Addrs are the nodes' client addresses, tried in this order and then all over again until the first login; when a session is
	// lost, those that its node named come first, in the order told, and then all the others in random order, so that the
	// clients of a node that fails spread over those that are left. "host:port" for TCP,
	// "tls://host:port" for TCP with TLS, "ws://host:port" or "wss://host:port" for WebSocket (path /v1/ws unless one is
	// given). Addresses that the cluster tells are added to these; these always stay.
	Addrs []string

	// AssignFrom are nodes' WebSocket ports, "http://host:port" or "https://host:port", one of which is asked before the first login
	// which node to log in at (GET /v1/assign); it is then tried before Addrs. If none answers, Addrs are tried all the same;
	// they may be empty only if AssignFrom is not. The transport is that of Addrs[0], TCP without one.
	AssignFrom []string

	// Client is the id to log in as, 1 to 255 bytes of UTF-8.
	Client string
	// Tenant is only honoured by nodes in development mode; otherwise the token says it.
	Tenant string

	// Token is shown at every login. Empty: none.
	Token string
	// TokenSource, if set, is asked for a token at every login instead, so that an expired one is replaced. Its context
	// ends with the login's time-out. An error counts as a failed login, which is tried again; a *wire.Error of class
	// Final ends the Client.
	TokenSource func(context.Context) (string, error)

	// TLS is used for tls:// and wss://. nil: the system's roots, the host's name from the address.
	TLS *tls.Config
	// DialContext makes the network connection. nil: a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnMessage, if set, is called with one message at a time, in order, from a goroutine of its own; Receive is then not
	// to be used. It may send; it must not call Close.
	OnMessage func(Message)
	// OnState, if set, is told of every change, one at a time and in order. It must return soon: reconnecting and
	// time-outs wait for it. It must not call Close, and Send only with AckNone.
	OnState func(State)
	// OnRefused, if set, is told of ack=none messages that failed after Send returned: refused by the cluster, or never
	// written before their time-out. It must return soon.
	OnRefused func(Result)
	// Groups are joined with the first login; see Client.Join for more.
	Groups []string
	// OnLeft, if set, is told of groups that this Client is in no more without having asked for it: closed by an operator,
	// refused after a reconnect. It must return soon.
	OnLeft func(group string, why *wire.Error)
	// ManualAck leaves acknowledging to Message.Ack. false: a message that asks for it is acknowledged when OnMessage has
	// returned, or when Receive hands it out.
	ManualAck bool

	// MaxInFlight is how many acknowledged sends may be unanswered. 0: 65,536.
	MaxInFlight int
	// QueueBytes bounds the memory of what was sent and is not yet answered or written, also while disconnected, counted
	// as payload + recipient + 64 bytes each. Past it sends fail with Overloaded. 0: 16 MiB.
	QueueBytes int
	// ReceiveBuffer bounds the bytes (payload + 128 each) that were received and not yet taken by the application; past it
	// the connection is not read. 0: 1 MiB.
	ReceiveBuffer int

	// Timeout is how long a send waits for its result unless it says otherwise. 0: 5 s. At most 49 days.
	Timeout time.Duration
	// DialTimeout bounds making one network connection. 0: 3 s.
	DialTimeout time.Duration
	// LoginTimeout bounds one whole login, half of it while there are addresses that were not tried yet; a node that says it
	// waits for a fence gets the time it named on top. 0: 10 s.
	LoginTimeout time.Duration
	// BackoffMin and BackoffMax bound the jittered exponential pause between logins. 0: 50 ms and 5 s.
	BackoffMin, BackoffMax time.Duration
	// DisableReconnect ends the Client when its first session ends.
	DisableReconnect bool

	// Logger gets what happens to connections (Info, Debug) and what a peer did wrong (Warn). nil: nothing is logged.
	Logger *slog.Logger

	// For tests: uniform in [0,1).
	random func() float64
}

func (cfg *Config) setDefaults() {
	def(&cfg.MaxInFlight, 65536)
	def(&cfg.QueueBytes, 16<<20)
	def(&cfg.ReceiveBuffer, 1<<20)
	def(&cfg.Timeout, 5*time.Second)
	def(&cfg.DialTimeout, 3*time.Second)
	def(&cfg.LoginTimeout, 10*time.Second)
	def(&cfg.BackoffMin, 50*time.Millisecond)
	def(&cfg.BackoffMax, max(5*time.Second, cfg.BackoffMin))
	if cfg.DialContext == nil {
		cfg.DialContext = (&net.Dialer{KeepAlive: -1}).DialContext // the protocol's own pings do that
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T int | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// validate names the field at fault. It expects the defaults to be set.
func (cfg *Config) validate() error {
	for _, from := range cfg.AssignFrom {
		if _, err := parseAssignFrom(from); err != nil {
			return fmt.Errorf("client config: AssignFrom: %w", err)
		}
	}
	if len(cfg.Addrs) == 0 && len(cfg.AssignFrom) == 0 {
		return errors.New("client config: Addrs is empty: name at least one client address, as host:port or ws://host:port")
	}
	if err := (wire.ClientID{Tenant: cfg.Tenant, ID: cfg.Client}).Validate(); err != nil {
		return fmt.Errorf("client config: Client or Tenant: %w", err)
	}
	if len(cfg.Groups) > wire.MaxGroups {
		return fmt.Errorf("client config: Groups has %d entries: at most %d", len(cfg.Groups), wire.MaxGroups)
	}
	for _, g := range cfg.Groups {
		if err := wire.ToGroup.ValidateTo(g); err != nil {
			return fmt.Errorf("client config: Groups: %w", err)
		}
	}
	for _, f := range []struct {
		name string
		v    int64
		min  int64
	}{
		{"MaxInFlight", int64(cfg.MaxInFlight), 1},
		{"QueueBytes", int64(cfg.QueueBytes), 1},
		{"ReceiveBuffer", int64(cfg.ReceiveBuffer), 1},
		{"DialTimeout", int64(cfg.DialTimeout), 1},
		{"LoginTimeout", int64(cfg.LoginTimeout), 1},
		{"BackoffMin", int64(cfg.BackoffMin), 1},
		{"BackoffMax", int64(cfg.BackoffMax), int64(cfg.BackoffMin)},
	} {
		if f.v < f.min {
			return fmt.Errorf("client config: %s is %d: must be at least %d, or 0 for the default", f.name, f.v, f.min)
		}
	}
	if cfg.Timeout < time.Millisecond || cfg.Timeout > maxTimeout {
		return fmt.Errorf("client config: Timeout is %s: must be between 1ms and %s, or 0 for the default", cfg.Timeout, maxTimeout)
	}
	return nil
}

// maxTimeout is the longest that fits into a frame's timeout_ms.
const maxTimeout = (1<<32 - 1) * time.Millisecond
