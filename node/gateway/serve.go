package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"imroute/mesh/wire"
)

// errBye is returned by conn.next when the client ended the connection in good order for good.
var errBye = errors.New("closed by the client")

// received is what a read goroutine decodes into: send takes send frames as they usually are. A dozing session has none.
type received struct {
	f, send wire.Frame
	dozes   bool
}

var receiving = sync.Pool{New: func() any { return new(received) }}

// run is a session's read goroutine: one from the first byte to the end, or several in turn, see doze.go.
func (s *Session) run() {
	r := receiving.Get().(*received)
	code, text := s.serve(r)
	over := !r.dozes
	*r = received{}
	receiving.Put(r)
	if over {
		s.end(code, text)
	}
}

// end is the end of the session and of its last read goroutine.
func (s *Session) end(code wire.Code, text string) {
	defer s.g.sessions.Done()
	s.Close(code, text) // no effect if somebody else was first
	<-s.fenced.wait()
	if s.loginCalled {
		s.g.cfg.Backend.Closed(s)
	}
	<-s.flushed.wait()
	if s.kicked {
		s.conn.linger(s.code, int64(s.g.cfg.KickTimeout)) // code is fixed since closing was set
	}
	s.conn.close()
	s.g.remove(s)
	s.leaveTenant()
	s.audit()
	s.done.open()
}

// serve returns why the session ends; what Close was told before takes precedence. If it sets r.dozes it is
// not over, and may be another goroutine's already.
func (s *Session) serve(r *received) (wire.Code, string) {
	f := &r.f
	if !s.loginCalled {
		if err := s.conn.next(f); err != nil {
			return readEnd(err)
		}
		if f.Type != wire.TypeLogin {
			return wire.ProtocolError, fmt.Sprintf("first frame is %s: want login", f.Type)
		}
		if err := s.login(f); err != nil {
			return err.Code, err.Text
		}
		s.mayDoze()
	}
	for {
		got, err := s.conn.nextSend(f, &r.send)
		if err == wire.ErrNothing { //nolint:errorlint // wrapped by nobody
			if s.doze() {
				r.dozes = true
				return wire.None, ""
			}
			continue
		}
		if errors.Is(err, wire.ErrReadPast) {
			if why := s.oversized(got, err); why != nil {
				return why.Code, why.Text
			}
			continue
		}
		if err != nil {
			return readEnd(err)
		}
		if now := int64(s.g.coarseNow()); s.heard.Load() != now {
			s.heard.Store(now)
		}
		if got.Type == wire.TypeSend { // by far the most frequent
			if got == f {
				if err := f.Validate(true); err != nil {
					return wire.ProtocolError, err.Error()
				}
			}
			s.g.st.msgsIn.Add(1)
			if s.crowded.Load() {
				s.awaitRoom()
			}
			if s.meter != nil && !s.withinLimits(got) {
				continue
			}
			s.g.cfg.Backend.Send(s, got)
			continue
		}
		if code, text := s.handle(f); code != wire.None {
			return code, text
		}
	}
}

// handle takes a frame that is no message. A code other than None ends the session.
func (s *Session) handle(f *wire.Frame) (wire.Code, string) {
	if err := f.Validate(true); err != nil {
		return wire.ProtocolError, err.Error()
	}
	switch f.Type {
	case wire.TypeAck:
		s.onAck(wire.MessageID{Instance: f.Instance, Counter: f.ID})
	case wire.TypePing:
		s.control(&wire.Frame{Type: wire.TypePong})
	case wire.TypeJoin:
		if s.meter != nil {
			s.pace()
		}
		if f.Kind == wire.ToService {
			s.g.cfg.Backend.Serve(s, strings.Clone(f.To), int(f.Count), f.ID)
			break
		}
		s.g.cfg.Backend.Join(s, strings.Clone(f.To), f.ID)
	case wire.TypeLeave:
		if f.Kind == wire.ToService {
			s.g.cfg.Backend.Unserve(s, strings.Clone(f.To), f.ID)
			break
		}
		s.g.cfg.Backend.Leave(s, strings.Clone(f.To), f.ID)
	case wire.TypeWatch:
		if s.meter != nil {
			s.pace()
		}
		f = f.Clone()
		s.g.cfg.Backend.Watch(s, f.IDs, f.To, f.ID)
	case wire.TypeUnwatch:
		f = f.Clone()
		s.g.cfg.Backend.Unwatch(s, f.IDs, f.To, f.ID)
	case wire.TypeBye:
		return wire.Bye, ""
	case wire.TypeLogin:
		return wire.ProtocolError, "second login: one connection carries one session"
	default:
		return wire.ProtocolError, fmt.Sprintf("%s is out of place here", f.Type)
	}
	return wire.None, ""
}

// readEnd puts the end of reading into a code for the client.
func readEnd(err error) (wire.Code, string) {
	var ne net.Error
	switch {
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return wire.ProtocolError, err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return wire.ProtocolError, "connection ended inside a frame"
	case errors.Is(err, errBye):
		return wire.Bye, ""
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.As(err, &ne):
		return wire.ConnectionLost, "connection ended"
	}
	return wire.ConnectionLost, err.Error()
}

