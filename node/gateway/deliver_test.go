package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestRepeatedMessages(t *testing.T) {
	both(t, nil, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		var rc receipts
		deliver := func(want wire.Code, ref uint64, counter uint64, ack wire.AckMode) {
			t.Helper()
			m := message(counter, ack, "x")
			m.Ref = ref
			if code := s.Deliver(m, &rc); code != want {
				t.Fatalf("message %d: %v, want %v", counter, code, want)
			}
		}
		deliver(wire.None, 1, 5, wire.AckClient)
		expect(t, c, wire.TypeDeliver)
		deliver(wire.None, 2, 5, wire.AckClient) // pending: told with the first
		deliver(wire.OutOfOrder, 3, 4, wire.AckOwner)
		deliver(wire.None, 4, 5, wire.AckNone) // dropped
		for ref := uint64(10); ref < 10+maxRepeats-1; ref++ {
			deliver(wire.None, ref, 5, wire.AckClient)
		}
		deliver(wire.Overloaded, 30, 5, wire.AckClient)
		c.send(&wire.Frame{Type: wire.TypeAck, Instance: 7, ID: 5})
		rc.wait(t, 1, wire.Delivered)
		rc.wait(t, 2, wire.Delivered)
		deliver(wire.Delivered, 5, 5, wire.AckClient) // known
		deliver(wire.None, 6, 6, wire.AckOwner)
		if f := expect(t, c, wire.TypeDeliver); f.ID != 6 { // none of the repeats was written
			t.Fatalf("got %d", f.ID)
		}
		rc.wait(t, 6, wire.Delivered)
		m := message(1, wire.AckOwner, "x")
		m.Instance, m.Ref = 8, 100 // another sender counts for itself
		if code := s.Deliver(m, &rc); code != wire.None {
			t.Fatal(code)
		}
		expect(t, c, wire.TypeDeliver)
		m.Epoch = s.Epoch() + 1
		if code := s.Deliver(m, &rc); code != wire.NotOwner {
			t.Errorf("another epoch: %v", code)
		}
		if _, twice := rc.count(); twice != 0 {
			t.Errorf("%d receipts given twice", twice)
		}
		if d := r.Stats().Drops; d[DropDuplicate] != 2+maxRepeats+1 || d[DropOutOfOrder] != 1 || d[DropClosed] != 1 {
			t.Errorf("drops %v", d)
		}
	})
}

// TestDedupeModel compares the bounded memory with one that forgets nothing: what it lets through must rise per sender and
// never repeat, and it may only answer `overtaken` for what was never taken.
func TestDedupeModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	const senders = 6
	d := dedupe{window: 8, maxPeers: senders, maxAge: time.Hour}
	taken := make(map[wire.MessageID]bool)
	last := make(map[uint64]uint64)
	for range 20_000 {
		id := wire.MessageID{Instance: 1 + rnd.Uint64N(senders), Counter: 1}
		if n := last[id.Instance]; n > 0 {
			id.Counter = max(1, n+rnd.Uint64N(24)-16)
			if id.Counter > n+8 { // wrapped below zero
				id.Counter = 1
			}
		}
		v, p, s := d.look(id.Instance, id.Counter, 0, nil)
		switch v {
		case fresh:
			if taken[id] || id.Counter <= last[id.Instance] {
				t.Fatalf("%v let through, last %d", id, last[id.Instance])
			}
			d.took(p, id.Instance, id.Counter, wire.Code(id.Counter%7), nil, 0)
			taken[id], last[id.Instance] = true, id.Counter
		case repeated:
			if !taken[id] || s.code != wire.Code(id.Counter%7) {
				t.Fatalf("%v called repeated with %v", id, s.code)
			}
		case overtaken:
			if taken[id] {
				t.Fatalf("%v was taken, called overtaken", id)
			}
		case forgotten:
			if id.Counter > last[id.Instance]-min(last[id.Instance], 3) {
				t.Fatalf("%v forgotten although recent (last %d)", id, last[id.Instance])
			}
		}
		for _, p := range d.peers {
			if len(p.seen) > d.window {
				t.Fatalf("%d ids kept", len(p.seen))
			}
		}
	}
}

