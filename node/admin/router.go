package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// route is one endpoint. The path's segments are compared before they are decoded, so that a client called "stats" can be
// told from the endpoint by encoding it; http.ServeMux decodes first, and tidies "%2E%2E" and "//" away.
type route struct {
	method  string
	path    string     // segments in braces are parameters; a last "*" takes any rest
	parts   []string   // of path
	open    bool       // answered without a token
	scope   wire.Scope // that an API key must have; 0: admin
	action  string     // not empty: it changes something, an audit line is due
	handler func(*request) (any, error)
	stream  func(*request, http.ResponseWriter) // in place of handler: writes its own answer
}

// request is one call of a handler.
type request struct {
	*http.Request
	ctx    context.Context // Request's, ending after CallTimeout
	s      *Server
	params map[string]string
	w      http.ResponseWriter
	who    caller
	audit  []slog.Attr // what the audit line says besides who, what and result
}

// answer is a result with a status other than 200.
type answer struct {
	status int
	body   any
}

// note adds to the audit line.
func (r *request) note(key string, value any) { r.audit = append(r.audit, slog.Any(key, value)) }

// find returns the route and its parameters, or what to tell the caller.
func (s *Server) find(method, escaped string) (*route, map[string]string, *Error) {
	parts := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	var allowed []string
	for i := range s.routes {
		rt := &s.routes[i]
		params, ok, err := rt.match(parts)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		if rt.method == method || (method == http.MethodHead && rt.method == http.MethodGet && rt.stream == nil) {
			return rt, params, nil
		}
		allowed = append(allowed, rt.method)
	}
	if allowed != nil {
		slices.Sort(allowed)
		return nil, nil, Errorf(StatusMethod, "%s is not possible here", method).
			WithHint("use %s", strings.Join(slices.Compact(allowed), " or "))
	}
	e := Errorf(StatusNotFound, "there is no endpoint %s", escaped)
	if strings.HasPrefix(escaped, "/v1/routes/") {
		_ = e.WithHint("in a path, the '/' of a client id is written %%2F")
	}
	return nil, nil, e
}

func (rt *route) match(parts []string) (params map[string]string, ok bool, bad *Error) {
	for i, want := range rt.parts {
		switch {
		case want == "*":
			return params, len(parts) > i, nil
		case i >= len(parts):
			return nil, false, nil
		case want[0] == '{':
			v, err := url.PathUnescape(parts[i])
			if err != nil {
				return nil, false, Errorf(StatusBadRequest, "path: %v", err)
			}
			if v == "" {
				return nil, false, nil
			}
			if params == nil {
				params = make(map[string]string, 2)
			}
			params[want[1:len(want)-1]] = v
		case want != parts[i]:
			return nil, false, nil
		}
	}
	return params, len(parts) == len(rt.parts), nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if hr.ContentLength != 0 {
		// For whoever reads the body: a handler, or net/http, which reads past a body that nobody wanted.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.HeaderTimeout))
	}
	if !s.begin() {
		s.fail(w, &Error{Code: 0, Status: StatusUnavailable, Text: errShutdown.Error(), Hint: "ask another node"})
		return
	}
	defer s.running.Done()

	rt, params, bad := s.find(hr.Method, hr.URL.EscapedPath())
	var who caller
	if rt == nil || !rt.open {
		// Who may not ask is not told either what there is to ask.
		var refused *Error
		if who, refused = s.auth.allow(hr); refused == nil && rt != nil {
			refused = who.may(rt.scope)
		}
		if refused != nil {
			s.denied(hr, refused)
			if refused.Status == StatusUnauthorized {
				h.Set("WWW-Authenticate", `Bearer realm="imroute"`)
			}
			s.fail(w, refused)
			return
		}
	}
	if bad != nil {
		s.fail(w, bad)
		return
	}
	if !rt.open && rt.stream == nil {
		select {
		case s.calls <- struct{}{}:
			defer func() { <-s.calls }()
		default:
			h.Set("Retry-After", "1")
			s.fail(w, Errorf(StatusOverloaded, "too many calls are under way").WithHint("try again in a moment"))
			return
		}
	}
	r := &request{Request: hr, ctx: hr.Context(), s: s, params: params, w: w, who: who}
	if rt.stream != nil {
		s.whileAllowed(r, w, func() {
			s.guard(r, func() { rt.stream(r, w) })
		})
		return
	}
	s.call(r, rt)
}

