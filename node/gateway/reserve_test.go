package gateway

import (
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestReserve: clients that do not read share what goes past QueueBytes, and give it back.
func TestReserve(t *testing.T) {
	const (
		sure, most, more = 64 << 10, 512 << 10, 600 << 10
		slack            = 10 << 10 // a message of fill's does not fit any more
	)
	both(t, func(c *Config, _ *fakeNode) {
		c.QueueBytes, c.QueueMost, c.QueueReserve = sure, most, more
		c.WriteTimeout = time.Minute
	}, func(t *testing.T, r *rig, dial func() client) {
		var rc receipts
		held := func(s *Session, want int) {
			t.Helper()
			fill(t, s, &rc, wire.AckNone)
			s.mu.Lock()
			defer s.mu.Unlock()
			if n := s.dlv.cost; n > want || n < want-slack-loan {
				t.Errorf("%s holds %d bytes, want about %d", s.Client(), n, want)
			}
		}
		a, b, c := r.login(dial(), "a"), r.login(dial(), "b"), r.login(dial(), "c")
		held(a, most)                  // 448 KiB borrowed
		held(b, sure+more-(most-sure)) // the rest
		held(c, sure)                  // what is sure stays sure
		a.Close(wire.Kicked, "")       // its share is free again
		<-a.Done()
		held(c, sure+(most-sure))
		for _, s := range []*Session{b, c} {
			s.Close(wire.Kicked, "")
			<-s.Done()
		}
		if n := r.reserve.free.Load(); n != more {
			t.Errorf("%d bytes of the reserve are left, want all %d", n, more)
		}
	})
}

// TestReserveGivenBack: a client that reads on after a burst needs no loan any more.
func TestReserveGivenBack(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) {
		c.QueueBytes, c.QueueMost, c.QueueReserve = 64<<10, 1<<20, 4<<20
		c.WriteTimeout = time.Minute
	}, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		var rc receipts
		last := fill(t, s, &rc, wire.AckNone)
		if n := r.reserve.free.Load(); n == 4<<20 {
			t.Fatal("nothing was borrowed")
		}
		for n := uint64(1); n <= last; n++ {
			if f := expect(t, c, wire.TypeDeliver); f.ID != n {
				t.Fatalf("message %d, want %d", f.ID, n)
			}
		}
		eventually(t, "the loan is given back", func() bool { return r.reserve.free.Load() == 4<<20 })
	})
}