func TestDedupeBounds(t *testing.T) {
	d := dedupe{window: 4, maxPeers: 3, maxAge: time.Minute}
	for i := uint64(1); i <= 5; i++ {
		_, p, _ := d.look(i, 1, time.Duration(i)*time.Second, nil)
		d.took(p, i, 1, wire.Delivered, nil, time.Duration(i)*time.Second)
	}
	if len(d.peers) != 3 || d.peers[2] != nil || d.oldest.instance != 3 {
		t.Fatalf("%d senders, oldest %+v", len(d.peers), d.oldest)
	}
	var memo wire.Memo
	for range 2 { // the second time by memo
		if v, p, _ := d.look(3, 1, 10*time.Second, &memo); v != repeated || memo.P != any(p) {
			t.Fatalf("%v, memo %+v", v, memo)
		}
	}
	_, six, _ := d.look(6, 1, 11*time.Second, nil)
	if d.took(six, 6, 1, wire.Delivered, nil, 11*time.Second); d.peers[3] == nil || d.peers[4] != nil {
		t.Fatal("who was heard last but one was forgotten")
	}
	if next := d.age(66 * time.Second); len(d.peers) != 2 || d.peers[5] != nil || next != 70*time.Second {
		t.Fatalf("%d senders, next %v", len(d.peers), next)
	}
	if d.age(time.Hour); d.peers != nil || d.oldest != nil || d.newest != nil {
		t.Fatal("not all forgotten")
	}
}

func TestQueueBound(t *testing.T) {
	r := newRig(t, func(c *Config, n *fakeNode) { c.QueueBytes = 64 << 10; n.mayNot.Store(true) })
	c := r.dial()
	s := r.login(c, "bob")
	var rc receipts
	if code := s.Deliver(message(1, wire.AckOwner, strings.Repeat("x", 300_000)), &rc); code != wire.None {
		t.Fatalf("one large message on an empty queue: %v", code)
	}
	if code := s.Deliver(message(2, wire.AckOwner, "x"), &rc); code != wire.Overloaded {
		t.Fatalf("behind it: %v", code)
	}
	r.node.mayNot.Store(false)
	r.Wake()
	expect(t, c, wire.TypeDeliver)
	rc.wait(t, 1, wire.Delivered)
	r.node.mayNot.Store(true)
	n := 0
	for s.Deliver(message(uint64(3+n), wire.AckOwner, "xxxxxxxx"), &rc) == wire.None {
		n++
	}
	if n < 300 || n > (64<<10)/itemCost {
		t.Errorf("%d small messages fit 64 KiB", n)
	}
	if code := s.Deliver(message(1_000_000, wire.AckNone, strings.Repeat("x", wire.MaxPayload+1)), nil); code != wire.TooLarge {
		t.Errorf("too large: %v", code)
	}
	s.Close(wire.Kicked, "")
	eventually(t, "all receipts", func() bool { k, _ := rc.count(); return k == n+1 })
	rc.wait(t, 3, wire.NotOwner)
	expectKick(t, c, wire.Kicked)
}

func TestUnackedBound(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, func(c *Config, _ *fakeNode) { c.MaxUnacked = 2; c.Clock = clock; c.Idle = time.Hour })
	c := r.dial()
	s := r.login(c, "bob")
	var rc receipts
	for i := uint64(1); i <= 2; i++ {
		m := message(i, wire.AckClient, "")
		m.LeftMS = 1000
		if code := s.Deliver(m, &rc); code != wire.None {
			t.Fatal(code)
		}
		expect(t, c, wire.TypeDeliver)
	}
	if code := s.Deliver(message(3, wire.AckClient, ""), &rc); code != wire.Overloaded {
		t.Fatalf("third without an ack: %v", code)
	}
	clock.advance(2 * time.Second)
	eventually(t, "room", func() bool { return s.Deliver(message(3, wire.AckClient, ""), &rc) == wire.None })
	rc.wait(t, 1, wire.Timeout)
	rc.wait(t, 2, wire.Timeout)
	expect(t, c, wire.TypeDeliver) // hanging up before it was written would be another outcome
	c.hangUp()                     // written, never acknowledged
	rc.wait(t, 3, wire.Unknown)
}

func TestRemoveExpired(t *testing.T) {
	var q queue
	var gone []uint64
	var want strings.Builder
	c := q.room(1000)
	for i := range 20 {
		before := len(c.buf)
		text := fmt.Sprintf("<%d>", i)
		c.buf = append(c.buf, text...)
		var expires time.Duration
		if i%3 == 0 {
			expires = time.Duration(i + 1)
		}
		if expires == 0 || expires > 10 {
			want.WriteString(text)
		}
		q.added(c, before, &pending{ref: uint64(i)}, expires)
	}
	if n := c.removeExpired(10, func(p *pending) { gone = append(gone, p.ref) }); n != 4 || fmt.Sprint(gone) != "[0 3 6 9]" {
		t.Errorf("%d gone: %v", n, gone)
	}
	if string(c.buf) != want.String() || len(c.items) != 16 || c.items[15].end != len(c.buf) || c.expires != 13 {
		t.Errorf("left %q, %d items, expires %d", c.buf, len(c.items), c.expires)
	}
}
