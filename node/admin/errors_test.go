package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func serveFunc(t testing.TB, f http.HandlerFunc) (addr string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// deadAddr is an address where nobody listens.
func deadAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestErrorsCrossTheWire: what the backend returned is what the client gets, by status, code, text and hint.
func TestErrorsCrossTheWire(t *testing.T) {
	b := &fake{}
	s, c := pair(t, b)
	for _, tt := range []struct {
		err    error
		http   int
		status Status
		code   wire.Code
		text   string
		hint   string
	}{
		{Errorf(StatusNotFound, "no node %q", "n9").WithHint("see imctl node list"), 404, StatusNotFound, 0, `no node "n9"`, "see imctl node list"},
		{Errorf(StatusConflict, "last voter"), 409, StatusConflict, wire.Refused, "last voter", ""},
		{&Error{Status: StatusBadRequest, Text: "cursor"}, 400, StatusBadRequest, wire.BadRequest, "cursor", ""},
		{&Error{Code: wire.NoQuorum, Text: "1 of 3"}, 503, StatusUnavailable, wire.NoQuorum, "1 of 3", hints[wire.NoQuorum]},
		{wire.Errorf(wire.Unavailable, "no leader"), 503, StatusUnavailable, wire.Unavailable, "no leader", hints[wire.Unavailable]},
		{&wire.Error{Code: wire.NotReady}, 503, StatusUnavailable, wire.NotReady, "not_ready", hints[wire.NotReady]},
		{wire.Errorf(wire.Unknown, "leader changed"), 504, StatusTimeout, wire.Unknown, "leader changed", readHint},
		{wire.Errorf(wire.Refused, "is up"), 409, StatusConflict, wire.Refused, "is up", ""},
		{wire.Errorf(wire.Overloaded, "queue"), 429, StatusOverloaded, wire.Overloaded, "queue", ""},
		{fmt.Errorf("propose: %w", wire.Errorf(wire.NotMember, "gone")), 404, StatusNotFound, wire.NotMember, "gone", ""},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), 504, StatusTimeout, wire.Timeout, "no answer in time", readHint},
		{errors.New("disk on fire"), 500, StatusInternal, wire.Internal, "disk on fire", ""},
		{&Error{Status: "made-up", Text: "x"}, 500, StatusInternal, 0, "x", ""},
		{&Error{Status: StatusUnreachable, Text: "x"}, 500, StatusInternal, 0, "x", ""},
	} {
		b.err = tt.err
		_, err := c.Nodes(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code || e.Text != tt.text || e.Hint != tt.hint {
			t.Errorf("%v came back as %#v", tt.err, err)
		}
		if code, body, _ := raw(t, s, "GET", "/v1/nodes", ""); code != tt.http {
			t.Errorf("%v: HTTP %d %s", tt.err, code, body)
		}
	}
	b.err = wire.Errorf(wire.Timeout, "late")
	var e *Error
	if _, err := c.Leave(t.Context(), "n1"); !errors.As(err, &e) || e.Hint != hints[wire.Timeout] {
		t.Errorf("a change that may have happened: %v", err)
	}
	b.err = Errorf(StatusNotFound, "x")
	_, body, h := raw(t, s, "GET", "/v1/nodes", "")
	if want := `{"error":{"code":0,"reason":"not_found","message":"x"}}` + "\n"; body != want || h.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v", body, h)
	}
}

// TestEveryCodeHasAStatus: no code of the table falls to internal by oversight.
func TestEveryCodeHasAStatus(t *testing.T) {
	// Outcomes that are no errors, or that nobody but a client session is told.
	internal := map[wire.Code]bool{
		wire.None: true, wire.Delivered: true, wire.Accepted: true, wire.OK: true, wire.Internal: true, wire.Bye: true, wire.Kicked: true,
		wire.IdleTimeout: true, wire.SlowReader: true, wire.Joined: true, wire.Left: true, wire.GroupClosed: true,
	}
	wire.Known(func(code wire.Code, name string, _ wire.Class) bool {
		if got := statusOf(code); (got == StatusInternal) != internal[code] {
			t.Errorf("%s: %s", name, got)
		}
		return true
	})
	for s, n := range statusHTTP {
		if back := statusOfHTTP(n); back != s {
			t.Errorf("%s → %d → %s", s, n, back)
		}
	}
}

func TestClassification(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func(error) bool
		yes  []Status
	}{
		{"IsNotFound", IsNotFound, []Status{StatusNotFound}},
		{"IsUnavailable", IsUnavailable, []Status{StatusUnavailable}},
		{"IsTimeout", IsTimeout, []Status{StatusTimeout}},
		{"IsConflict", IsConflict, []Status{StatusConflict}},
		{"IsBadRequest", IsBadRequest, []Status{StatusBadRequest, StatusTooLarge}},
		{"IsUnauthorized", IsUnauthorized, []Status{StatusUnauthorized, StatusForbidden}},
		{"IsUnreachable", IsUnreachable, []Status{StatusUnreachable}},
	} {
		for _, s := range []Status{
			StatusBadRequest, StatusUnauthorized, StatusForbidden, StatusNotFound, StatusMethod, StatusConflict, StatusTooLarge,
			StatusOverloaded, StatusInternal, StatusUnavailable, StatusTimeout, StatusUnreachable,
		} {
			want := strings.Contains(fmt.Sprint(tt.yes), string(s))
			if got := tt.f(fmt.Errorf("wrapped: %w", Errorf(s, "x"))); got != want {
				t.Errorf("%s(%s) = %v", tt.name, s, got)
			}
		}
		if tt.f(nil) || tt.f(errors.New("x")) {
			t.Errorf("%s holds for anything", tt.name)
		}
	}
}