// call runs a handler and writes its answer.
func (s *Server) call(r *request, rt *route) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout(r.Request, s.cfg.CallTimeout))
	defer cancel()
	r.ctx = ctx
	var out any
	err := error(Errorf(StatusInternal, "the node failed at this request").
		WithHint("its log has the details; please report them"))
	s.guard(r, func() {
		if rt.method == http.MethodGet { // what nobody reads may reset the connection before the answer is there
			if err = r.body(&struct{}{}); err != nil {
				return
			}
		}
		out, err = rt.handler(r)
	})
	status := http.StatusOK
	if a, ok := out.(answer); ok && err == nil {
		status, out = a.status, a.body
	}
	var raw []byte
	if err == nil {
		raw, err = encode(out)
	}
	var e *Error
	if err != nil {
		e = asError(err)
		if r.Method == http.MethodGet && e.Hint == hints[e.Code] && (e.Code == wire.Timeout || e.Code == wire.Unknown) {
			e.Hint = readHint
		}
		status = statusHTTP[e.Status]
		raw, _ = encode(e.body()) // numbers and texts: it cannot fail
		if e.Status == StatusInternal {
			s.log.Error("admin call failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
	}
	if rt.action != "" {
		s.auditLine(r, rt.action, time.Since(start), e)
	}
	s.write(r.w, status, raw)
}

// guard turns a panic into a log line; what the handler was to set stays as it was.
func (s *Server) guard(r *request, f func()) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p) // the agreed way to cut a connection
			}
			s.log.Error("admin handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (s *Server) fail(w http.ResponseWriter, e *Error) {
	e = asError(e)
	raw, _ := encode(e.body())
	s.write(w, statusHTTP[e.Status], raw)
}

func (s *Server) write(w http.ResponseWriter, status int, raw []byte) {
	w.Header().Set("Content-Type", "application/json")
	s.writeDeadline(w, s.cfg.WriteTimeout)
	w.WriteHeader(status)
	_, _ = w.Write(raw) // a caller that is gone needs no answer
}

const actionClientToken = "client-token.create"

// auditLine records who changed what.
func (s *Server) auditLine(r *request, action string, took time.Duration, e *Error) {
	attrs := append([]slog.Attr{
		slog.String("action", action), slog.String("remote", r.RemoteAddr), slog.String("result", "ok"),
	}, r.audit...)
	if k := r.who.key; k != nil {
		attrs = append(attrs, slog.String("key", k.ID))
	}
	level := slog.LevelInfo
	if e != nil {
		attrs[2] = slog.String("result", string(e.Status))
		attrs = append(attrs, slog.String("error", e.Text))
		level = slog.LevelWarn
		if e.Status == StatusConflict && action == actionClientToken {
			// No token of the cluster's is wanted here: imctl finds that out by asking for one before each of its logins.
			level = slog.LevelDebug
		}
	}
	attrs = append(attrs, slog.Duration("took", took.Round(time.Microsecond)))
	s.log.LogAttrs(r.Context(), level, "audit", attrs...)
}

func (s *Server) denied(r *http.Request, e *Error) {
	if ok, skipped := s.refusals.allow(time.Now()); ok {
		s.log.Warn("audit", "action", "access", "remote", r.RemoteAddr, "result", string(e.Status),
			"method", r.Method, "path", r.URL.Path, "error", e.Text, "more_before", skipped)
	}
}

// timeoutHeader is how long the caller waits, in milliseconds: the answer that there is none has to reach it before.
const timeoutHeader = "Imroute-Timeout-Ms"

// callTimeout is the lesser of ours and most of the caller's.
func callTimeout(r *http.Request, ours time.Duration) time.Duration {
	ms, err := strconv.ParseInt(r.Header.Get(timeoutHeader), 10, 32)
	if err != nil || ms <= 0 {
		return ours
	}
	theirs := time.Duration(ms) * time.Millisecond
	return min(ours, theirs-min(theirs/5, 250*time.Millisecond))
}
