package lane

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// trying is a cutter that takes bytes without waiting, if it feels like it.
type trying struct {
	*cutter
	feel func() bool
	took *atomic.Int64

	mu    sync.Mutex
	cond  sync.Cond
	buf   []byte // taken and not written
	over  error
	ended chan struct{}
}

func newTrying(c *cutter, feel func() bool, took *atomic.Int64) *trying {
	s := &trying{cutter: c, feel: feel, took: took, ended: make(chan struct{})}
	s.cond.L = &s.mu
	go s.pump()
	return s
}

var errBusy = errors.New("not now")

func (s *trying) TryWriteAll(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil || len(s.buf) > 4096 || !s.feel() {
		return errBusy
	}
	s.buf = append(s.buf, p...)
	s.took.Add(1)
	s.cond.Broadcast()
	return nil
}

func (s *trying) pump() {
	defer close(s.ended)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.over == nil {
		if len(s.buf) == 0 {
			s.cond.Wait()
			continue
		}
		b := append([]byte(nil), s.buf...)
		s.mu.Unlock()
		_, err := s.cutter.Write(b)
		s.mu.Lock()
		s.buf = s.buf[len(b):]
		if err != nil && s.over == nil {
			s.over = err
		}
		s.cond.Broadcast()
	}
}

func (s *trying) Write(p []byte) (int, error) {
	s.mu.Lock()
	for len(s.buf) > 0 && s.over == nil {
		s.cond.Wait()
	}
	err := s.over
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return s.cutter.Write(p)
}

func (s *trying) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Now()) { // stopped: let a Write that waits for the pump go
		s.end()
	}
	return s.cutter.SetWriteDeadline(t)
}

func (s *trying) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = net.ErrClosed
	}
	s.cond.Broadcast()
}

func (s *trying) Close() error {
	s.end()
	err := s.cutter.Close()
	<-s.ended
	return err
}

// Whatever is written by the sender, by the writer, or begun by the one and left to the other, over streams that break:
// everything arrives once and in order.
func TestWrittenDirectly(t *testing.T) {
	rnd := seeded(t)
	var mu sync.Mutex
	chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
	var took atomic.Int64
	ra, rb := newRecorder(), newRecorder()
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			ca, cb := net.Pipe()
			feel := func() bool { return chance(4) > 0 }
			errA, errB := join(ctx, a, b,
				newTrying(&cutter{Conn: ca, left: 500 + chance(20_000)}, feel, &took),
				newTrying(&cutter{Conn: cb, left: 500 + chance(20_000)}, feel, &took))
			for _, err := range []error{errA, errB} {
				if errors.Is(err, ErrMalformed) {
					t.Errorf("stream ended with %v", err)
					return
				}
			}
		}
	})
	const n = 3000
	for id := uint64(1); id <= n; id++ {
		if chance(2) == 0 { // as after a pause
			a.mu.Lock()
			a.direct.last = time.Time{}
			a.mu.Unlock()
		}
		if _, err := a.Send(forward(id, 8+chance(1500)), nil); err != nil {
			t.Fatal(err)
		}
		if chance(3) == 0 {
			b.mu.Lock()
			b.direct.last = time.Time{}
			b.mu.Unlock()
			b.SendStatus(id, 1, 0)
		}
		if chance(4) == 0 {
			rb.await(t, "message", count("message", int(id)))
		}
	}
	ra.awaitAcked(t, n)
	for i, e := range rb.only("message") {
		if e.seq != uint64(i+1) {
			t.Fatalf("message %d arrived as the %d.", e.seq, i+1)
		}
	}
	if got := len(rb.only("message")); got != n {
		t.Errorf("%d messages arrived, want %d", got, n)
	}
	if took.Load() == 0 {
		t.Error("nothing was written directly")
	}
}
