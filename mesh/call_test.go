package mesh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestCallsBetweenThree(t *testing.T) {
	c := newCluster(t)
	meshes := map[wire.NodeID]*Mesh{1: c.start(1), 2: c.start(2), 3: c.start(3)}
	var wg sync.WaitGroup
	for _, m := range meshes {
		for to := range meshes {
			for _, kind := range []wire.CallKind{wire.CallAdmin, wire.CallRenew} {
				wg.Go(func() {
					for range 20 {
						b, err := m.Call(testContext(t), to, kind, []byte("ping"))
						if err != nil || string(b) != "ping" {
							t.Errorf("%v → %v: %q, %v", m.self, to, b, err)
						}
					}
				})
			}
		}
	}
	wg.Wait()
	for id, m := range meshes {
		waitFor(t, "two peers connected", func() bool {
			n := 0
			for _, p := range m.Peers() {
				if p.RaftUp && p.DataUp && m.Connected(p.ID) && p.RTT > 0 {
					n++
				}
			}
			return n == 2
		})
		if m.Connected(id) {
			t.Error("connected to itself")
		}
	}
}

func TestCallErrors(t *testing.T) {
	c := newCluster(t)
	small := configure(func(c *Config) { c.MaxMessage = 1000 })
	a := c.start(1, small)
	answers := func(_ context.Context, from wire.NodeID, req []byte) ([]byte, error) {
		switch string(req) {
		case "coded":
			return nil, wire.Errorf(wire.NotLeader, "ask %v", from)
		case "plain":
			return nil, errors.New("disk on fire")
		case "big":
			return make([]byte, 5000), nil
		}
		return bytes.Repeat(req, 2), nil
	}
	c.start(2, small, handle(wire.CallHash, answers), handle(wire.CallSecrets, answers))
	own := handle(wire.CallHash, answers)
	b := c.start(3, small, own)
	for _, tc := range []struct {
		name string
		from *Mesh
		to   wire.NodeID
		kind wire.CallKind
		req  string
		code wire.Code
		text string
	}{
		{"coded", a, 2, wire.CallHash, "coded", wire.NotLeader, "ask 0000000000000001"},
		{"coded, data", a, 2, wire.CallSecrets, "coded", wire.NotLeader, "ask"},
		{"coded, self", b, 3, wire.CallHash, "coded", wire.NotLeader, "ask 0000000000000003"},
		{"plain", a, 2, wire.CallHash, "plain", wire.Internal, "disk on fire"},
		{"plain, self", b, 3, wire.CallHash, "plain", wire.Internal, "disk on fire"},
		{"big answer", a, 2, wire.CallHash, "big", wire.TooLarge, "5000"},
		{"big answer, self", b, 3, wire.CallHash, "big", wire.TooLarge, "5000"},
		{"big request", a, 2, wire.CallHash, strings.Repeat("x", 1001), wire.TooLarge, "1001"},
		{"unknown kind", a, 2, 77, "", wire.Refused, "kind 77"},
		{"unknown kind, self", b, 3, 77, "", wire.Refused, "kind 77"},
	} {
		_, err := tc.from.Call(testContext(t), tc.to, tc.kind, []byte(tc.req))
		e, ok := errors.AsType[*wire.Error](err)
		if !ok || e.Code != tc.code || !strings.Contains(e.Text, tc.text) {
			t.Errorf("%s: %v, want %v with %q", tc.name, err, tc.code, tc.text)
		}
	}
	if b, err := a.Call(testContext(t), 2, wire.CallHash, bytes.Repeat([]byte("x"), 500)); err != nil || len(b) != 1000 {
		t.Errorf("just fits: %d bytes, %v", len(b), err)
	}
	if b, err := a.Call(testContext(t), 2, wire.CallHash, nil); err != nil || len(b) != 0 {
		t.Errorf("empty: %v, %v", b, err)
	}
}

// A receiver does not trust the sender's limit.
func TestOversizedRequestIsRefusedByReceiver(t *testing.T) {
	c := newCluster(t)
	a := c.start(1)
	c.start(2, configure(func(c *Config) { c.MaxMessage = 1000 }))
	_, err := a.Call(testContext(t), 2, wire.CallAdmin, make([]byte, 1<<20))
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.TooLarge {
		t.Errorf("got %v, want too_large", err)
	}
	_, err = a.Call(testContext(t), 2, wire.CallAdmin, make([]byte, 900))
	if err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

func TestCallDeadlineReachesTheHandler(t *testing.T) {
	c := newCluster(t)
	ended := make(chan error, 3)
	entered := make(chan time.Time, 3)
	slow := func(ctx context.Context, _ wire.NodeID, _ []byte) ([]byte, error) {
		d, _ := ctx.Deadline()
		entered <- d
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
	a := c.start(1, handle(wire.CallHash, slow))
	c.start(2, handle(wire.CallHash, slow))
	mustCall(t, a, 2, wire.CallRenew, "connect")
	for _, to := range []wire.NodeID{2, 1} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := a.Call(ctx, to, wire.CallHash, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("to %v: %v, want deadline exceeded", to, err)
		}
		if d := <-entered; time.Until(d) > time.Second {
			t.Errorf("to %v: the handler had until %v", to, d)
		}
		<-ended
	}
	// A caller that gives up ends the handler, long before the deadline.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := a.Call(ctx, 2, wire.CallHash, nil)
		done <- err
	}()
	<-entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(testWait):
		t.Error("the handler was not told that its caller left")
	}
}

