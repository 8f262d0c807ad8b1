package gateway

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestConfig(t *testing.T) {
	n := &fakeNode{}
	for want, c := range map[string]Config{
		"Backend":    {TCP: "127.0.0.1:0", DevMode: true},
		"TCP and WS": {Backend: n, DevMode: true},
		"Auth":       {Backend: n, TCP: "127.0.0.1:0"},
		"WS is":      {Backend: n, DevMode: true, TCP: "127.0.0.1:0", WS: "0.0.0.0:0"},
		"TCP is":     {Backend: n, DevMode: true, TCP: ":7000"},
		"TCP: ":      {Backend: n, DevMode: true, TCP: "localhost"},
		"Idle":       {Backend: n, DevMode: true, TCP: "localhost:0", Idle: time.Millisecond},
		"MaxPayload": {Backend: n, DevMode: true, TCP: "[::1]:0", MaxPayload: 1 << 30},
		"LoginRate":  {Backend: n, DevMode: true, TCP: "127.0.0.1:0", LoginRate: -1},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g, err := New(Config{Backend: &fakeNode{}, DevMode: true, TCP: "127.0.0.1:0", WS: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "WebSocket") {
		t.Fatalf("%v", err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tcp, _ := g.Addrs(); tcp != "" {
		t.Errorf("still listens on %s", tcp)
	}
}

// TestIdleCostsNothing: a thousand idle connections hold one goroutine each at most, no writer and no queue.
func TestIdleCostsNothing(t *testing.T) {
	const n = 1000
	clock := newManualClock() // no idle time-outs
	r := newRig(t, manual(clock, func(c *Config, _ *fakeNode) { c.WS = "" }))
	before := runtime.NumGoroutine()
	clients := make([]*tcpClient, n)
	var sessions []*Session
	for i := range clients {
		clients[i] = r.dial()
		f := loginFrame("c")
		f.Client += string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		clients[i].send(f)
		expect(t, clients[i], wire.TypeWelcome)
		sessions = append(sessions, r.node.session(t, f.Client))
	}
	var wg sync.WaitGroup
	var rc receipts
	for i, s := range sessions { // talk once, so that what is given back had been taken
		m := message(uint64(i+1), wire.AckOwner, strings.Repeat("x", 1000))
		if code := s.Deliver(m, &rc); code != wire.None {
			t.Fatal(code)
		}
		wg.Go(func() {
			var f wire.Frame
			if err := clients[i].recv(&f); err != nil || f.ID != uint64(i+1) {
				t.Errorf("client %d: %+v %v", i, f, err)
			}
		})
	}
	wg.Wait()
	eventually(t, "all receipts", func() bool { k, _ := rc.count(); return k == n })
	eventually(t, "no writers", func() bool { return r.st.writers.Load() == 0 })
	most := n
	if runtime.GOOS == "linux" {
		most = 0 // they doze
	}
	eventually(t, "few goroutines", func() bool { return runtime.NumGoroutine() <= before+most })
	for _, s := range sessions {
		s.mu.Lock()
		if s.writing || s.dlv.chunks != nil || s.dlv.cost != 0 || s.ctl.chunks != nil || s.ctl.cost != 0 || len(s.unacked) != 0 {
			t.Fatalf("an idle session holds %+v %+v", s.dlv, s.ctl)
		}
		s.mu.Unlock()
		if s.conn.(*tcpConn).fr.Buffered() != 0 {
			t.Fatal("an idle session holds read bytes")
		}
	}
	if r.Count() != n {
		t.Errorf("%d sessions", r.Count())
	}
	seen := 0
	r.Sessions(func(*Session) bool { seen++; return seen < 10 })
	if seen != 10 {
		t.Errorf("visited %d", seen)
	}
	r.CloseAll(wire.Draining)
	for _, s := range sessions {
		select {
		case <-s.Fenced():
		default:
			t.Fatal("CloseAll returned before all were fenced")
		}
	}
	for _, c := range clients {
		c.hangUp()
	}
}

// TestCloseWaits: Close returns when everything has ended, whatever the sessions are at.
func TestCloseWaits(t *testing.T) {
	began := make(chan struct{})
	r := newRig(t, func(_ *Config, n *fakeNode) {
		n.login = func(ctx context.Context, s *Session, _ func(time.Duration)) (Welcome, error) {
			if s.Client().ID == "waits" {
				close(began)
				<-ctx.Done()
				return Welcome{}, context.Cause(ctx)
			}
			return Welcome{Epoch: 1}, nil
		}
	})
	silent, talks, ws, full, waits := r.dial(), r.dial(), r.dialWS(), r.dial(), r.dial()
	_ = silent
	r.login(talks, "talks")
	r.login(ws, "ws")
	var rc receipts
	last := fill(t, r.login(full, "full"), &rc, wire.AckOwner)
	waits.send(loginFrame("waits"))
	<-began
	eventually(t, "all connections", func() bool { return r.Stats().Connections == 5 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if n, twice := rc.count(); n != int(last) || twice != 0 {
		t.Errorf("%d receipts of %d, %d twice", n, last, twice)
	}
	if st := r.Stats(); st.Connections != 0 || st.Sessions != 0 || st.Closes[wire.ShuttingDown] != 3 {
		t.Errorf("%+v", st)
	}
	expectKick(t, talks, wire.ShuttingDown)
	expectKick(t, waits, wire.ShuttingDown)
	if _, err := net.Dial("tcp", r.tcp.Addr().String()); err == nil {
		t.Error("still listens")
	}
}

func TestBye(t *testing.T) {
	both(t, nil, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		c.send(&wire.Frame{Type: wire.TypeBye})
		expectEnd(t, c)
		<-s.Done()
		if n := r.Stats().Closes[wire.Bye]; n != 1 {
			t.Errorf("%v", r.Stats().Closes)
		}
		c = dial()
		s = r.login(c, "bob")
		c.hangUp()
		<-s.Done()
		if n := r.Stats().Closes[wire.ConnectionLost]; n != 1 {
			t.Errorf("%v", r.Stats().Closes)
		}
	})
}