func TestNetworkErrorsSayWhatToDo(t *testing.T) {
	dead := deadAddr(t)
	_, err := dial(t, dead).Nodes(t.Context())
	if want := "no node answers at " + dead + " (is it running? see imctl dev, or name another node with --addr)"; err == nil || err.Error() != want || !IsUnreachable(err) {
		t.Errorf("%v\nwant %s", err, want)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // as a node's port for clients answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte("\x00\x00\x00\x01\xa3"))
			_ = c.Close()
		}
	}()
	if _, err := dial(t, l.Addr().String()).Nodes(t.Context()); err == nil || !strings.Contains(err.Error(), "does not speak HTTP (is this the admin address") {
		t.Errorf("another port: %v", err)
	}
	dead2 := deadAddr(t)
	_, err = dial(t, dead, dead2).Nodes(t.Context())
	if !IsUnreachable(err) || !strings.Contains(err.Error(), dead+", "+dead2) {
		t.Errorf("two dead addresses: %v", err)
	}
	_, err = dial(t, "no.such.host.invalid:7903").Nodes(t.Context())
	if !IsUnreachable(err) || !strings.Contains(err.Error(), "cannot be resolved") {
		t.Errorf("unknown name: %v", err)
	}
	other := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello") })
	if _, err := dial(t, other).Nodes(t.Context()); err == nil || !strings.Contains(err.Error(), "admin address") {
		t.Errorf("another server: %v", err)
	}
	proxy := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "upstream", http.StatusBadGateway) })
	if _, err := dial(t, proxy).Nodes(t.Context()); !IsUnavailable(err) || !strings.Contains(err.Error(), "502") {
		t.Errorf("a proxy: %v", err)
	}
	cut := serveFunc(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := dial(t, cut).Nodes(t.Context()); !IsUnreachable(err) || !strings.Contains(err.Error(), "broke") {
		t.Errorf("a cut connection: %v", err)
	}
	for _, addr := range []string{"", "host", "ftp://h:1", "h:1/path", "user@h:1", "http://h"} {
		if _, err := NewClient(ClientConfig{Addrs: []string{addr}}); !IsBadRequest(err) {
			t.Errorf("address %q: %v", addr, err)
		}
	}
	if _, err := NewClient(ClientConfig{}); err == nil || !strings.Contains(err.Error(), "imctl dev") {
		t.Errorf("no address: %v", err)
	}
}

func TestClientGivesUpByContext(t *testing.T) {
	b := &fake{onCall: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	_, c := pair(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Nodes(ctx); !IsTimeout(err) || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("Nodes = %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.Nodes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Nodes = %v", err)
	}
}

// TestSeveralAddresses: which failures make the client ask the next node, and for which calls.
func TestSeveralAddresses(t *testing.T) {
	good := filled(&fake{})
	gs := start(t, good, nil)

	t.Run("dead first", func(t *testing.T) {
		c := dial(t, deadAddr(t), gs.Addr())
		if _, err := c.Nodes(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.CreateToken(t.Context(), time.Minute); err != nil {
			t.Error(err)
		}
		if c.first.get() != 1 {
			t.Error("the address that answered is not remembered")
		}
		c = dial(t, deadAddr(t), gs.Addr())
		if _, err := c.CreateToken(t.Context(), time.Minute); err != nil {
			t.Errorf("a change at a dead address first: %v", err)
		}
	})
	t.Run("unavailable first", func(t *testing.T) {
		bad := start(t, &fake{err: wire.Errorf(wire.NoQuorum, "cut off")}, nil)
		c := dial(t, bad.Addr(), gs.Addr())
		if _, err := c.Kick(t.Context(), wire.ClientID{ID: "bob"}, ""); err != nil {
			t.Error(err)
		}
	})
	t.Run("an answer beats silence", func(t *testing.T) {
		bad := start(t, &fake{err: wire.Errorf(wire.NoQuorum, "cut off")}, nil)
		for _, addrs := range [][]string{{bad.Addr(), deadAddr(t)}, {deadAddr(t), bad.Addr()}} {
			if _, err := dial(t, addrs...).Nodes(t.Context()); !IsUnavailable(err) {
				t.Error(err)
			}
		}
	})
	t.Run("refusals are final", func(t *testing.T) {
		bad := start(t, &fake{err: Errorf(StatusConflict, "no")}, nil)
		before := good.count()
		if _, err := dial(t, bad.Addr(), gs.Addr()).Promote(t.Context(), "n1"); !IsConflict(err) || good.count() != before {
			t.Error(err)
		}
	})
	t.Run("stopped first", func(t *testing.T) {
		// It takes connections and never answers, like a process under SIGSTOP.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := dial(t, ln.Addr().String(), gs.Addr()).Nodes(ctx); err != nil {
			t.Errorf("a question: %v", err)
		}
		c, err := NewClient(ClientConfig{Addrs: []string{ln.Addr().String(), gs.Addr()}, Token: testToken, DialTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.CreateToken(t.Context(), time.Minute); err != nil {
			t.Errorf("a change: %v", err)
		}
	})
	t.Run("cut off halfway", func(t *testing.T) {
		var asked atomic.Int32
		cut := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				return
			}
			asked.Add(1)
			panic(http.ErrAbortHandler)
		})
		before := good.count()
		_, err := dial(t, cut, gs.Addr()).CreateToken(t.Context(), time.Minute)
		if !IsUnreachable(err) || good.count() != before || asked.Load() != 1 {
			t.Errorf("a token whose making is in doubt was made again: %v", err)
		}
		if _, err := dial(t, cut, gs.Addr()).Drain(t.Context(), "n1", false); err != nil {
			t.Errorf("a drain may be repeated: %v", err)
		}
	})
}
