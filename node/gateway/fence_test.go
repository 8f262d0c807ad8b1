package gateway

import (
	"context"
	"crypto/tls"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// fill delivers until the client's socket is full and the queue behind it too. It returns the last counter accepted.
func fill(t *testing.T, s *Session, rc *receipts, ack wire.AckMode) uint64 {
	t.Helper()
	payload := strings.Repeat("x", 8<<10)
	next := uint64(1)
	for stuck := 0; stuck < 50; {
		if s.Deliver(message(next, ack, payload), rc) == wire.None {
			next++
			stuck = 0
			continue
		}
		stuck++
		<-time.After(time.Millisecond) // the writer must stand still, not just be slow
	}
	return next - 1
}

// drown goes on delivering until s has ended: the kernel may find room for more than fill saw.
func drown(s *Session, next uint64) {
	for payload := strings.Repeat("x", 8<<10); ; next++ {
		s.Deliver(message(next, wire.AckNone, payload), &receipts{})
		select {
		case <-s.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// TestFenceBlockedWriter: the client does not read, the writer hangs in a full socket.
func TestFenceBlockedWriter(t *testing.T) {
	both(t, nil, fenceBlockedWriter)
	t.Run("tls", func(t *testing.T) {
		cert := selfSigned(t)
		r := newRig(t, func(c *Config, _ *fakeNode) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
		r.tls = &tls.Config{InsecureSkipVerify: true}
		fenceBlockedWriter(t, r, func() client { return r.dial() })
	})
}

func fenceBlockedWriter(t *testing.T, r *rig, dial func() client) {
	c := dial()
	s := r.login(c, "bob")
	var rc receipts
	last := fill(t, s, &rc, wire.AckOwner)
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.Close(wire.Superseded, "")
	if err := s.Fence(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("fencing took %v", d)
	}
	// Everything is answered by now: delivered, then what was in the broken write, then what never left.
	if n, twice := rc.count(); n != int(last) || twice != 0 {
		t.Fatalf("%d receipts for %d messages, %d twice", n, last, twice)
	}
	stage := wire.Delivered
	counts := map[wire.Code]uint64{}
	for i := uint64(1); i <= last; i++ {
		code := rc.of(i)
		counts[code]++
		if code == stage {
			continue
		}
		if code < stage && code != wire.NotOwner || stage == wire.NotOwner {
			t.Fatalf("message %d is %v after %v", i, code, stage)
		}
		stage = code
	}
	if counts[wire.Delivered] == 0 || counts[wire.NotOwner] == 0 || counts[wire.Unknown]+counts[wire.Delivered]+counts[wire.NotOwner] != last {
		t.Errorf("receipts %v", counts)
	}
	// The client reads at last: nothing that was answered NotOwner is among it.
	got := uint64(0)
	for {
		var f wire.Frame
		if c.recv(&f) != nil {
			break
		}
		if f.Type == wire.TypeDeliver {
			got = f.ID
		}
	}
	if got > last-counts[wire.NotOwner] {
		t.Errorf("client got %d, but only %d left", got, last-counts[wire.NotOwner])
	}
	<-s.Done()
}

func TestSlowReader(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) { c.WriteTimeout = 100 * time.Millisecond }, func(t *testing.T, r *rig, dial func() client) {
		c, other := dial(), dial()
		s := r.login(c, "bob")
		o := r.login(other, "carol")
		var rc receipts
		last := fill(t, s, &rc, wire.AckNone)
		s.mu.Lock()
		if s.dlv.cost > s.g.cfg.QueueMost {
			t.Errorf("queue holds %d bytes after %d messages, bound %d", s.dlv.cost, last, s.g.cfg.QueueMost)
		}
		s.mu.Unlock()
		o.Deliver(message(1, wire.AckOwner, "x"), &rc) // slows nobody else
		expect(t, other, wire.TypeDeliver)
		rc.wait(t, 1, wire.Delivered)
		drown(s, last)
		if n := r.Stats().Closes[wire.SlowReader]; n != 1 {
			t.Errorf("closes %v", r.Stats().Closes)
		}
	})
}

// TestSlowReaderResults: a client that sends without reading its results.
func TestSlowReaderResults(t *testing.T) {
	r := newRig(t, func(c *Config, n *fakeNode) {
		c.WriteTimeout = time.Minute
		c.QueueBytes = 16 << 10
		n.send = func(s *Session, f *wire.Frame) {
			for range 1000 {
				s.Result(f.ID, wire.Unavailable, "n2", strings.Repeat("why ", 250))
			}
		}
	})
	c := r.dial()
	s := r.login(c, "bob")
	go func() {
		b := wire.AppendFrame(nil, &wire.Frame{Type: wire.TypeSend, To: "x", ID: 1})
		for {
			if _, err := c.nc.Write(b); err != nil {
				return
			}
		}
	}()
	<-s.Done()
	if n := r.Stats().Closes[wire.SlowReader]; n != 1 {
		t.Errorf("closes %v", r.Stats().Closes)
	}
}

func TestLeaseOff(t *testing.T) {
	both(t, nil, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		r.node.mayNot.Store(true)
		var rc receipts
		for i := uint64(1); i <= 3; i++ {
			m := message(i, wire.AckOwner, "x")
			if i == 2 {
				m.LeftMS = 30
			}
			if code := s.Deliver(m, &rc); code != wire.None {
				t.Fatal(code)
			}
		}
		rc.wait(t, 2, wire.Timeout) // while it waits
		s.Result(9, wire.Offline, "", "")
		expect(t, c, wire.TypeResult) // answers still go
		c.send(&wire.Frame{Type: wire.TypePing})
		expect(t, c, wire.TypePong)
		if n, _ := rc.count(); n != 1 || r.st.writers.Load() > 1 {
			t.Errorf("%d receipts without a lease", n)
		}
		r.node.mayNot.Store(false) // noticed at the next tick even if nobody calls Wake
		for _, want := range []uint64{1, 3} {
			if f := expect(t, c, wire.TypeDeliver); f.ID != want {
				t.Fatalf("got %d, want %d", f.ID, want)
			}
			rc.wait(t, want, wire.Delivered)
		}
		r.node.mayNot.Store(true)
		s.Deliver(message(4, wire.AckOwner, "x"), &rc)
		s.Deliver(message(5, wire.AckNone, "x"), &rc)
		if err := s.Fence(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rc.of(4) != wire.NotOwner { // given before Fence returned
			t.Errorf("never written: %v", rc.of(4))
		}
		if f := expectKick(t, c, wire.LeaseLost); len(f.Addrs) != 1 {
			t.Errorf("told to go elsewhere without an address: %+v", f)
		}
	})
}

// TestLeaseLostDuringWrite: it held before the write and does not after.
func TestLeaseLostDuringWrite(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	s := r.login(c, "bob")
	start := r.node.mayCount.Load()
	first := func(n int64) bool { return n == start+1 }
	r.node.mayHook.Store(&first)
	var rc receipts
	s.Deliver(message(1, wire.AckOwner, "x"), &rc)
	expect(t, c, wire.TypeDeliver)
	rc.wait(t, 1, wire.Unknown)
	yes := func(int64) bool { return true }
	r.node.mayHook.Store(&yes)
	s.Deliver(message(2, wire.AckClient, "x"), &rc)
	expect(t, c, wire.TypeDeliver)
	no := func(int64) bool { return false }
	r.node.mayHook.Store(&no)
	c.send(&wire.Frame{Type: wire.TypeAck, Instance: 7, ID: 2})
	rc.wait(t, 2, wire.Unknown)
}

// TestCloseAnywhere races deliveries, closes and the client's leaving: each accepted message gets exactly one receipt, and
// none comes after Fenced.
func TestCloseAnywhere(t *testing.T) {
	r := newRig(t, nil)
	for round := range 60 {
		c := r.dial()
		s := r.login(c, "bob")
		var rc receipts
		var wg sync.WaitGroup
		accepted := make([]int, 3)
		for k := range accepted {
			wg.Go(func() {
				for i := uint64(1); ; i++ {
					m := message(i, wire.AckMode(1+k%2), strings.Repeat("x", 500))
					m.Instance, m.Ref = uint64(k+1), uint64(k)<<32|i
					switch s.Deliver(m, &rc) {
					case wire.None:
						accepted[k]++
					case wire.NotOwner:
						return
					default:
						i--
					}
				}
			})
		}
		for range 20 + round {
			var f wire.Frame
			if err := c.recv(&f); err != nil {
				t.Fatal(err)
			}
		}
		if round%2 == 0 {
			s.Close(wire.Replaced, "")
		}
		c.hangUp()
		<-s.Fenced()
		n, _ := rc.count()
		wg.Wait()
		after, twice := rc.count()
		if want := accepted[0] + accepted[1] + accepted[2]; n != want || after != want || twice != 0 {
			t.Fatalf("round %d: %d accepted, %d receipts at the fence, %d in the end, %d twice", round, want, n, after, twice)
		}
		<-s.Done()
	}
}

// TestLeaseEndsDuringAWrite: a write that blocks while the lease runs out is broken off with it.
func TestLeaseEndsDuringAWrite(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) { c.WriteTimeout = time.Minute }, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		end := time.Now().Add(300 * time.Millisecond)
		r.node.leaseEnd.Store(&end)
		var rc receipts
		fill(t, s, &rc, wire.AckOwner)
		<-s.Done() // fill's write was under way when the lease ended
		if n := r.Stats().Closes[wire.LeaseLost]; n != 1 {
			t.Errorf("closes %v", r.Stats().Closes)
		}
	})
}

// TestWriteGoesOnUnderARenewedLease: a slow client on plain TCP is not cut off by the end of a lease that was renewed.
func TestWriteGoesOnUnderARenewedLease(t *testing.T) {
	r := newRig(t, func(c *Config, _ *fakeNode) { c.WriteTimeout = time.Minute })
	c := r.dial()
	s := r.login(c, "bob")
	end := time.Now().Add(500 * time.Millisecond)
	r.node.leaseEnd.Store(&end)
	var rc receipts
	last := fill(t, s, &rc, wire.AckOwner)
	first := end
	end2 := time.Now().Add(time.Hour)
	r.node.leaseEnd.Store(&end2)
	// The blocked write has met its first deadline once a later one is set.
	eventually(t, "the deadline to move", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.writeBy.After(first.Add(time.Second))
	})
	for got := uint64(0); got < last; {
		var f wire.Frame
		if err := c.recv(&f); err != nil {
			t.Fatalf("after %d of %d: %v", got, last, err)
		}
		if f.Type == wire.TypeDeliver {
			got = f.ID
		}
	}
}
