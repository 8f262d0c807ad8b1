package gateway

import (
	"sync"
	"testing"

	"imroute/mesh/wire"
)

// bareSession is an open session whose connection nobody writes to, for what happens in its queue.
func bareSession(t testing.TB, epoch wire.Epoch) *Session {
	t.Helper()
	g, err := New(Config{TCP: "127.0.0.1:0", DevMode: true, Backend: &fakeNode{}, QueueBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(g, newTCPConn(nil, nil, 1<<20, &g.st.bytesIn))
	s.phase, s.epoch, s.writing = open, epoch, true // a writer that never comes
	return s
}

type counted struct {
	mu    sync.Mutex
	codes map[wire.Code]int
}

func (c *counted) Receipt(_ uint64, code wire.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.codes == nil {
		c.codes = map[wire.Code]int{}
	}
	c.codes[code]++
}

func castOf(s *Session, counter uint64, ack wire.AckMode, to Receipt, payload []byte) *Cast {
	return s.g.NewCast(&wire.Forward{From: "alice", To: "lobby", Kind: wire.ToGroup, Instance: 9, Counter: counter, Ack: ack, Payload: payload}, 0, to)
}

// TestCastQueue: shared and own frames keep their order, cost what they are, and turn into the very bytes.
func TestCastQueue(t *testing.T) {
	s := bareSession(t, 7)
	direct := func(counter uint64) wire.Code {
		return s.Deliver(&wire.Forward{From: "bob", Instance: 5, Counter: counter, Epoch: 7, Payload: []byte("direct")}, nil)
	}
	var receipts counted
	for i := uint64(1); i <= 3; i++ {
		if a, b := direct(i), s.DeliverCast(castOf(s, i, wire.AckOwner, &receipts, []byte("shared"))); a != 0 || b != 0 {
			t.Fatalf("%v, %v", a, b)
		}
	}
	var f wire.Frame
	for i := uint64(1); i <= 3; i++ {
		for _, want := range []string{"direct", "shared"} {
			c := s.dlv.take()
			before := c.cost()
			c.encode(s.conn, s.epoch)
			if c.cost() != before || len(c.items) != 1 {
				t.Errorf("cost %d, then %d, of %d frames", before, c.cost(), len(c.items))
			}
			if err := wire.DecodeFrame(c.buf[wire.LengthBytes:c.items[0].end], &f); err != nil || string(f.Payload) != want || f.ID != i || f.Epoch != 7 {
				t.Errorf("%+v, %v, want %s %d", f, err, want, i)
			}
			s.dlv.cost -= c.cost()
			c.release()
		}
	}
	if s.dlv.cost != 0 || !s.dlv.empty() {
		t.Errorf("%d bytes are left", s.dlv.cost)
	}
}

// TestCastVerdicts: repeats, what was overtaken, full queues and expiry.
func TestCastVerdicts(t *testing.T) {
	s := bareSession(t, 7)
	var receipts counted
	for i, v := range []struct {
		counter uint64
		ack     wire.AckMode
		want    wire.Code
	}{
		{1, wire.AckNone, 0},
		{1, wire.AckNone, 0},                // a repeat, dropped
		{1, wire.AckOwner, wire.Unknown},    // nobody remembers how that went
		{3, wire.AckOwner, 0},               //
		{2, wire.AckOwner, wire.OutOfOrder}, // never taken
		{3, wire.AckOwner, 0},               // waits with the first
		{4, wire.AckNone, 0},
		{2, wire.AckOwner, wire.Unknown},
	} {
		if got := s.DeliverCast(castOf(s, v.counter, v.ack, &receipts, []byte("x"))); got != v.want {
			t.Errorf("%d: %v, want %v", i, got, v.want)
		}
	}
	n := 0
	for c := range s.dlv.chunks {
		n += len(s.dlv.chunks[c].items)
	}
	if n != 3 {
		t.Errorf("%d frames are queued", n)
	}
	big := make([]byte, 4<<10)
	s.DeliverCast(castOf(s, 10, wire.AckNone, nil, big))
	if code := s.DeliverCast(castOf(s, 11, wire.AckNone, nil, big)); code != wire.Overloaded {
		t.Errorf("a shared payload does not count: %v", code)
	}
	s.closing = true
	if code := s.DeliverCast(castOf(s, 12, wire.AckNone, nil, nil)); code != wire.NotOwner {
		t.Errorf("closing: %v", code)
	}
	s.code = wire.ConnectionLost
	s.finish()
	if receipts.codes[wire.NotOwner] != 2 {
		t.Errorf("receipts %v, want two for the one that was not written", receipts.codes)
	}
}

func TestCastExpiry(t *testing.T) {
	s := bareSession(t, 7)
	var receipts counted
	for i := uint64(1); i <= 3; i++ {
		c := castOf(s, i, wire.AckOwner, &receipts, []byte("payload"))
		if i == 2 {
			c.expires = 5
		}
		s.DeliverCast(c)
	}
	tell(s.expireParkedLocked(10, nil))
	c := s.dlv.take()
	if len(c.items) != 2 || receipts.codes[wire.Timeout] != 1 || s.dlv.cost != c.cost() {
		t.Fatalf("%d items, %v, cost %d of %d", len(c.items), receipts.codes, c.cost(), s.dlv.cost)
	}
	c.encode(s.conn, 7)
	if s.dlv.cost != c.cost() {
		t.Errorf("cost %d of %d", c.cost(), s.dlv.cost)
	}
	c.release()
}

func BenchmarkDeliverCast(b *testing.B) {
	s := bareSession(b, 7)
	payload := make([]byte, 1024)
	m := wire.Forward{From: "alice", To: "lobby", Kind: wire.ToGroup, Instance: 9, Payload: payload}
	b.ReportAllocs()
	c := s.g.NewCast(&m, 0, nil)
	i := uint64(0)
	for b.Loop() {
		i++
		c.frame.Frame().ID = i // one cast for many sessions: here one session stands for them
		if code := s.DeliverCast(c); code != 0 {
			b.Fatal(code)
		}
		ch := s.dlv.take()
		s.dlv.cost -= ch.cost()
		ch.release()
	}
}
