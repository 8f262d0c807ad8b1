package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

// sink accepts every message and remembers their order.
type sink struct {
	mu    sync.Mutex
	got   map[int][]uint64 // counters, by lane
	acked map[int]uint64
}

func newSink() *sink { return &sink{got: map[int][]uint64{}, acked: map[int]uint64{}} }

func (k *sink) Message(s *lane.Session, _ uint64, m *wire.Forward) (wire.Code, uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got[s.Lane()] = append(k.got[s.Lane()], m.Counter)
	return 0, 0
}

func (k *sink) Acked(s *lane.Session, upto uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acked[s.Lane()] = upto
}

func (k *sink) Status(*lane.Session, wire.Status, *wire.Forward) {}
func (k *sink) Lost(*lane.Session, uint64, *wire.Forward)        {}
func (k *sink) PeerRestarted(*lane.Session)                      {}
func (k *sink) Handled(*lane.Session)                            {}

func (k *sink) count(l int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.got[l])
}

func withLanes(k *sink, n int) func(*Config, *Mesh) {
	return configure(func(c *Config) { c.Lane.Handler, c.Lanes = k, n })
}

func send(t *testing.T, s *lane.Session, counter uint64, payload []byte) {
	t.Helper()
	m := &wire.Forward{To: "bob", Incarnation: 1, Epoch: 1, Instance: 1, Counter: counter, Payload: payload}
	waitFor(t, "room in the lane", func() bool {
		_, err := s.Send(m, nil)
		if err != nil && !errors.Is(err, lane.ErrOverloaded) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// Messages pass both ways, in order and once, while the connections under the lanes are cut again and again. The numbers
// of lanes differ: the higher one holds.
func TestLanesSurviveConnections(t *testing.T) {
	c := newCluster(t)
	sa, sb := newSink(), newSink()
	a, b := c.start(1, withLanes(sa, 1)), c.start(2, withLanes(sb, 3))
	const n = 300
	for i := range uint64(n) {
		send(t, a.Lane(2, 0), i, []byte("to b"))
		send(t, b.Lane(1, 0), i, []byte("to a"))
		send(t, b.Lane(1, 2), i, []byte("to a"))
		if i%60 == 30 {
			waitFor(t, "something arrived", func() bool { return sb.count(0) > int(i)-30 })
			if l := a.peer(2).slots[kindData].current(); l != nil {
				_ = l.conn.CloseWithError(closeBye, "test")
			}
		}
	}
	for _, e := range []struct {
		k *sink
		l int
	}{{sb, 0}, {sa, 0}, {sa, 2}} {
		waitFor(t, fmt.Sprintf("all of lane %d", e.l), func() bool { return e.k.count(e.l) >= n })
		e.k.mu.Lock()
		for i, got := range e.k.got[e.l] {
			if got != uint64(i) {
				t.Fatalf("lane %d: %d came as number %d", e.l, got, i)
			}
		}
		e.k.mu.Unlock()
	}
	if len(a.Peers()[0].Lanes) == 0 {
		t.Error("no figures of the lanes")
	}
	s := a.Lane(2, 0)
	if s != a.Lane(2, 0) {
		t.Error("two sessions for one lane")
	}
	if a.Lane(1, 0) != nil || a.Lane(9, 0) != nil {
		t.Error("a lane to nobody")
	}
	c.dir.remove(2)
	a.Drop(2)
	if _, err := s.Send(&wire.Forward{To: "bob"}, nil); !errors.Is(err, lane.ErrClosed) {
		t.Errorf("send to a removed member: %v", err)
	}
	if a.Lane(2, 0) != nil {
		t.Error("a lane to a removed member")
	}
}

// Small calls on the Raft connection get through while the data connection is full both ways.
func TestCallsPassSaturatedLanes(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1, withLanes(newSink(), 2)), c.start(2, withLanes(newSink(), 2))
	mustCall(t, a, 2, wire.CallAdmin, "connect")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	payload := make([]byte, 8<<10)
	for _, s := range []*lane.Session{a.Lane(2, 0), a.Lane(2, 1), b.Lane(1, 0), b.Lane(1, 1)} {
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := uint64(0); ctx.Err() == nil; i++ {
				if _, err := s.Send(&wire.Forward{To: "bob", Instance: 1, Counter: i, Payload: payload}, nil); errors.Is(err, lane.ErrOverloaded) {
					<-tick.C
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	waitFor(t, "full lanes", func() bool { return a.Lane(2, 0).Stats().Overloaded > 0 && b.Lane(1, 0).Stats().Overloaded > 0 })
	for i := range 200 {
		kind := wire.CallRenew
		if i%10 == 0 {
			kind = wire.CallAdmin // data connection, ahead of the lanes
		}
		cctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		if _, err := a.Call(cctx, 2, kind, []byte("beat")); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
		cancel()
	}
	stop()
	wg.Wait()
}
