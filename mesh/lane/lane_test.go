package lane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"imroute/mesh/wire"
)

// checkSender holds what a sender heard against what was sent and what the other side took.
func checkSender(t *testing.T, name string, sent uint64, mine, theirs *recorder) {
	t.Helper()
	next := uint64(1)
	refused := map[uint64]bool{}
	for _, e := range theirs.all() {
		switch e.what {
		case "damaged":
			t.Errorf("%s: message %d arrived damaged", name, e.seq)
		case "message", "refused":
			if e.id != next || e.seq != next {
				t.Fatalf("%s: message %d (seq %d) where %d was due", name, e.id, e.seq, next)
			}
			refused[e.seq] = e.what == "refused"
			next++
		}
	}
	if next != sent+1 {
		t.Errorf("%s: %d messages arrived, %d were sent", name, next-1, sent)
	}
	acked, nacked := uint64(0), map[uint64]bool{}
	status := uint64(0)
	for _, e := range mine.all() {
		switch e.what {
		case "nack":
			if nacked[e.seq] || !refused[e.seq] || e.id != e.seq || e.st.Ref != e.seq || e.st.Code != wire.NotOwner || e.st.Index != e.seq*2 {
				t.Fatalf("%s: wrong nack %+v", name, e)
			}
			if e.seq <= acked {
				t.Fatalf("%s: nack of %d behind ack of %d", name, e.seq, acked)
			}
			nacked[e.seq] = true
		case "status":
			status++
			if e.id != status {
				t.Fatalf("%s: status %d where %d was due", name, e.id, status)
			}
		case "acked":
			if e.seq <= acked {
				t.Fatalf("%s: ack of %d behind ack of %d", name, e.seq, acked)
			}
			for seq := acked + 1; seq <= e.seq; seq++ {
				if refused[seq] && !nacked[seq] {
					t.Fatalf("%s: ack of %d before the nack of %d", name, e.seq, seq)
				}
			}
			acked = e.seq
		case "lost", "restarted":
			t.Errorf("%s: %+v", name, e)
		}
	}
	if acked != sent {
		t.Errorf("%s: acked up to %d of %d", name, acked, sent)
	}
}

