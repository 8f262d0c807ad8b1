package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
	"imroute/node/pace"
)

// Pauses after an error of Accept (out of file descriptors, say), doubling.
const (
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

func (g *Gateway) listenLocked(ctx context.Context) error {
	if g.cfg.TCP != "" {
		l, err := g.cfg.Listen(ctx, "tcp", g.cfg.TCP)
		if err != nil {
			return fmt.Errorf("client listener (TCP): %w: choose another address or stop who uses it", err)
		}
		g.tcp = l
	}
	if g.cfg.WS != "" {
		l, err := g.cfg.Listen(ctx, "tcp", g.cfg.WS)
		if err != nil {
			if g.tcp != nil {
				_ = g.tcp.Close()
				g.tcp = nil
			}
			return fmt.Errorf("client listener (WebSocket): %w: choose another address or stop who uses it", err)
		}
		g.ws = l
	}
	if tcp := g.tcp; tcp != nil {
		g.openBell()
		g.loops.Add(1)
		go func() {
			defer g.loops.Done()
			steady := &steadyListener{Listener: tcp, g: g}
			for {
				raw, err := steady.Accept()
				if err != nil {
					return
				}
				g.acceptTCP(raw)
			}
		}()
	}
	if ws := g.ws; ws != nil {
		mux := http.NewServeMux()
		mux.HandleFunc(PathWS, g.serveWS)
		if g.cfg.Mux != nil {
			mux.Handle("/", g.cfg.Mux)
		}
		srv := &http.Server{
			Handler: mux, ReadHeaderTimeout: g.cfg.HandshakeTimeout, IdleTimeout: g.cfg.Idle, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		}
		g.srv = srv
		g.loops.Add(1)
		go func() {
			defer g.loops.Done()
			if err := srv.Serve(&wsListener{steadyListener{Listener: ws, g: g}}); !errors.Is(err, http.ErrServerClosed) {
				g.log.Warn("WebSocket listener ended", "err", err)
			}
		}()
	}
	return nil
}

// steadyListener's Accept returns an error only when the listener was closed. Any other one is counted, logged and followed
// by a pause, so that a lack of file descriptors neither burns the processor nor ends the listener. While the processor is short,
// a crowd of clients, of a node that died, waits in the listener's queue and not in front of everybody's messages. For one goroutine.
type steadyListener struct {
	net.Listener
	g    *Gateway
	pace pace.Pacer
}

func (l *steadyListener) Accept() (net.Conn, error) {
	if l.pace.Next() {
		l.g.st.paced.Add(1)
	}
	pause := acceptPause
	for {
		c, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err
		}
		l.g.st.acceptErrors.Add(1)
		l.g.log.Warn("accepting a client failed", "err", err, "again_in", pause, "hint", "check the limit of open files")
		select {
		case <-time.After(pause):
		case <-l.g.stop:
			return nil, net.ErrClosed
		}
		pause = min(2*pause, acceptPauseMax)
	}
}

// wsListener makes connections that can be corked, with TLS inside.
type wsListener struct{ steadyListener }

func (l *wsListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.steadyListener.Accept()
		if err != nil {
			return nil, err
		}
		conf := l.g.cfg.TLS
		if conf == nil {
			return &corkConn{Conn: raw, under: raw}, nil
		}
		if l.g.limiter != nil && l.g.limiter.TokensAt(l.g.cfg.Clock.Now()) < 1 { // the token itself is taken by serveWS
			l.g.st.drop(DropAdmission, 1)
			_ = raw.Close()
			continue
		}
		conf = conf.Clone()
		conf.NextProtos = []string{"http/1.1"}
		return &corkConn{Conn: tls.Server(raw, conf), under: raw, tls: true}, nil
	}
}

// mayEnter is the admission that costs nothing: before TLS, before a token is looked at.
func (g *Gateway) mayEnter() bool {
	if int(g.st.conns.Load()) >= g.cfg.MaxSessions {
		g.st.drop(DropMaxSessions, 1)
		return false
	}
	if g.limiter != nil && !g.limiter.AllowN(g.cfg.Clock.Now(), 1) {
		g.st.drop(DropAdmission, 1)
		return false
	}
	return true
}

func (g *Gateway) acceptTCP(raw net.Conn) {
	if g.mayEnter() {
		g.admit(newTCPConn(raw, g.cfg.TLS, g.cfg.MaxPayload, &g.st.bytesIn))
		return
	}
	if g.cfg.TLS != nil {
		_ = raw.Close() // a word of ours would cost the handshake that admission is there to spare
		return
	}
	g.refuse(newTCPConn(raw, nil, g.cfg.MaxPayload, &g.st.bytesIn))
}

// refuse tells a connection that was not admitted to come back later, if there is a slot for that.
func (g *Gateway) refuse(c conn) {
	g.mu.Lock()
	ok := !g.closed
	if ok {
		select {
		case g.refuses <- struct{}{}:
			g.sessions.Add(1)
		default:
			ok = false
		}
	}
	g.mu.Unlock()
	g.st.logins.add(wire.Busy)
	if !ok {
		c.close()
		return
	}
	go func() {
		defer g.sessions.Done()
		defer func() { <-g.refuses }()
		defer c.close()
		f := g.kickFrame(wire.Busy, "too many logins at once: wait for retry_ms", c.transport())
		b, err := c.append(nil, f)
		if err != nil {
			return
		}
		c.setWriteDeadline(time.Now().Add(g.cfg.KickTimeout))
		if _, err := c.write(b, []item{{end: len(b)}}); err == nil {
			c.linger(wire.Busy, int64(g.cfg.KickTimeout))
		}
	}()
}

func (g *Gateway) serveWS(w http.ResponseWriter, r *http.Request) {
	if !offers(r, Subprotocol) {
		http.Error(w, "this is a WebSocket endpoint: connect with subprotocol "+Subprotocol, http.StatusBadRequest)
		return
	}
	trusted := g.cfg.AnyOrigin
	if g.cfg.DevMode && !trusted {
		if err := checkOrigin(r); err != nil {
			g.log.Debug("WebSocket refused", "remote", r.RemoteAddr, "err", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		trusted = true
	}
	enter := g.mayEnter()
	if !enter && len(g.refuses) == cap(g.refuses) {
		g.st.logins.add(wire.Busy)
		w.Header().Set("Retry-After", fmt.Sprint(1+g.retryMS()/1000))
		http.Error(w, "too many logins at once", http.StatusServiceUnavailable)
		return
	}
	hj := &slimHijacker{ResponseWriter: w}
	ws, err := websocket.Accept(hj, r, &websocket.AcceptOptions{
		Subprotocols: []string{Subprotocol}, OriginPatterns: g.cfg.Origins, InsecureSkipVerify: trusted,
	})
	if err != nil {
		g.log.Debug("WebSocket refused", "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"), "err", err)
		return // Accept has answered
	}
	c := newWSConn(ws, hj.raw, g.cfg.MaxPayload, &g.st.bytesIn)
	if !enter {
		g.refuse(c)
		return
	}
	g.admit(c) // on a goroutine of its own, so that the HTTP server's ends here with all it holds
}

func offers(r *http.Request, protocol string) bool {
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if strings.EqualFold(strings.TrimSpace(p), protocol) {
				return true
			}
		}
	}
	return false
}
