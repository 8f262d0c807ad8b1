package admin

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

// Config configures a Server.
type Config struct {
	// Bind is the address to listen at, host:port; port 0 takes a free one (see Server.Addr). Required. A host that is not
	// loopback requires TLS.
	Bind string
	// Listen opens the listener at Bind, as resolved; network is "tcp". Nil: net.Listen.
	Listen func(network, addr string) (net.Listener, error)
	// TLS makes the server speak https only. Nil: http. It is cloned, and needs a certificate or a way to get one.
	TLS *tls.Config
	// Token is the bearer token that callers must show. One of Token and TokenCheck is required outside development mode.
	Token string
	// TokenCheck decides in place of Token, say where tokens change while the server runs. It must not block, must compare in
	// constant time, and may be called from many goroutines.
	TokenCheck func(token string) bool
	// KeyCheck finds out what an API key, a bearer token that begins with KeyPrefix, may do; false: it is unknown or no longer
	// valid. The same holds for it as for TokenCheck. Nil: there are no API keys.
	KeyCheck func(key string) (Key, bool)
	// KeyCatchUp is asked after KeyCheck refused a key: true means that what KeyCheck reads has been brought up to date since, so
	// that it is worth a second try. It may take until ctx ends (KeyWait at most), and has to bound how often it does any work:
	// anybody can show keys. Nil: KeyCheck is always up to date.
	KeyCatchUp func(ctx context.Context, key string) bool
	// DevMode lets everybody in who is on this machine: no token. Only for a Bind that is loopback. Requests that a web page
	// could have caused are refused.
	DevMode bool
	// Backend answers. Required.
	Backend Backend
	// Metrics serves /metrics, see the sub-package metrics. Nil: /metrics is not found.
	Metrics http.Handler
	// Logger takes operation and audit lines; audit lines have the message "audit". Nil: they are dropped.
	Logger *slog.Logger

	// CallTimeout bounds each call of the Backend, except sends (their own time-out and 2 s) and the watch. 0: 30 s.
	CallTimeout time.Duration
	// HeaderTimeout bounds reading a request's head and, anew, its body. 0: 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept. 0: 60 s.
	IdleTimeout time.Duration
	// WriteTimeout is how long one write may take a slow reader. 0: 10 s.
	WriteTimeout time.Duration
	// Heartbeat is the longest silence on a watch. 0: 5 s. At most 10 s: Client gives up after 20 s.
	Heartbeat time.Duration
	// MaxPayload is the largest payload of a message in bytes. 0: wire.MaxPayload. Bodies may have twice that, and 64 KiB.
	MaxPayload int
	// MaxConns is how many connections may be open at once; more wait to be accepted. 0: 1024.
	MaxConns int
	// MaxCalls is how many calls may be under way at once, MaxWatches how many watches; more are overloaded. 0: 256, 64.
	MaxCalls, MaxWatches int
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	def(&c.CallTimeout, 30*time.Second)
	def(&c.HeaderTimeout, 10*time.Second)
	def(&c.IdleTimeout, 60*time.Second)
	def(&c.WriteTimeout, 10*time.Second)
	def(&c.Heartbeat, 5*time.Second)
	def(&c.MaxPayload, wire.MaxPayload)
	def(&c.MaxConns, 1024)
	def(&c.MaxCalls, 256)
	def(&c.MaxWatches, 64)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// validate names the field at fault. Whether Bind is loopback is found out when it is resolved, in Open.
func (c *Config) validate() error {
	if c.Backend == nil {
		return errors.New("admin: Backend is missing")
	}
	if _, port, err := net.SplitHostPort(c.Bind); err != nil || port == "" {
		return fmt.Errorf("admin: Bind %q: want host:port, say 127.0.0.1:7903", c.Bind)
	}
	if !c.DevMode && c.Token == "" && c.TokenCheck == nil {
		return errors.New("admin: Token is missing: without one only development mode (--dev, on loopback) is possible")
	}
	if c.Token != "" && len(c.Token) < minToken {
		return fmt.Errorf("admin: Token has %d characters: use at least %d random ones", len(c.Token), minToken)
	}
	if t := c.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return errors.New("admin: TLS has no certificate")
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"CallTimeout", c.CallTimeout},
		{"HeaderTimeout", c.HeaderTimeout},
		{"IdleTimeout", c.IdleTimeout},
		{"WriteTimeout", c.WriteTimeout},
		{"Heartbeat", c.Heartbeat},
	} {
		if d.v < 0 {
			return fmt.Errorf("admin: %s is %v: want more than 0", d.name, d.v)
		}
	}
	if c.Heartbeat > maxSilence/2 {
		return fmt.Errorf("admin: Heartbeat is %v: at most %v", c.Heartbeat, maxSilence/2)
	}
	for _, n := range []struct {
		name string
		v    int
	}{{"MaxPayload", c.MaxPayload}, {"MaxConns", c.MaxConns}, {"MaxCalls", c.MaxCalls}, {"MaxWatches", c.MaxWatches}} {
		if n.v < 0 {
			return fmt.Errorf("admin: %s is %d: want more than 0", n.name, n.v)
		}
	}
	return nil
}

// KeyWait is how long a call with an unknown API key waits for Config.KeyCatchUp.
const KeyWait = time.Second

// minToken keeps out tokens that can be guessed.
const minToken = 16

// checkReach refuses to be reachable from elsewhere without protection.
func (c *Config) checkReach(a *net.TCPAddr) error {
	switch {
	case a.IP.IsLoopback():
		return nil
	case c.DevMode:
		return fmt.Errorf("admin: development mode asks nobody for a token, so it listens on loopback only, not at %s: "+
			"use --admin 127.0.0.1:%d, or leave --dev out and set --admin-cert and --admin-key (or --admin-node-cert)", c.Bind, a.Port)
	case c.TLS == nil:
		return fmt.Errorf("admin: will not listen at %s without TLS, tokens would be readable on the way: "+
			"set --admin-cert and --admin-key (or --admin-node-cert), or use --admin 127.0.0.1:%d", c.Bind, a.Port)
	}
	return nil
}
