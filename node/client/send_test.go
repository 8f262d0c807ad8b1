package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

func TestResendSameIDsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var a *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { a = n.nodes["a:1"].welcome(1) })
		results := asyncResults(t, c, wire.AckOwner, 5)
		if _, err := c.SendAsync("bob", []byte("once"), wire.AckNone, 0, nil); err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		for range 6 {
			ids = append(ids, a.want(wire.TypeSend).ID)
		}
		if !slices.IsSorted(ids) {
			t.Fatalf("ids %v do not rise", ids)
		}
		a.result(ids[1], wire.Delivered)
		a.conn.Close()
		synctest.Wait()
		if _, err := c.SendAsync("bob", []byte("waits"), wire.AckNone, 0, nil); err != nil {
			t.Fatal(err)
		}
		b := n.nodes["b:1"].welcome(2)
		// the answered one and the unacknowledged one that was written are not repeated; what waited comes last
		for _, want := range []uint64{ids[0], ids[2], ids[3], ids[4], ids[5] + 1} {
			f := b.want(wire.TypeSend)
			if f.ID != want {
				t.Fatalf("repeated %d, want %d", f.ID, want)
			}
			if f.Ack != wire.AckNone {
				b.result(f.ID, wire.Delivered)
			}
		}
		for range 5 {
			if r := <-results; r.Code != wire.Delivered || r.Owner != "owner" {
				t.Errorf("result %+v", r)
			}
		}
		shut(t, c)
	})
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		var refused []Result
		cfg.OnRefused = func(r Result) { refused = append(refused, r) }
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		start := time.Now()
		r, err := c.Send(t.Context(), "bob", []byte("x"), WithTimeout(1500*time.Millisecond))
		wantCode(t, err, wire.Timeout)
		if took := time.Since(start); took < 1500*time.Millisecond || took > 1510*time.Millisecond || r.RTT != took {
			t.Errorf("gave up after %s (RTT %s)", took, r.RTT)
		}
		f := fc.want(wire.TypeSend)
		if f.TimeoutMS >= 1500 || f.TimeoutMS < 1250 || r.ID != (wire.MessageID{Instance: c.Instance(), Counter: f.ID}) {
			t.Errorf("frame %+v, result %+v", f, r)
		}
		fc.result(f.ID, wire.Timeout) // too late to matter
		synctest.Wait()
		if len(refused) != 0 {
			t.Errorf("a late result was taken for a refusal: %+v", refused)
		}

		delete(n.nodes, "a:1")
		fc.conn.Close()
		synctest.Wait()
		_, err = c.Send(t.Context(), "bob", []byte("x"), WithTimeout(time.Second))
		wantCode(t, err, wire.Unavailable) // it never left
		if _, err = c.Send(t.Context(), "bob", []byte("x"), WithTimeout(time.Second), WithAck(wire.AckNone)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if len(refused) != 1 || refused[0].Code != wire.Unavailable {
			t.Errorf("refused %+v", refused)
		}
		shut(t, c)
	})
}

func TestResentMessageKeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		start := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := c.Send(context.Background(), "bob", nil, WithTimeout(4*time.Second))
			done <- err
		}()
		fc.want(wire.TypeSend)
		time.Sleep(3 * time.Second)
		fc.conn.Close()
		fc = n.nodes["a:1"].welcome(2)
		if f := fc.want(wire.TypeSend); f.TimeoutMS > 1000 || f.TimeoutMS < 500 {
			t.Errorf("repeated with %d ms left", f.TimeoutMS)
		}
		wantCode(t, <-done, wire.Timeout)
		if took := time.Since(start); took > 4010*time.Millisecond {
			t.Errorf("took %s", took)
		}
		shut(t, c)
	})
}

func TestSendContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			fc.want(wire.TypeSend)
			cancel()
		}()
		r, err := c.Send(ctx, "bob", nil)
		wantCode(t, err, wire.Unknown)
		if !errors.Is(err, context.Canceled) || r.Code != wire.Unknown || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%+v, %v", r, err)
		}
		c.mu.Lock()
		if len(c.pend.byID) != 0 || c.pend.head != nil || c.pend.bytes != 0 {
			t.Error("something is still pending")
		}
		c.mu.Unlock()
		shut(t, c)
	})
}

func TestRefusedResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		refused := make(chan Result, 1)
		cfg.OnRefused = func(r Result) { refused <- r }
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		r, err := c.Send(t.Context(), "bob", nil, WithAck(wire.AckNone))
		if err != nil || r.Code != wire.None {
			t.Fatal(r, err)
		}
		fc.result(fc.want(wire.TypeSend).ID, wire.Overloaded)
		if got := <-refused; got.ID != r.ID || got.Code != wire.Overloaded {
			t.Errorf("refused %+v, want id %s", got, r.ID)
		}
		go func() { fc.result(fc.want(wire.TypeSend).ID, wire.Offline) }()
		r, err = c.Send(t.Context(), "bob", nil)
		wantCode(t, err, wire.Offline)
		if r.Code != wire.Offline {
			t.Errorf("result %+v", r)
		}
		shut(t, c)
	})
}

func TestWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		c := open(t, n.config("a:1"), func() { n.nodes["a:1"].welcome(1) })
		for _, tc := range []struct {
			to      string
			size    int
			timeout time.Duration
			code    wire.Code
		}{
			{"", 0, 0, wire.BadRequest},
			{"b*b", 0, 0, wire.BadRequest},
			{"\xff", 0, 0, wire.BadRequest},
			{"bob", 0, -1, wire.BadRequest},
			{"bob", 0, 50 * 24 * time.Hour, wire.BadRequest},
			{"bob", 1<<20 + 1, 0, wire.TooLarge},
		} {
			r, err := c.Send(t.Context(), tc.to, make([]byte, tc.size), WithTimeout(tc.timeout))
			wantCode(t, err, tc.code)
			if r.Code != tc.code {
				t.Errorf("result %+v", r)
			}
		}
		shut(t, c)
	})
}

func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		cfg.MaxInFlight = 3
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		results := asyncResults(t, c, wire.AckOwner, 3)
		if _, err := c.SendAsync("bob", nil, wire.AckOwner, 0, nil); !errors.Is(err, ErrOverloaded) {
			t.Fatalf("error is %v", err)
		}
		// a waiting Send gets the room that a result makes
		sent := make(chan error, 1)
		go func() {
			_, err := c.Send(context.Background(), "carol", nil)
			sent <- err
		}()
		synctest.Wait()
		fc.result(fc.want(wire.TypeSend).ID, wire.Delivered)
		<-results
		fc.want(wire.TypeSend)
		fc.want(wire.TypeSend)
		f := fc.want(wire.TypeSend)
		if f.To != "carol" {
			t.Errorf("sent to %s", f.To)
		}
		fc.result(f.ID, wire.Delivered)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		shut(t, c)
	})
}

func TestQueueBytesWhileDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		cfg.QueueBytes = 10 * (1000 + 3 + pendingCost)
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		delete(n.nodes, "a:1")
		fc.conn.Close()
		synctest.Wait()
		for range 10 {
			if _, err := c.Send(t.Context(), "bob", make([]byte, 1000), WithAck(wire.AckNone)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.SendAsync("bob", nil, wire.AckNone, 0, nil); !errors.Is(err, ErrOverloaded) {
			t.Fatalf("error is %v", err)
		}
		_, err := c.Send(t.Context(), "bob", nil, WithTimeout(time.Second))
		wantCode(t, err, wire.Overloaded)
		shut(t, c)
	})
}

func TestCloseEndsPendingSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		errs := make(chan error, 1)
		go func() {
			_, err := c.Send(context.Background(), "bob", nil)
			errs <- err
		}()
		fc.want(wire.TypeSend)
		go func() {
			fc.want(wire.TypeBye)
			fc.conn.Close()
		}()
		shut(t, c)
		err := <-errs
		wantCode(t, err, wire.Unknown)
		if !errors.Is(err, ErrClosed) || !errors.Is(c.Err(), ErrClosed) {
			t.Errorf("errors %v and %v", err, c.Err())
		}
		if _, err := c.Send(t.Context(), "bob", nil); !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v", err)
		}
		if _, err := c.Receive(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v", err)
		}
		shut(t, c) // again
	})
}

func TestCloseWritesWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		const count = 5000
		for i := range count {
			if _, err := c.SendAsync("bob", []byte(fmt.Sprint(i)), wire.AckNone, 0, nil); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, c)
		for i := range count {
			if f := fc.want(wire.TypeSend); string(f.Payload) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, f.Payload)
			}
		}
		fc.want(wire.TypeBye)
	})
}

func TestCloseWhileReconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		fc.conn.Close()
		n.nodes["a:1"].accept().want(wire.TypeLogin) // a login is under way and gets no answer
		results := asyncResults(t, c, wire.AckOwner, 1)
		start := time.Now()
		shut(t, c)
		if took := time.Since(start); took > 0 {
			t.Errorf("Close took %s", took)
		}
		r := <-results
		wantCode(t, r.Err(), wire.Unavailable)
		if !errors.Is(r.Err(), ErrClosed) {
			t.Errorf("error is %v", r.Err())
		}
	})
}

func TestCloseGivesUpWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		n.ahead = 1
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		for range 10 { // more than the node takes
			if _, err := c.SendAsync("bob", nil, wire.AckNone, 0, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		for fc.next() != nil {
		}
	})
}

func TestPingsAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var fc *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		for range 5 {
			start := time.Now()
			if f := <-fc.frames; f.Type != wire.TypePing {
				t.Fatalf("got %s", f.Type)
			}
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("pinged after %s", took)
			}
			fc.send(wire.Frame{Type: wire.TypePong})
		}
		// sending does not spare the ping, for then nothing might ever be heard
		for range 9 {
			time.Sleep(time.Second)
			if _, err := c.SendAsync("bob", nil, wire.AckNone, 0, nil); err != nil {
				t.Fatal(err)
			}
			if f := <-fc.frames; f.Type != wire.TypeSend {
				t.Fatalf("got %s", f.Type)
			}
		}
		start := time.Now()
		if f := <-fc.frames; f.Type != wire.TypePing {
			t.Fatalf("got %s", f.Type)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("pinged after %s", took)
		}
		// no pong: gone after another third of the idle time
		start = time.Now()
		n.nodes["b:1"].welcome(2)
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("gave up after %s", took)
		}
		fc.wantGone()
		shut(t, c)
	})
}

func TestUnwrittenMessagesAreRecovered(t *testing.T) {
	c := &Client{base: time.Now(), wake: make(chan struct{}, 1), instance: 1}
	c.pend.soonest = never
	var out outbox
	add := func(id uint64, ack wire.AckMode) int {
		out.append(&wire.Frame{Type: wire.TypeSend, To: "bob", ID: id, Ack: ack, TimeoutMS: 1000, Payload: []byte{byte(id)}})
		return len(out.chunks[0].b)
	}
	add(1, wire.AckNone)
	handed := add(2, wire.AckNone)
	half := add(3, wire.AckNone) - 1
	add(4, wire.AckOwner)
	out.append(&wire.Frame{Type: wire.TypePing})
	add(5, wire.AckNone)
	for _, id := range []uint64{4, 6} {
		c.pend.push(&pending{id: id, ack: wire.AckOwner, tries: 1})
	}
	unsent := out.take()
	if out.take() != nil {
		t.Fatal("more than one chunk")
	}
	c.recoverLocked(unsent, half, nil)
	var ids []uint64
	for p := c.pend.head; p != nil; p = p.next {
		ids = append(ids, p.id)
		if want := map[uint64]int{6: 1}[p.id]; p.tries != want {
			t.Errorf("message %d: %d tries, want %d", p.id, p.tries, want)
		}
	}
	if !slices.Equal(ids, []uint64{3, 4, 5, 6}) {
		t.Errorf("recovered %v (of what follows byte %d)", ids, handed)
	}
}

// TestNothingIsLostAcrossCuts sends from several goroutines over connections that break at random and checks that every
// acknowledged message is answered once, and that each session sees ids that rise.
func TestNothingIsLostAcrossCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		stop := make(chan struct{})
		served := make(chan struct{})
		seen := make(map[uint64]string)
		go func() {
			defer close(served)
			for epoch := wire.Epoch(1); ; epoch++ {
				var fc *fakeConn
				select {
				case fc = <-n.nodes["a:1"].conns:
				case fc = <-n.nodes["b:1"].conns:
				case <-stop:
					return
				}
				if fc.next() == nil {
					continue
				}
				fc.send(wire.Frame{Type: wire.TypeWelcome, Epoch: epoch, Node: "n", IdleMS: 30000, MaxPayload: 1000})
				last := uint64(0)
				for i := 0; ; i++ {
					f := fc.next()
					if f == nil || f.Type == wire.TypeBye {
						break
					}
					if f.ID <= last {
						t.Errorf("id %d after %d", f.ID, last)
					}
					last = f.ID
					if p, ok := seen[f.ID]; ok && p != string(f.Payload) {
						t.Errorf("id %d names %q and %q", f.ID, p, f.Payload)
					}
					seen[f.ID] = string(f.Payload)
					if i == 70+int(epoch) && epoch < 20 {
						break // taken, but not answered
					}
					fc.conn.Write(wire.AppendFrame(nil, &wire.Frame{Type: wire.TypeResult, ID: f.ID, Code: wire.Delivered}))
				}
				fc.conn.Close()
			}
		}()
		cfg := n.config("a:1", "b:1")
		cfg.MaxInFlight = 50
		c := open(t, cfg, func() {})
		errs := make(chan error, 4)
		for g := range 4 {
			go func() {
				for i := range 1000 {
					if _, err := c.Send(context.Background(), "bob", fmt.Appendf(nil, "%d/%d", g, i), WithTimeout(time.Minute)); err != nil {
						errs <- err
						return
					}
				}
				errs <- nil
			}()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		shut(t, c)
		close(stop)
		<-served
		if len(seen) != 4000 {
			t.Errorf("%d messages arrived", len(seen))
		}
	})
}