// login checks a login frame and registers the session. It returns once welcome is queued, or why there is none.
func (s *Session) login(f *wire.Frame) *wire.Error {
	if err := s.identify(f); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background()) // ended by Close and by the wheel
	defer cancel(nil)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return &wire.Error{Code: s.code, Text: s.text}
	}
	s.phase, s.cancelLogin, s.deadline = loggingIn, cancel, s.g.now()+s.g.cfg.LoginTimeout
	s.g.wheel.arm(&s.timer, s.deadline)
	s.mu.Unlock()

	s.loginCalled = true
	w, err := s.g.cfg.Backend.Login(ctx, s, s.waiting)
	if err != nil {
		return loginError(ctx, err)
	}
	s.Open(w.Epoch)
	s.mu.Lock()
	s.cancelLogin = nil
	s.mu.Unlock()
	return nil
}

// loginError puts what Backend.Login returned into words for the client.
func loginError(ctx context.Context, err error) *wire.Error {
	var we *wire.Error
	switch {
	case errors.As(err, &we) && we.Code == wire.NotReady:
		return &wire.Error{Code: wire.NoQuorum, Text: we.Text}
	case errors.As(err, &we):
		return we
	case ctx.Err() != nil:
		return wire.Errorf(wire.LoginTimeout, "the registration did not hold in time")
	}
	return wire.Errorf(wire.Internal, "login failed: %v", err)
}

// identify finds out who logs in and whether this node takes logins.
func (s *Session) identify(f *wire.Frame) *wire.Error {
	if f.Version != 0 && f.Version != wire.ProtocolVersion {
		return wire.Errorf(wire.BadVersion, "protocol version %d: this node speaks %d", f.Version, wire.ProtocolVersion)
	}
	fromToken := f.Client == "" && f.Token != "" && !s.g.cfg.DevMode
	if fromToken {
		f.Client = "-" // stands in until the token is read
	}
	if err := f.Validate(true); err != nil {
		return wire.Errorf(wire.ProtocolError, "%v", err)
	}
	if code := wire.Code(s.g.refusing.Load()); code != wire.None {
		return wire.Errorf(code, "this node takes no logins at the moment: try another one")
	}
	s.id = wire.SessionID{Instance: f.Instance, Attempt: f.Attempt}
	for _, g := range f.Groups {
		s.loginGroups = append(s.loginGroups, strings.Clone(g))
	}
	if s.g.cfg.DevMode {
		s.client = wire.ClientID{Tenant: strings.Clone(f.Tenant), ID: strings.Clone(f.Client)}
		return s.enterTenant()
	}
	client := strings.Clone(f.Client)
	if fromToken {
		client = ""
	}
	s.client = wire.ClientID{Tenant: strings.Clone(f.Tenant), ID: client} // as claimed, for the audit line
	now := s.g.cfg.Clock.Now()
	id, err := s.g.cfg.Auth.Verify(f.Token, client, now)
	if err != nil {
		code := wire.BadToken
		if errors.Is(err, errTokenExpired) {
			code = wire.TokenExpired
		}
		if detail := errors.Unwrap(err); detail != nil { // the client and the audit line have it in plain words
			s.g.log.Info("a login token is refused", "client", s.client.String(), "remote", s.RemoteAddr(), "why", err, "detail", detail)
		}
		return wire.Errorf(code, "%v", err)
	}
	if f.Tenant != "" && f.Tenant != id.Client.Tenant {
		return wire.Errorf(wire.BadToken, "the token is not for tenant %q", f.Tenant)
	}
	s.client, s.grants = id.Client, id.Grants
	s.mu.Lock()
	s.tokenEnds = max(1, s.g.now()+id.Expires.Sub(now))
	s.mu.Unlock()
	return s.enterTenant()
}

// audit writes the session's line: one for a refused login (ok=false), one for the close of a session that was open. The
// line for a login that succeeded is written by auditLogin.
func (s *Session) audit() {
	s.mu.Lock()
	code, text, was, epoch := s.code, s.text, s.phase, s.epoch
	s.mu.Unlock()
	event := "close"
	if was != open {
		if s.client.ID == "" && code == wire.ConnectionLost {
			return // nobody said who they were: a probe, or a scan
		}
		event = "login"
		s.g.st.logins.add(code)
	} else {
		s.g.st.closes.add(code)
		s.g.st.sessions.Add(-1)
	}
	s.g.auditLine(event == "close" || code == wire.ConnectionLost, "session "+event, func() slog.Attr {
		return slog.Group("audit", "event", event, "ok", was == open, "client", s.client.String(),
			"session", s.id.String(), "epoch", epoch, "remote", s.RemoteAddr(), "transport", s.Transport(),
			"reason", code.String(), "text", text, "lasted", s.g.cfg.Clock.Now().Sub(s.since).Round(time.Millisecond))
	})
}

// auditLine writes a line of the audit log. In development mode what goes well is a detail: whoever tries things out on one
// console wants to see what went wrong.
func (g *Gateway) auditLine(usual bool, text string, audit func() slog.Attr) {
	level := slog.LevelInfo
	if usual && g.cfg.DevMode {
		level = slog.LevelDebug
	}
	if ctx := context.Background(); g.log.Enabled(ctx, level) {
		g.log.LogAttrs(ctx, level, text, audit())
	}
}

func (s *Session) auditLogin(epoch wire.Epoch) {
	s.g.st.logins.add(wire.OK)
	s.g.auditLine(true, "session login", func() slog.Attr {
		return slog.Group("audit", "event", "login", "ok", true, "client", s.client.String(),
			"session", s.id.String(), "epoch", epoch, "remote", s.RemoteAddr(), "transport", s.Transport())
	})
}