// Streams break at random bytes again and again, both sides send messages and late results: nothing is lost, doubled or
// out of order, and every refusal comes before its ack.
func TestCuts(t *testing.T) {
	for round := range 8 {
		rnd := seeded(t)
		var rndMu sync.Mutex
		random := func(n int) int {
			rndMu.Lock()
			defer rndMu.Unlock()
			return rnd.IntN(n)
		}
		const messages = 3000
		reply := func(_ *Session, seq uint64, _ *wire.Forward) (wire.Code, uint64) {
			if seq%7 == 0 || seq%1000 > 900 {
				return wire.NotOwner, seq * 2
			}
			return 0, 0
		}
		ra, rb := newRecorder(), newRecorder()
		ra.reply, rb.reply = reply, reply
		small := func(c *Config) { c.ChunkBytes, c.QueueBytes = 1<<10<<(2*(round%4)), 256<<10 }
		a, b := newSession(t, 1, ra, small), newSession(t, 2, rb, small)
		budget := []int{500, 5_000, 50_000, 200_000}[round%4]
		stop := link(t, a, b, func() int {
			if a.Stats().AckedSeq+b.Stats().AckedSeq >= messages*3/2 {
				return forever() // let it come to an end
			}
			return random(budget)
		})
		var wg sync.WaitGroup
		for _, side := range []struct {
			s *Session
			r *recorder
		}{{a, ra}, {b, rb}} {
			wg.Go(func() {
				contexts := [4]*Context{nil, {}, {}, {}} // some messages belong to no conversation
				for id := uint64(1); id <= messages; {
					size := 8 + random(100)
					if random(200) == 0 {
						size = random(budget / 3) // it must fit into one stream to get through at all
					}
					talk := random(len(contexts))
					m := forward(id, size)
					m.From = fmt.Sprint("alice", talk)
					if id%5 == 0 {
						m.Ack, m.LeftMS = wire.AckClient, uint32(id)
					}
					switch _, err := side.s.Send(m, contexts[talk]); {
					case err == nil:
						if id%3 == 0 {
							side.s.SendStatus(id/3, wire.Delivered, 0)
						}
						id++
					case errors.Is(err, ErrOverloaded):
						full := side.s.Stats().AckedSeq
						side.r.await(t, "room", func(es []event) bool { return side.s.Stats().AckedSeq > full })
						if t.Failed() {
							return
						}
					default:
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		ra.awaitAcked(t, messages)
		rb.awaitAcked(t, messages)
		ra.await(t, "statuses", count("status", messages/3))
		rb.await(t, "statuses", count("status", messages/3))
		stop()
		checkSender(t, "a", messages, ra, rb)
		checkSender(t, "b", messages, rb, ra)
		t.Logf("budget %d: %d messages went short, %d streams, %d duplicates dropped", budget, a.Stats().Short, a.Stats().Streams, a.Stats().Duplicates+b.Stats().Duplicates)
		if t.Failed() {
			return
		}
	}
}

func TestPeerRestart(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	stop := link(t, a, b, forever)
	for id := uint64(1); id <= 10; id++ {
		if _, err := a.Send(forward(id, 0), nil); err != nil {
			t.Fatal(err)
		}
	}
	ra.awaitAcked(t, 10)
	stop()
	a.SendStatus(77, wire.Delivered, 0) // for the former process: must not reach the next one
	for id := uint64(11); id <= 20; id++ {
		_, _ = a.Send(forward(id, 0), nil)
	}
	rc := newRecorder()
	c := newSession(t, 3, rc, nil)
	stop = link(t, a, c, forever)
	ra.await(t, "restart", count("restarted", 1))
	for i, e := range ra.only("lost") {
		if e.seq != uint64(11+i) || e.id != e.seq {
			t.Errorf("lost %+v at %d", e, i)
		}
	}
	if n := len(ra.only("lost")); n != 10 {
		t.Errorf("%d lost, want 10", n)
	}
	if es := ra.all(); es[len(es)-1].what != "restarted" {
		t.Errorf("last event %+v, want restarted", es[len(es)-1])
	}
	_, _ = a.Send(forward(21, 0), nil)
	_, _ = c.Send(forward(1, 0), nil)
	ra.awaitAcked(t, 21)
	rc.awaitAcked(t, 1)
	stop()
	if got := rc.only("message"); len(got) != 1 || got[0].id != 21 {
		t.Errorf("the new process got %+v", got)
	}
	if got := rc.only("status"); len(got) != 0 {
		t.Errorf("the new process got statuses %+v", got)
	}
	if len(rc.only("restarted")) != 0 {
		t.Error("a first meeting is not a restart")
	}
	// A session made anew in the same process has forgotten as much as another process.
	d := newSession(t, 3, newRecorder(), nil)
	link(t, a, d, forever)
	ra.await(t, "second restart", count("restarted", 2))
}

// The hellos may get through and nothing else, on a lane whose numbers no longer start at one.
func TestCutBeforeResume(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	stop := link(t, a, b, forever)
	for id := uint64(1); id <= 5; id++ {
		_, _ = a.Send(forward(id, 0), nil)
	}
	ra.awaitAcked(t, 5)
	stop()
	rc := newRecorder()
	c := newSession(t, 3, rc, nil)
	_, _ = a.Send(forward(6, 0), nil) // to be lost
	hello := headBytes + helloBytes
	for cut := range 2 * (headBytes + resumeBytes) { // a's resume is always cut, from half way on that of c gets through
		ca, cb := net.Pipe()
		errA, errC := join(context.Background(), a, c, &cutter{Conn: ca, left: hello + cut/2}, &cutter{Conn: cb, left: hello + cut})
		if errors.Is(errA, ErrMalformed) || errors.Is(errC, ErrMalformed) {
			t.Fatalf("cut %d: %v, %v", cut, errA, errC)
		}
	}
	_, _ = a.Send(forward(7, 0), nil)
	_, _ = c.Send(forward(1, 0), nil)
	link(t, a, c, forever)
	ra.awaitAcked(t, 7)
	rc.awaitAcked(t, 1)
	if n := len(ra.only("restarted")); n != 1 {
		t.Errorf("%d restarts", n)
	}
	if n := len(ra.only("lost")); n != 1 {
		t.Errorf("%d lost", n)
	}
	if got := rc.only("message"); len(got) != 1 || got[0].id != 7 {
		t.Errorf("got %+v", got)
	}
}

func TestOverload(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	bound := func(c *Config) { c.ChunkBytes, c.QueueBytes = 4<<10, 64<<10 }
	a, b := newSession(t, 1, ra, bound), newSession(t, 2, rb, bound)
	fill := func(id uint64) uint64 {
		for ; ; id++ {
			if _, err := a.Send(forward(id, 100), nil); errors.Is(err, ErrOverloaded) {
				return id
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	id := fill(1)
	if n := a.Stats().QueuedBytes; n > 64<<10 || n < 60<<10 {
		t.Errorf("%d bytes are queued, the bound is 64 KiB", n)
	}
	if _, err := a.Send(forward(1, 64<<10), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a message that can never fit: %v", err)
	}
	stop := link(t, a, b, forever)
	ra.awaitAcked(t, id-1)
	if n := a.Stats().QueuedBytes; n != 0 {
		t.Errorf("%d bytes are kept though all is acknowledged", n)
	}
	stop()
	if next := fill(id); next < id+400 {
		t.Errorf("only %d messages fit after recovery", next-id)
	}
}

// A side that neither reads nor answers costs no more than the bounds.
func TestSilentPeer(t *testing.T) {
	ra := newRecorder()
	a := newSession(t, 1, ra, func(c *Config) { c.ChunkBytes, c.QueueBytes, c.StatusBytes = 4<<10, 64<<10, 64<<10 })
	ca, cb := net.Pipe()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = a.Attach(context.Background(), ca, true) })
	var in recordReader
	in.init(cb, wire.MaxPayload)
	read := func(want byte) {
		t.Helper()
		kind, _, err := in.next()
		for kind == 0 && err == nil {
			if err = in.fill(); err == nil {
				kind, _, err = in.next()
			}
		}
		if kind != want || err != nil {
			t.Fatalf("got a record of kind %d, %v", kind, err)
		}
	}
	read(kindHello)
	if _, err := cb.Write(hello{lane: 2, process: 9, life: 9}.append(nil)); err != nil {
		t.Fatal(err)
	}
	read(kindResume) // and nothing after that
	in.release()
	sent := 0
	for ; ; sent++ {
		if _, err := a.Send(forward(uint64(sent+1), 100), nil); err != nil {
			break
		}
	}
	for range 100_000 {
		a.SendStatus(1, wire.Delivered, 0)
	}
	wg.Wait() // the stream is cut: its statuses are not taken
	if !errors.Is(err, ErrStatusFull) {
		t.Errorf("stream ended with %v", err)
	}
	st := a.Stats()
	if st.StatusBytes > 2*64<<10+100 || st.QueuedBytes > 64<<10 || st.StatusDrops == 0 || st.StatusCuts != 1 {
		t.Errorf("stats %+v", st)
	}
	_ = cb.Close()
}

// A peer that let statuses pile up gets them once it comes back.
func TestStatusesRecover(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	a := newSession(t, 1, ra, func(c *Config) { c.ChunkBytes, c.StatusBytes = 4<<10, 64<<10 })
	b := newSession(t, 2, rb, nil)
	queued := 0
	for ; a.Stats().StatusDrops == 0; queued++ {
		a.SendStatus(uint64(queued+1), wire.Delivered, 0)
	}
	link(t, a, b, forever)
	rb.await(t, "statuses", count("status", queued-1))
	for i, e := range rb.only("status") {
		if e.id != uint64(i+1) {
			t.Fatalf("status %d at %d", e.id, i)
		}
	}
}

// Both directions are flat out and every handler sends back: nobody waits for anybody.
func TestNoDeadlock(t *testing.T) {
	const messages = 20_000
	ra, rb := newRecorder(), newRecorder()
	echo := func(s *Session, seq uint64, m *wire.Forward) (wire.Code, uint64) {
		s.SendStatus(m.Ref, wire.Delivered, 0)
		return 0, 0
	}
	ra.reply, rb.reply = echo, echo
	small := func(c *Config) { c.QueueBytes, c.StatusBytes = 256<<10, 4<<20 }
	a, b := newSession(t, 1, ra, small), newSession(t, 2, rb, small)
	link(t, a, b, forever)
	var wg sync.WaitGroup
	for s, r := range map[*Session]*recorder{a: ra, b: rb} {
		wg.Go(func() {
			for id := uint64(1); id <= messages && !t.Failed(); {
				if _, err := s.Send(forward(id, 200), nil); err == nil {
					id++
					continue
				}
				full := s.Stats().AckedSeq
				r.await(t, "room", func([]event) bool { return s.Stats().AckedSeq > full })
			}
		})
	}
	wg.Wait()
	ra.await(t, "statuses", count("status", messages))
	rb.await(t, "statuses", count("status", messages))
	ra.awaitAcked(t, messages)
	rb.awaitAcked(t, messages)
	checkSender(t, "a", messages, ra, rb)
	checkSender(t, "b", messages, rb, ra)
}

func TestSecondAttachWins(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	var wg sync.WaitGroup
	errs := make([]error, 5)
	for i := range errs {
		ca, cb := net.Pipe()
		wg.Go(func() { errs[i] = a.Attach(context.Background(), ca, true) })
		wg.Go(func() { _ = b.Attach(context.Background(), cb, false) })
		_, _ = a.Send(forward(uint64(i+1), 0), nil)
		ra.awaitAcked(t, uint64(i+1))
	}
	_ = a.Close()
	_ = b.Close()
	wg.Wait()
	if err := errs[4]; !errors.Is(err, ErrClosed) {
		t.Errorf("the newest ended with %v", err)
	}
	if got := len(rb.only("message")); got != 5 {
		t.Errorf("%d messages", got)
	}
}

func TestClose(t *testing.T) {
	ra := newRecorder()
	a := newSession(t, 1, ra, nil)
	for id := uint64(1); id <= 3; id++ {
		_, _ = a.Send(forward(id, 0), nil)
	}
	ca, cb := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Attach(context.Background(), ca, true); !errors.Is(err, ErrClosed) {
			t.Errorf("attach: %v", err)
		}
	})
	one := make([]byte, 1)
	if _, err := cb.Read(one); err != nil { // it is attached
		t.Fatal(err)
	}
	_ = a.Close()
	wg.Wait()
	if got := ra.only("lost"); len(got) != 3 || got[0].seq != 1 || got[2].seq != 3 {
		t.Errorf("lost %+v", got)
	}
	if _, err := a.Send(forward(4, 0), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if err := a.Attach(context.Background(), ca, true); !errors.Is(err, ErrClosed) {
		t.Errorf("attach: %v", err)
	}
	_ = a.Close()
	_ = cb.Close()
}

func TestContextEndsAttach(t *testing.T) {
	a := newSession(t, 1, newRecorder(), nil)
	ca, cb := net.Pipe()
	defer func() { _ = cb.Close() }()
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if err := a.Attach(ctx, ca, false); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestTooLarge(t *testing.T) {
	a := newSession(t, 1, newRecorder(), func(c *Config) { c.MaxPayload = 1000 })
	if _, err := a.Send(forward(1, 1001), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("payload: %v", err)
	}
	m := forward(1, 8)
	m.To = string(make([]byte, wire.MaxHeader))
	if _, err := a.Send(m, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("header: %v", err)
	}
	if _, err := a.Send(forward(1, 1000), nil); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	ok := Config{Process: 1, Handler: newRecorder()}
	for name, change := range map[string]func(*Config){
		"Handler": func(c *Config) { c.Handler = nil }, "Process": func(c *Config) { c.Process = 0 },
		"Lane": func(c *Config) { c.Lane = -1 }, "ChunkBytes": func(c *Config) { c.ChunkBytes = 1 },
		"QueueBytes": func(c *Config) { c.QueueBytes = 1 }, "StatusBytes": func(c *Config) { c.StatusBytes = -1 },
		"MaxPayload": func(c *Config) { c.MaxPayload = 1 << 24 }, "HelloWait": func(c *Config) { c.HelloWait = -1 },
		"AckDelay": func(c *Config) { c.AckDelay = -1 },
	} {
		c := ok
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("a bad %s is accepted", name)
		}
	}
	if _, err := New(ok); err != nil {
		t.Error(err)
	}
}