func TestTooManyCallsAreOverloaded(t *testing.T) {
	c := newCluster(t)
	release := make(chan struct{})
	entered := make(chan struct{}, 8)
	wait := func(ctx context.Context, _ wire.NodeID, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}
	a := c.start(1)
	c.start(2, handle(wire.CallHash, wait), configure(func(c *Config) { c.MaxCalls = 2 }))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := a.Call(testContext(t), 2, wire.CallHash, nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	<-entered
	_, err := a.Call(testContext(t), 2, wire.CallRenew, nil)
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.Overloaded {
		t.Errorf("got %v, want overloaded", err)
	}
	close(release)
	wg.Wait()
	waitFor(t, "room again", func() bool { _, err := a.Call(testContext(t), 2, wire.CallRenew, nil); return err == nil })
}

func TestCallToNobody(t *testing.T) {
	c := newCluster(t)
	a := c.start(1, configure(func(c *Config) { c.DialTimeout = 300 * time.Millisecond }))
	if _, err := a.Call(testContext(t), 9, wire.CallAdmin, nil); !errors.Is(err, ErrNotMember) || errors.Is(err, ErrUnreachable) {
		t.Errorf("non-member: %v", err)
	}
	c.dir.set(2, deadPort(t))
	_, err := a.Call(testContext(t), 2, wire.CallAdmin, nil)
	call, ok := errors.AsType[*CallError](err)
	if !errors.Is(err, ErrUnreachable) || !ok || call.Sent || call.Node != 2 {
		t.Errorf("dead: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Call(ctx, 2, wire.CallAdmin, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("short deadline: %v", err)
	}
	// It comes up, elsewhere: the next call finds it.
	c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "there you are")
}

func TestCloseWithCallsInFlight(t *testing.T) {
	c := newCluster(t)
	entered := make(chan struct{}, 4)
	wait := func(ctx context.Context, _ wire.NodeID, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a := c.start(1, handle(wire.CallHash, wait))
	b := c.start(2, handle(wire.CallHash, wait))
	c.dir.set(3, deadPort(t))
	results := make(chan error, 4)
	call := func(m *Mesh, to wire.NodeID) {
		_, err := m.Call(testContext(t), to, wire.CallHash, nil)
		results <- err
	}
	go call(a, 2)
	go call(b, 1)
	go call(a, 1)
	for range 3 {
		<-entered
	}
	go call(a, 3)
	waitFor(t, "a dial under way", func() bool { return a.peer(3) != nil })
	closeMesh(t, a)
	var closed, broken int
	for range 4 {
		err := <-results
		switch {
		case errors.Is(err, ErrClosed):
			closed++
		case errors.Is(err, ErrUnreachable):
			broken++
			if e, _ := errors.AsType[*CallError](err); !e.Sent {
				t.Errorf("%v does not say that it was sent", err)
			}
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	if closed != 3 || broken != 1 {
		t.Errorf("%d closed and %d broken, want 3 and 1", closed, broken)
	}
	if _, err := a.Call(testContext(t), 2, wire.CallHash, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func FuzzCallHeader(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 0, 0, 0, 9}, []byte{0, 200, 0, 0, 0, 1, 'x'})
	f.Add(bytes.Repeat([]byte{0xff}, callHead), bytes.Repeat([]byte{0xff}, 7))
	f.Fuzz(func(t *testing.T, req, reply []byte) {
		if len(req) >= callHead {
			h := parseCallHead([callHead]byte(req))
			if h.timeout < 0 || h.timeout > maxCallTimeout || h.length < 0 {
				t.Fatalf("%+v", h)
			}
			if h.timeout < maxCallTimeout {
				if b := appendCallHead(nil, h.kind, uint32(h.timeout.Milliseconds()), h.length); !bytes.Equal(b, req[:callHead]) {
					t.Fatalf("%x became %x", req[:callHead], b)
				}
			}
		}
		_, b, err := readReply(bytes.NewReader(reply), 100)
		if err == nil && len(b) > 100 || err == io.EOF {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	})
}

func FuzzHello(f *testing.F) {
	var b bytes.Buffer
	if err := writeHello(&b, &hello{Node: 1, Process: 2, Lanes: 4}, false); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHello(bytes.NewReader(in))
		if err == nil && (h.Node == 0 || h.Process == 0 || h.Lanes < 0 || h.Lanes > MaxLanes) {
			t.Fatalf("%+v", h)
		}
	})
}
