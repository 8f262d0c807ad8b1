package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestWatch(t *testing.T) {
	events := []RouteEvent{
		{Event: EventResync, Index: 1 << 62},
		{Event: EventSet, Client: "alice/phone", Tenant: "acme", Node: "n1", Incarnation: 1<<63 + 1, Session: "s", Epoch: 1<<63 + 2, Index: 1<<62 + 1},
		{Event: EventGone, Client: "alice/phone", Tenant: "acme", Epoch: 7, Index: 1<<62 + 2},
		{Event: EventNode, Node: "n1", Incarnation: 9, State: StateDown, Index: 1<<62 + 3},
	}
	b := &fake{}
	b.watch = func(ctx context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
		for _, ev := range events {
			if err := emit(ev); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
	_, c := pair(t, b)
	var got []RouteEvent
	enough := errors.New("enough")
	q := WatchQuery{Tenant: ptr("acme"), Client: "alice/phone"}
	err := c.WatchRoutes(t.Context(), q, func(ev RouteEvent) error {
		if got = append(got, ev); len(got) == len(events) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !reflect.DeepEqual(got, events) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, events)
	}
	if _, args := b.last(); !reflect.DeepEqual(args[0], q) {
		t.Errorf("the backend saw %+v", args)
	}
}

// TestWatchEndsWithItsReader: a caller that goes takes the backend's watch with it, and its slot is free again.
func TestWatchEndsWithItsReader(t *testing.T) {
	var open atomic.Int32
	b := &fake{}
	b.watch = func(ctx context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
		open.Add(1)
		defer open.Add(-1)
		for i := uint64(1); ; i++ { // a busy table: emit must not be held either
			if err := emit(RouteEvent{Event: EventSet, Client: "a", Index: i}); err != nil {
				return err
			}
		}
	}
	s := start(t, b, func(c *Config) { c.MaxWatches = 1 })
	c := dial(t, s.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	seen := make(chan uint64, 1)
	go func() {
		var last uint64
		done <- c.WatchRoutes(ctx, WatchQuery{}, func(ev RouteEvent) error {
			if ev.Index != last+1 {
				return fmt.Errorf("event %d after %d", ev.Index, last)
			}
			if last = ev.Index; last == 1000 {
				seen <- last
			}
			return nil
		})
	}()
	select {
	case <-seen:
	case err := <-done:
		t.Fatal(err)
	}
	// The one slot is taken.
	err := c.WatchRoutes(t.Context(), WatchQuery{}, func(RouteEvent) error { return nil })
	var e *Error
	if !errors.As(err, &e) || e.Status != StatusOverloaded {
		t.Errorf("a second watch: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchRoutes = %v", err)
	}
	eventually(t, "the backend's watch ends", func() bool { return open.Load() == 0 })
	eventually(t, "the slot is free", func() bool { return len(s.watches) == 0 })
}

// TestWatchEndsWithTheServer: readers get a last line, Close returns at once, the reader hears why.
func TestWatchEndsWithTheServer(t *testing.T) {
	for _, busy := range []bool{false, true} {
		b := &fake{}
		b.watch = func(ctx context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
			err := emit(RouteEvent{Event: EventResync})
			for busy && err == nil {
				err = emit(RouteEvent{Event: EventSet})
			}
			<-ctx.Done()
			return nil
		}
		s, err := New(Config{Bind: "127.0.0.1:0", Token: testToken, Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		c := dial(t, s.Addr())
		started, done := make(chan struct{}), make(chan error, 1)
		go func() {
			first := true
			done <- c.WatchRoutes(context.Background(), WatchQuery{}, func(RouteEvent) error {
				if first {
					close(started)
					first = false
				}
				return nil
			})
		}()
		<-started
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		cancel()
		if err := <-done; !IsUnavailable(err) || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("WatchRoutes = %v", err)
		}
	}
}

func TestWatchHeartbeat(t *testing.T) {
	s := start(t, &fake{}, func(c *Config) { c.Heartbeat = 5 * time.Millisecond })
	req, _ := http.NewRequest(http.MethodGet, "http://"+s.Addr()+"/v1/routes/watch", nil)
	req.Header.Set("Authorization", "Bearer "+testToken)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("content type %q", ct)
	}
	lines := bufio.NewScanner(resp.Body)
	for range 3 {
		if !lines.Scan() || lines.Text() != `{"event":"heartbeat","index":"0"}` {
			t.Fatalf("%q %v", lines.Text(), lines.Err())
		}
	}
}

// TestWatchBackendEnds: before the first event it is an error like any other, afterwards the stream's last line.
func TestWatchBackendEnds(t *testing.T) {
	b := &fake{err: wire.Errorf(wire.NotReady, "still loading")}
	var log logBuffer
	s := start(t, b, func(c *Config) { c.Logger = log.logger() })
	c := dial(t, s.Addr())
	never := func(RouteEvent) error { return nil }
	if err := c.WatchRoutes(t.Context(), WatchQuery{}, never); !IsUnavailable(err) || !strings.Contains(err.Error(), "still loading") {
		t.Errorf("WatchRoutes = %v", err)
	}
	b.err = nil
	b.watch = func(_ context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
		_ = emit(RouteEvent{Event: EventResync})
		return errors.New("table closed")
	}
	if err := c.WatchRoutes(t.Context(), WatchQuery{}, never); !IsUnavailable(err) || !strings.Contains(err.Error(), "table closed") {
		t.Errorf("WatchRoutes = %v", err)
	}
	b.watch = func(context.Context, WatchQuery, func(RouteEvent) error) error { panic("boom") }
	if err := c.WatchRoutes(t.Context(), WatchQuery{}, never); err == nil || IsUnreachable(err) {
		t.Errorf("WatchRoutes = %v", err)
	}
	if len(log.lines(t, "admin handler panicked")) != 1 {
		t.Error("the panic was not logged")
	}
}

// TestWatchSlowReader: who does not read is cut off, and the backend is let go.
func TestWatchSlowReader(t *testing.T) {
	ended := make(chan struct{})
	b := &fake{}
	b.watch = func(_ context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
		defer close(ended)
		ev := RouteEvent{Event: EventSet, Client: strings.Repeat("x", 255)}
		for {
			if err := emit(ev); err != nil {
				return err
			}
		}
	}
	s := start(t, b, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /v1/routes/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testToken)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("a reader that does not read holds the watch")
	}
}

// TestWatchSurvivesBrokenStreams: what is no line of ours is an error, not a hang and not an event.
func TestWatchSurvivesBrokenStreams(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"cut in a line", `{"event":"set","cli`, "broke"},
		{"ends without an end", `{"event":"heartbeat","index":"0"}` + "\n", "broke"},
		{"no JSON", "hello\n", "cannot be read"},
		{"endless line", strings.Repeat("x", 100<<10), "too long"},
	} {
		addr := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(tt.body)) })
		err := dial(t, addr).WatchRoutes(t.Context(), WatchQuery{}, func(ev RouteEvent) error { return fmt.Errorf("event %+v", ev) })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// Events of a newer node pass through with what is known of them.
	body := `{"event":"later","client":"a","index":"5","more":[1]}` + "\n" + `{"event":"end","index":"0","reason":"r"}` + "\n"
	addr := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
	var got []string
	err := dial(t, addr).WatchRoutes(t.Context(), WatchQuery{}, func(ev RouteEvent) error { got = append(got, ev.Event); return nil })
	if !IsUnavailable(err) || len(got) != 1 || got[0] != "later" {
		t.Errorf("%v %v", got, err)
	}
}
