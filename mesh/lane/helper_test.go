package lane

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// cutter is a stream that breaks after so many bytes in either direction.
type cutter struct {
	net.Conn
	mu   sync.Mutex
	left int
}

var errCut = errors.New("cut")

func (c *cutter) spend(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	return n
}

func (c *cutter) Write(b []byte) (int, error) {
	n := c.spend(len(b))
	m, err := c.Conn.Write(b[:n])
	if err == nil && n < len(b) {
		_ = c.Conn.Close() // both ends see it
		err = errCut
	}
	return m, err
}

// event is a call of a Handler.
type event struct {
	what string
	seq  uint64
	id   uint64 // Counter of a message, Ref of a status
	st   wire.Status
}

// recorder keeps every call and accepts all that reply does not refuse.
type recorder struct {
	mu     sync.Mutex
	cond   *sync.Cond
	events []event
	reply  func(s *Session, seq uint64, m *wire.Forward) (wire.Code, uint64)
}

func newRecorder() *recorder {
	r := &recorder{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) add(e event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	r.cond.Broadcast()
}

func (r *recorder) Message(s *Session, seq uint64, m *wire.Forward) (code wire.Code, index uint64) {
	if string(m.Payload[:8]) != string(binary.BigEndian.AppendUint64(nil, m.Counter)) {
		r.add(event{what: "damaged", seq: seq, id: m.Counter})
	}
	if !whole(m) {
		r.add(event{what: "damaged", seq: seq, id: m.Counter})
	}
	if r.reply != nil {
		code, index = r.reply(s, seq, m)
	}
	if code == 0 {
		r.add(event{what: "message", seq: seq, id: m.Counter})
	} else {
		r.add(event{what: "refused", seq: seq, id: m.Counter})
	}
	return code, index
}

func (r *recorder) Status(_ *Session, st wire.Status, m *wire.Forward) {
	if st.Seq != 0 {
		if !whole(m) {
			r.add(event{what: "damaged", seq: st.Seq, id: m.Counter})
		}
		r.add(event{what: "nack", seq: st.Seq, id: m.Counter, st: st})
		return
	}
	r.add(event{what: "status", id: st.Ref, st: st})
}
func (r *recorder) Acked(_ *Session, upto uint64) { r.add(event{what: "acked", seq: upto}) }
func (r *recorder) Lost(_ *Session, seq uint64, m *wire.Forward) {
	r.add(event{what: "lost", seq: seq, id: m.Counter})
}
func (r *recorder) PeerRestarted(*Session) { r.add(event{what: "restarted"}) }
func (*recorder) Handled(*Session)         {}

func (r *recorder) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event(nil), r.events...)
}

func (r *recorder) only(what string) (out []event) {
	for _, e := range r.all() {
		if e.what == what {
			out = append(out, e)
		}
	}
	return out
}

// await waits until the events satisfy cond.
func (r *recorder) await(t testing.TB, what string, cond func([]event) bool) {
	t.Helper()
	deadline := time.AfterFunc(20*time.Second, r.cond.Broadcast)
	defer deadline.Stop()
	start := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !cond(r.events) {
		if time.Since(start) > 19*time.Second {
			t.Errorf("waited too long for %s; %d events", what, len(r.events))
			return
		}
		r.cond.Wait()
	}
}

func (r *recorder) awaitAcked(t testing.TB, upto uint64) {
	t.Helper()
	r.await(t, "ack", func(es []event) bool {
		for i := len(es) - 1; i >= 0; i-- {
			if es[i].what == "acked" {
				return es[i].seq >= upto
			}
		}
		return false
	})
}

func count(what string, n int) func([]event) bool {
	return func(es []event) bool {
		missing := n
		for _, e := range es {
			if e.what == what {
				missing--
			}
		}
		return missing <= 0
	}
}

// whole says whether m is as TestCuts or forward made it, whatever way it took.
func whole(m *wire.Forward) bool {
	ack := m.Ack == wire.AckOwner && m.LeftMS == 0 || m.Ack == wire.AckClient && m.LeftMS == uint32(m.Counter)
	return ack && m.To == "bob" && strings.HasPrefix(m.From, "alice") && m.Incarnation == 1 && m.Epoch == 2 && m.Instance == 3 &&
		m.Ref == m.Counter && binary.BigEndian.Uint64(m.Payload) == m.Counter
}

func forward(id uint64, size int) *wire.Forward {
	p := make([]byte, max(size, 8))
	binary.BigEndian.PutUint64(p, id)
	return &wire.Forward{To: "bob", From: "alice", Incarnation: 1, Epoch: 2, Instance: 3, Counter: id, Ack: wire.AckOwner, Ref: id, Payload: p}
}

func newSession(t testing.TB, process uint64, h Handler, change func(*Config)) *Session {
	t.Helper()
	cfg := Config{Peer: 1, Lane: 2, Process: process, Handler: h}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// join runs both sessions over one pair of streams until either ends, and returns why each did.
func join(ctx context.Context, a, b *Session, sa, sb Stream) (errA, errB error) {
	var wg sync.WaitGroup
	wg.Go(func() { errA = a.Attach(ctx, sa, true) })
	errB = b.Attach(ctx, sb, false)
	wg.Wait()
	return errA, errB
}

// link keeps two sessions joined, over streams that last for next() bytes each, until the test ends.
func link(t testing.TB, a, b *Session, next func() int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			ca, cb := net.Pipe()
			errA, errB := join(ctx, a, b, &cutter{Conn: ca, left: next()}, &cutter{Conn: cb, left: next()})
			for _, err := range []error{errA, errB} {
				if errors.Is(err, ErrMalformed) {
					t.Errorf("stream ended with %v", err)
					return
				}
			}
			if errors.Is(errA, ErrClosed) || errors.Is(errB, ErrClosed) {
				return
			}
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

func forever() int { return 1 << 60 }

func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
