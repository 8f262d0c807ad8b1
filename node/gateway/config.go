package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"imroute/mesh/wire"
)

// Config says how a Gateway works. It is read by New and not kept by reference; zero values mean the default named.
type Config struct {
	TCP string // address to listen on for length-prefixed CBOR, host:port; port 0 picks one. Empty: no TCP listener
	WS  string // address to listen on for HTTP and WebSocket. Empty: no WebSocket listener. One of the two is required

	TLS *tls.Config  // certificate for both listeners. Nil: no encryption
	Mux http.Handler // answers all HTTP requests but PathWS. Nil: 404

	// Listen opens the listeners at TCP and WS; network is "tcp". Nil: a net.ListenConfig's, without TCP's keep-alive.
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)

	// Origins lists origins besides the request's own host from which browsers may connect (path.Match patterns for a host,
	// or scheme://host). AnyOrigin turns the check off. With DevMode it is another one: see checkOrigin.
	Origins   []string
	AnyOrigin bool

	Auth    *Auth // checks login tokens. Required unless DevMode
	DevMode bool  // every login is believed, its tenant taken from the frame. Only on loopback addresses

	Idle             time.Duration // a session from which nothing was heard for this long ends. Default 30 s
	HandshakeTimeout time.Duration // from accept to the end of the login frame, TLS included. Default 10 s
	LoginTimeout     time.Duration // longest time a login may wait for its registration. Default 15 s
	Doze             time.Duration // a session from which nothing was heard for this long gives up its goroutine, where the system can: see doze.go. Default 2 s; negative: never
	WriteTimeout     time.Duration // a write that takes longer makes the client a slow reader. Default 10 s
	KickTimeout      time.Duration // longest time spent on telling a closed session why, and on letting it read that. Default 1 s

	MaxPayload   int // bytes of one message's payload. Default wire.MaxPayload (1 MiB); at most 64 MiB
	QueueBytes   int // bytes of deliver frames waiting per session, for sure; for answers see answersAtMost. Default 256 KiB
	QueueMost    int // the same while the reserve lasts. Default 2 MiB, or QueueBytes if that is set
	QueueReserve int // bytes past QueueBytes in all sessions together. Default 256 MiB
	MaxUnacked   int // messages per session that wait for the client's ack. Default 4096
	MaxSessions  int // connections at once, logged in or not. Default 100,000
	LoginBurst   int // connections admitted at once before LoginRate counts. Default 2 × LoginRate, at least 1
	LoginRate    int // connections admitted per second on average. Default 0: no limit
	DedupeWindow int // message ids remembered per sender instance and session. Default 64
	DedupePeers  int // sender instances remembered per session. Default 1024

	Limits Limiting // what clients and tenants may use. Default: no limits

	DedupeAge time.Duration // a sender instance silent for this long is forgotten. Default 2 min

	Backend Backend      // required
	Journal Journal      // for tests: told of every write under the lease. Default: none
	Logger  *slog.Logger // Default: discards
	Clock   Clock        // for tests. Default: the monotonic system clock
}

// Clock is the time source. Only differences between its answers matter, except for token expiry, which is compared with
// the wall clock at login.
type Clock interface {
	Now() time.Time
	// Ticker sends the time at every interval until stop is called; it may skip ticks nobody waits for.
	Ticker(every time.Duration) (c <-chan time.Time, stop func())
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Ticker(every time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(every)
	return t.C, t.Stop
}

func orDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// validate fills in defaults and names the field at fault.
func (c *Config) validate() error {
	orDefault(&c.Idle, 30*time.Second)
	orDefault(&c.HandshakeTimeout, 10*time.Second)
	orDefault(&c.LoginTimeout, 15*time.Second)
	orDefault(&c.Doze, 2*time.Second)
	orDefault(&c.WriteTimeout, 10*time.Second)
	orDefault(&c.KickTimeout, time.Second)
	orDefault(&c.DedupeAge, 2*time.Minute)
	orDefault(&c.MaxPayload, wire.MaxPayload)
	if c.QueueBytes == 0 {
		c.QueueBytes = 256 << 10
		orDefault(&c.QueueMost, 2<<20)
	}
	orDefault(&c.QueueMost, c.QueueBytes)
	orDefault(&c.QueueReserve, 256<<20)
	orDefault(&c.MaxUnacked, 4096)
	orDefault(&c.MaxSessions, 100_000)
	orDefault(&c.LoginBurst, max(1, 2*c.LoginRate))
	orDefault(&c.DedupeWindow, 64)
	orDefault(&c.DedupePeers, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Listen == nil {
		c.Listen = (&net.ListenConfig{
			KeepAlive: -1, // the idle time-out does more, and costs four system calls less
			Control:   acceptHeard,
		}).Listen
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"Idle", c.Idle},
		{"HandshakeTimeout", c.HandshakeTimeout},
		{"LoginTimeout", c.LoginTimeout},
		{"WriteTimeout", c.WriteTimeout},
		{"KickTimeout", c.KickTimeout},
		{"DedupeAge", c.DedupeAge},
	} {
		if d.v < 10*time.Millisecond || d.v > 24*time.Hour {
			return fmt.Errorf("gateway config: %s is %v: want 10ms to 24h", d.name, d.v)
		}
	}
	for _, n := range []struct {
		name   string
		v      int
		lo, hi int
	}{
		{"MaxPayload", c.MaxPayload, 1, 64 << 20},
		{"QueueBytes", c.QueueBytes, 1 << 10, 1 << 30},
		{"QueueMost", c.QueueMost, c.QueueBytes, 1 << 30},
		{"QueueReserve", c.QueueReserve, 1, 1 << 30},
		{"MaxUnacked", c.MaxUnacked, 1, 1 << 20},
		{"MaxSessions", c.MaxSessions, 1, 10_000_000},
		{"LoginRate", c.LoginRate, 0, 10_000_000},
		{"LoginBurst", c.LoginBurst, 1, 10_000_000},
		{"DedupeWindow", c.DedupeWindow, 1, 1 << 16},
		{"DedupePeers", c.DedupePeers, 1, 1 << 20},
	} {
		if n.v < n.lo || n.v > n.hi {
			return fmt.Errorf("gateway config: %s is %d: want %d to %d", n.name, n.v, n.lo, n.hi)
		}
	}
	if err := c.Limits.validate(); err != nil {
		return err
	}
	if c.Backend == nil {
		return errors.New("gateway config: Backend is missing")
	}
	if c.TCP == "" && c.WS == "" {
		return errors.New("gateway config: TCP and WS are both empty: give at least one address to listen on")
	}
	for _, a := range []struct{ name, addr string }{{"TCP", c.TCP}, {"WS", c.WS}} {
		if a.addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("gateway config: %s: %w: want host:port, for example 127.0.0.1:7000", a.name, err)
		}
		if c.DevMode && !loopback(host) {
			return fmt.Errorf("gateway config: DevMode believes every login and therefore listens on loopback only, but %s is %q:"+
				" bind 127.0.0.1 or give keys (Auth)", a.name, a.addr)
		}
	}
	if c.Auth == nil && !c.DevMode {
		return errors.New("gateway config: Auth is missing: give keys to check login tokens with, or set DevMode on loopback")
	}
	return nil
}

// loopback reports whether a host to bind can be reached from this machine only. A name is not trusted to be, except localhost.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
