package lane

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"imroute/mesh/wire"
)

// counter is a Handler that only counts.
type counter struct {
	received, acked atomic.Uint64
	room            chan struct{}
}

func newCounter() *counter { return &counter{room: make(chan struct{}, 1)} }

func (c *counter) Message(*Session, uint64, *wire.Forward) (wire.Code, uint64) {
	c.received.Add(1)
	return 0, 0
}
func (c *counter) Status(*Session, wire.Status, *wire.Forward) {}
func (c *counter) Acked(_ *Session, upto uint64) {
	c.acked.Store(upto)
	select {
	case c.room <- struct{}{}:
	default:
	}
}
func (c *counter) Lost(*Session, uint64, *wire.Forward) {}
func (c *counter) PeerRestarted(*Session)               {}
func (c *counter) Handled(*Session)                     {}

// send sends n messages, waiting when the queue is full, and returns when all are acknowledged.
func (c *counter) send(tb testing.TB, s *Session, m *wire.Forward, n int) {
	var last uint64
	for n > 0 {
		seq, err := s.Send(m, nil)
		if err == nil {
			last = seq
			n--
			continue
		}
		if err != ErrOverloaded {
			tb.Fatal(err)
		}
		<-c.room
	}
	for c.acked.Load() < last {
		<-c.room
	}
}

// pair joins two sessions over loopback TCP until the test ends.
func pair(tb testing.TB) (a *Session, ca *counter, cb *counter) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	sa, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	sb, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	_ = l.Close()
	ca, cb = newCounter(), newCounter()
	a = newSession(tb, 1, ca, nil)
	b := newSession(tb, 2, cb, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = join(ctx, a, b, sa, sb) })
	tb.Cleanup(func() { cancel(); wg.Wait() })
	return a, ca, cb
}

// Neither side allocates for a message in the steady state.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool drops at random what it is given")
	}
	a, ca, cb := pair(t)
	m := forward(1, 128)
	ca.send(t, a, m, 50_000) // fill the pools
	const n = 100_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ca.send(t, a, m, n)
	runtime.ReadMemStats(&after)
	if got := float64(after.Mallocs-before.Mallocs) / n; got > 0.01 {
		t.Errorf("%.4f allocations a message, both sides together", got)
	}
	if got := cb.received.Load(); got != 50_000+n {
		t.Errorf("%d received", got)
	}
	// Encoding into the queue, alone.
	s := newSession(t, 3, newCounter(), nil)
	if got := testing.AllocsPerRun(10_000, func() { _, _ = s.Send(m, nil) }); got != 0 {
		t.Errorf("%v allocations in Send", got)
	}
}

// Flat out, one way, over loopback TCP.
func BenchmarkLane(b *testing.B) {
	a, ca, _ := pair(b)
	m := forward(1, 128)
	b.SetBytes(128)
	b.ReportAllocs()
	b.ResetTimer()
	ca.send(b, a, m, b.N)
}

// One at a time: Send, handled, acknowledged.
func BenchmarkLaneOneInFlight(b *testing.B) {
	a, ca, cb := pair(b)
	m := forward(1, 128)
	b.ReportAllocs()
	for i := range uint64(b.N) {
		if _, err := a.Send(m, nil); err != nil {
			b.Fatal(err)
		}
		for cb.received.Load() <= i {
			runtime.Gosched()
		}
	}
	ca.send(b, a, m, 1)
}

func BenchmarkSend(b *testing.B) {
	s := newSession(b, 1, newCounter(), func(c *Config) { c.QueueBytes = 1 << 20 })
	m := forward(1, 128)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Send(m, nil); err != nil {
			s.mu.Lock()
			s.msgs.sent = s.msgs.last
			s.msgs.at = nil
			s.msgs.ack(s.msgs.last)
			s.mu.Unlock()
		}
	}
}
