package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestPanicIsAnAnswer(t *testing.T) {
	var log logBuffer
	b := &fake{onCall: func(context.Context) error { panic("boom") }}
	s := start(t, b, func(c *Config) { c.Logger = log.logger() })
	c := dial(t, s.Addr())
	var e *Error
	if _, err := c.Drain(t.Context(), "n1", false); !errors.As(err, &e) || e.Status != StatusInternal || strings.Contains(err.Error(), "boom") {
		t.Errorf("Drain = %v", err)
	}
	lines := log.lines(t, "admin handler panicked")
	if len(lines) != 1 || lines[0]["panic"] != "boom" || !strings.Contains(lines[0]["stack"].(string), "DrainNode") {
		t.Errorf("%v", lines)
	}
	if a := log.lines(t, "audit"); len(a) != 1 || a[0]["result"] != "internal" {
		t.Errorf("audit: %v", a)
	}
	b.mu.Lock()
	b.onCall = nil
	b.mu.Unlock()
	if _, err := c.Nodes(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAudit: a line for each call that changes something, who, what and how it ended; none for questions; no secrets.
func TestAudit(t *testing.T) {
	var log logBuffer
	b := filled(&fake{})
	b.token.Token, b.ctoken.Token = "SECRET-1", "SECRET-2"
	s := start(t, b, func(c *Config) { c.Logger = log.logger() })
	c := dial(t, s.Addr())
	ctx := t.Context()
	alice := wire.ClientID{ID: "alice"}
	calls := []struct {
		do   func() error
		want map[string]any
	}{
		{func() error { _, err := c.Drain(ctx, "n1", true); return err }, map[string]any{"action": "node.drain", "node": "n1", "cancel": true}},
		{func() error { _, err := c.Leave(ctx, "n1"); return err }, map[string]any{"action": "node.leave", "node": "n1"}},
		{func() error { _, err := c.Promote(ctx, "n1"); return err }, map[string]any{"action": "node.promote"}},
		{func() error { _, err := c.Demote(ctx, "n1"); return err }, map[string]any{"action": "node.demote"}},
		{func() error { return c.Remove(ctx, "n1", true) }, map[string]any{"action": "node.remove", "force": true}},
		{func() error {
			_, err := c.ChangeSettings(ctx, SettingsChange{TargetVoters: ptr(uint32(5))})
			return err
		}, map[string]any{"action": "cluster.settings", "target_voters": 5.0}},
		{func() error { _, err := c.CreateToken(ctx, time.Minute); return err }, map[string]any{"action": "token.create", "token_id": b.token.ID}},
		{func() error { return c.RevokeToken(ctx, "t1") }, map[string]any{"action": "token.revoke", "token_id": "t1"}},
		{func() error { _, err := c.TransferLeadership(ctx, "n2"); return err }, map[string]any{"action": "raft.transfer", "to": "n2"}},
		{func() error { _, err := c.VerifyTables(ctx); return err }, map[string]any{"action": "raft.verify"}},
		{func() error { _, err := c.CheckRoutes(ctx, true); return err }, map[string]any{"action": "route.check", "fix": true}},
		{func() error { _, err := c.RaiseFeatureLevel(ctx); return err }, map[string]any{"action": "cluster.upgrade"}},
		{func() error { _, err := c.TakeSnapshot(ctx); return err }, map[string]any{"action": "raft.snapshot"}},
		{func() error { _, err := c.Kick(ctx, alice, "why"); return err }, map[string]any{"action": "route.kick", "client": "alice", "reason": "why"}},
		{func() error { _, err := c.CloseGroup(ctx, "acme", "a/b", "why"); return err }, map[string]any{"action": "group.close", "group": "a/b", "tenant": "acme", "reason": "why"}},
		{func() error {
			_, err := c.Send(ctx, SendRequest{From: "ops", To: "bob", Payload: ptr("SECRET-3")})
			return err
		}, map[string]any{"action": "message.send", "from": "ops", "to": "bob", "outcome": b.sent.Result}},
		{func() error {
			_, err := c.SendMany(ctx, SendManyRequest{From: "ops", To: []string{"bob", "eve"}, Payload: ptr("SECRET-4")})
			return err
		}, map[string]any{"action": "message.send-many", "from": "ops", "recipients": 2.0}},
		{func() error { _, err := c.Rebalance(ctx, 7); return err }, map[string]any{"action": "cluster.rebalance", "rate": 7.0}},
		{func() error {
			_, err := c.CreateAPIKey(ctx, APIKeyRequest{Name: "shop", Scopes: []string{"send"}})
			return err
		}, map[string]any{"action": "api-key.create", "name": "shop", "key_id": b.key.ID}},
		{func() error { _, err := c.RevokeAPIKey(ctx, "k1"); return err }, map[string]any{"action": "api-key.revoke", "key_id": "k1"}},
		{func() error { _, err := c.ClientToken(ctx, alice, 0); return err }, map[string]any{"action": "client-token.create", "client": "alice"}},
	}
	for i, call := range calls {
		if err := call.do(); err != nil {
			t.Fatal(err)
		}
		lines := log.lines(t, "audit")
		if len(lines) != i+1 {
			t.Fatalf("%v: %d audit lines, want %d", call.want["action"], len(lines), i+1)
		}
		got := lines[i]
		for k, v := range call.want {
			if got[k] != v {
				t.Errorf("%v: %s is %v, want %v", call.want["action"], k, got[k], v)
			}
		}
		if got["result"] != "ok" || !strings.HasPrefix(fmt.Sprint(got["remote"]), "127.0.0.1:") {
			t.Errorf("%v", got)
		}
	}
	if n := 0; true {
		for _, rt := range s.routes {
			if rt.action != "" {
				n++
			}
			if rt.action == "" && rt.method != http.MethodGet && rt.path != "/v1/presence" && !strings.HasPrefix(rt.path, "/debug/") {
				t.Errorf("%s %s changes something and is not audited", rt.method, rt.path)
			}
		}
		if n != len(calls) {
			t.Errorf("%d audited endpoints, %d tried", n, len(calls))
		}
	}
	before := len(log.lines(t, "audit"))
	if _, err := c.Nodes(ctx); err != nil || len(log.lines(t, "audit")) != before {
		t.Errorf("a question left an audit line, or failed: %v", err)
	}
	b.err = Errorf(StatusConflict, "last member")
	if _, err := c.Leave(ctx, "n1"); !IsConflict(err) {
		t.Error(err)
	}
	if _, _, _ = raw(t, s, "POST", "/v1/nodes/n1/drain", `{"x":1}`); true {
		lines := log.lines(t, "audit")
		if got := lines[len(lines)-2]; got["result"] != "conflict" || got["error"] != "last member" {
			t.Errorf("%v", got)
		}
		if got := lines[len(lines)-1]; got["result"] != "bad_request" {
			t.Errorf("%v", got)
		}
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if strings.Contains(log.b.String(), "SECRET") {
		t.Error("a secret was logged")
	}
}

// TestTooManyCalls: past the limit callers are told at once; health is still answered.
func TestTooManyCalls(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := &fake{onCall: func(context.Context) error { entered <- struct{}{}; <-release; return nil }}
	s := start(t, b, func(c *Config) { c.MaxCalls = 1 })
	c := dial(t, s.Addr())
	done := make(chan error, 1)
	go func() { _, err := c.Nodes(context.Background()); done <- err }()
	<-entered
	code, body, h := raw(t, s, "GET", "/v1/nodes", "")
	if code != http.StatusTooManyRequests || h.Get("Retry-After") == "" || !strings.Contains(body, `"overloaded"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _, _ := raw(t, s, "GET", "/healthz", ""); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCloseLetsCallsFinish: and refuses what comes later.
func TestCloseLetsCallsFinish(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := &fake{nodes: []Node{{Name: "n1", ID: 1}}, onCall: func(context.Context) error { close(entered); <-release; return nil }}
	s, err := New(Config{Bind: "127.0.0.1:0", Token: testToken, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close before open: %v", err)
	}
	if s, err = New(s.cfg); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err == nil {
		t.Error("opened twice")
	}
	addr := s.Addr()
	c := dial(t, addr)
	answered := make(chan error, 1)
	go func() {
		nodes, err := c.Nodes(context.Background())
		if err == nil && len(nodes) != 1 {
			err = fmt.Errorf("nodes: %v", nodes)
		}
		answered <- err
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close(t.Context()) }()
	<-s.closing
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close again: %v", err)
	}
	if _, err := c.Nodes(t.Context()); !IsUnreachable(err) {
		t.Errorf("after close: %v", err)
	}
}

// TestCloseCutsOff: a call that does not end is cut off when Close's context ends.
func TestCloseCutsOff(t *testing.T) {
	entered := make(chan struct{})
	b := &fake{onCall: func(ctx context.Context) error { close(entered); <-ctx.Done(); return context.Cause(ctx) }}
	s, err := New(Config{Bind: "127.0.0.1:0", Token: testToken, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.Addr())
	answered := make(chan error, 1)
	go func() { _, err := c.Nodes(context.Background()); answered <- err }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the call that was cut off succeeded")
	}
}

// TestBackendSeesTheCallerGo: a caller that hangs up ends the call.
func TestBackendSeesTheCallerGo(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	b := &fake{onCall: func(ctx context.Context) error { close(entered); <-ctx.Done(); close(ended); return ctx.Err() }}
	_, c := pair(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := c.ChangeSettings(ctx, SettingsChange{TargetVoters: ptr(uint32(3))}); done <- err }()
	<-entered
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the backend was not told")
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSlowRequests: a head or a body that does not come costs the connection, not a goroutine for ever.
func TestSlowRequests(t *testing.T) {
	b := &fake{}
	s := start(t, b, func(c *Config) { c.HeaderTimeout, c.IdleTimeout = 50*time.Millisecond, 50*time.Millisecond })
	for _, start := range []string{
		"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nX-",
		"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testToken + "\r\nContent-Length: 100\r\n\r\n{\"to\":",
		"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", // refused before the body is looked at
		"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
	} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(start)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		for err == nil {
			_, err = r.ReadByte()
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%q: the connection stays open", start)
		}
		_ = conn.Close()
	}
	if b.count() != 0 {
		t.Error("half a request reached the backend")
	}
}

// TestConnectionLimit: one connection too many waits, and is served once another one goes.
func TestConnectionLimit(t *testing.T) {
	s := start(t, &fake{}, func(c *Config) { c.MaxConns = 1 })
	first, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first connection is accepted", func() bool { return len(s.ln.(*limitListener).slots) == 1 })
	c := dial(t, s.Addr())
	done := make(chan error, 1)
	go func() { done <- c.Healthy(context.Background()) }()
	select {
	case err := <-done:
		t.Fatalf("served beyond the limit: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	_ = first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNeedlessTokenIsQuiet: imctl asks for a token before each login; that a cluster wants none is nobody's trouble. What else is
// refused of a token is.
func TestNeedlessTokenIsQuiet(t *testing.T) {
	b := &fake{err: Errorf(StatusConflict, "clients need no token")}
	var log logBuffer
	c := dial(t, start(t, b, func(c *Config) { c.Logger = log.logger() }).Addr())
	alice := wire.ClientID{ID: "alice"}
	if _, err := c.ClientToken(t.Context(), alice, 0); !IsConflict(err) {
		t.Error(err)
	}
	if a := log.lines(t, "audit"); len(a) != 0 {
		t.Errorf("audit: %v", a)
	}
	b.err = Errorf(StatusUnavailable, "no quorum")
	if _, err := c.ClientToken(t.Context(), alice, 0); err == nil {
		t.Error("no error")
	}
	if a := log.lines(t, "audit"); len(a) != 1 || a[0]["level"] != "WARN" {
		t.Errorf("audit: %v", a)
	}
}
