package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server serves the API. New makes it, Open starts it, Close ends it; each once. Addr may be called from any goroutine
// after Open.
type Server struct {
	// Fixed after construction.
	cfg     Config
	log     *slog.Logger
	auth    auth
	routes  []route
	calls   chan struct{} // a slot per call under way
	watches chan struct{} // a slot per watch

	refusals calm // locks itself

	// Fixed after Open.
	ln       net.Listener
	http     *http.Server
	base     context.Context // of every request
	cancel   context.CancelCauseFunc
	closing  chan struct{} // closed first of all: watches end by it
	serveErr chan error    // one value, when the accept loop ended

	mu      sync.Mutex
	state   state          // guarded by mu
	running sync.WaitGroup // handlers; grows only under mu while state is open
}

type state uint8

const (
	stateNew state = iota
	stateOpen
	stateClosed
)

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger,
		calls: make(chan struct{}, cfg.MaxCalls), watches: make(chan struct{}, cfg.MaxWatches),
		closing: make(chan struct{}), serveErr: make(chan error, 1),
	}
	s.auth = newAuth(&s.cfg)
	s.routes = s.table()
	return s, nil
}

// Open listens and serves until Close. It refuses addresses beyond loopback without TLS, and in development mode at all;
// the error says which flags to set.
func (s *Server) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateNew {
		return errors.New("admin: the server was opened before")
	}
	// The address is resolved once and that very address is listened at: a name cannot change its meaning in between.
	addr, err := net.ResolveTCPAddr("tcp", s.cfg.Bind)
	if err != nil {
		return fmt.Errorf("admin: Bind %q: %w", s.cfg.Bind, err)
	}
	if err := s.cfg.checkReach(addr); err != nil {
		return err
	}
	ln, err := s.cfg.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("admin: cannot listen at %s: %w (is another node running there? choose another address with --admin)",
			s.cfg.Bind, err)
	}
	s.ln = newLimitListener(ln, s.cfg.MaxConns)
	s.base, s.cancel = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler:           s,
		TLSConfig:         s.cfg.TLS,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols), // HTTP/1 alone: one connection carries one call, limits stay simple
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.http.Protocols.SetHTTP1(true)
	go func() {
		if s.cfg.TLS != nil {
			s.serveErr <- s.http.ServeTLS(s.ln, "", "")
			return
		}
		s.serveErr <- s.http.Serve(s.ln)
	}()
	s.state = stateOpen
	s.log.Info("admin API listens", "addr", ln.Addr().String(), "tls", s.cfg.TLS != nil, "dev_mode", s.cfg.DevMode)
	return nil
}

// Addr is the address listened at, or "" before Open.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return ""
	}
	return s.ln.Addr().String()
}

// Close takes no more requests, ends the watches with a last line each, lets calls under way finish until ctx ends, cuts
// off what is left, and returns when every goroutine has ended. It returns ctx's error if something was cut off. A second
// Close, or one before Open, does nothing.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	was := s.state
	s.state = stateClosed
	s.mu.Unlock()
	if was != stateOpen {
		return nil
	}
	close(s.closing)
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.cancel(errShutdown)
		_ = s.http.Close() // its errors are those of connections that are being cut anyway
	}
	s.running.Wait()
	s.cancel(errShutdown)
	if serr := <-s.serveErr; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("admin: %w", serr))
	}
	return err
}

var errShutdown = errors.New("the node is shutting down")

// begin counts a handler in, unless the server is closing.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateOpen {
		return false
	}
	s.running.Add(1)
	return true
}

// limitListener bounds the connections that are open at once.
type limitListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimitListener(ln net.Listener, n int) *limitListener {
	return &limitListener{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: c, release: func() { <-l.slots }}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// writeDeadline gives the answer, and each further piece of a stream, its time.
func (s *Server) writeDeadline(w http.ResponseWriter, d time.Duration) {
	// An error means that the connection is gone: the write that follows says so.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
}
