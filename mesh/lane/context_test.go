package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"imroute/mesh/wire"
)

// More conversations than there are slots: idle ones give theirs away, and every message arrives as it was sent.
func TestContextsAreGivenAway(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	var want sync.Map
	rb.reply = func(_ *Session, _ uint64, m *wire.Forward) (wire.Code, uint64) {
		if from, _ := want.Load(m.Counter); m.From != from {
			t.Errorf("message %d came from %q, not %q", m.Counter, m.From, from)
		}
		return 0, 0
	}
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	link(t, a, b, forever)
	id := uint64(0)
	round := func(from, to int) {
		contexts := make([]Context, to-from)
		for i := range contexts {
			for range 3 {
				id++
				m := forward(id, 8)
				m.From = fmt.Sprint("alice", from+i)
				want.Store(id, m.From)
				for {
					_, err := a.Send(m, &contexts[i])
					if err == nil {
						break
					}
					if !errors.Is(err, ErrOverloaded) {
						t.Fatal(err)
					}
					ra.awaitAcked(t, id-1)
				}
			}
		}
		ra.awaitAcked(t, id)
	}
	id++
	want.Store(id, "alice")
	_, _ = a.Send(forward(id, 8), nil)
	ra.awaitAcked(t, id) // the peer's hello was read
	round(0, contextSlots)
	if got := a.Stats().Short; got != contextSlots {
		t.Fatalf("%d messages went short, want %d", got, contextSlots)
	}
	round(contextSlots, contextSlots+2*contextSlots)
	if got := a.Stats().Short; got < contextSlots+contextSlots {
		t.Errorf("only %d messages went short: idle slots were not given away", got)
	}
	if n := len(a.defs.slots); n > contextSlots {
		t.Errorf("%d slots", n)
	}
	if bad := rb.only("damaged"); len(bad) != 0 {
		t.Errorf("damaged: %+v", bad[:1])
	}
}

// A peer that becomes another process knows nothing of the former one's contexts.
func TestContextsEndWithThePeer(t *testing.T) {
	ra, rb := newRecorder(), newRecorder()
	a, b := newSession(t, 1, ra, nil), newSession(t, 2, rb, nil)
	stop := link(t, a, b, forever)
	ra.await(t, "the first stream", func([]event) bool { return true })
	var c Context
	send := func(from, to uint64) {
		for id := from; id <= to; id++ {
			if _, err := a.Send(forward(id, 8), &c); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(1, 1)
	ra.awaitAcked(t, 1) // the peer's hello was read
	send(2, 10)
	ra.awaitAcked(t, 10)
	stop()
	send(11, 15) // short, and lost
	rc := newRecorder()
	next := newSession(t, 3, rc, nil)
	link(t, a, next, forever)
	ra.await(t, "restart", count("restarted", 1))
	send(16, 20)
	ra.awaitAcked(t, 20)
	for i, e := range ra.only("lost") {
		if e.id != uint64(11+i) {
			t.Errorf("lost %+v", e)
		}
	}
	if got := rc.only("message"); len(got) != 5 || len(rc.only("damaged")) != 0 {
		t.Errorf("the next process got %+v", rc.all())
	}
	if a.Stats().Short < 8+5+2 {
		t.Errorf("%d went short", a.Stats().Short)
	}
}

// A peer of an earlier version says nothing of contexts and gets none.
func TestContextsNeedThePeer(t *testing.T) {
	in := goodPeer()
	var h hello
	if err := h.parse(hello{lane: 2, process: 9, life: 9}.append(nil)[headBytes : headBytes+helloBytes]); err != nil || h.flags != 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := run(t, in); errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
	r := newRecorder()
	s := newSession(t, 1, r, nil)
	var c Context
	for id := range uint64(5) {
		if _, err := s.Send(forward(id+1, 8), &c); err != nil {
			t.Fatal(err)
		}
	}
	if s.Stats().Short != 0 {
		t.Error("went short before the peer said that it understands")
	}
}

func TestMalformedContexts(t *testing.T) {
	full := func(slot uint16, id uint64) []byte {
		b := binary.BigEndian.AppendUint16(make([]byte, headBytes), slot)
		b = wire.AppendForward(b, forward(id, 8))
		putHead(b, kindDefine, len(b)-headBytes)
		return b
	}
	short := func(body ...byte) []byte {
		b := append(make([]byte, headBytes), body...)
		putHead(b, kindShort, len(body))
		return b
	}
	for name, in := range map[string][]byte{
		"a slot that was never defined":   append(goodPeer(), short(0, 0, 0, 4)...),
		"a slot beyond the others":        append(goodPeer(), full(1, 4)...),
		"a slot beyond all":               append(goodPeer(), full(contextSlots, 4)...),
		"unknown flags":                   append(append(goodPeer(), full(0, 4)...), short(0, 0, 0x80, 5)...),
		"no counter":                      append(append(goodPeer(), full(0, 4)...), short(0, 0, 0, 0xff)...),
		"no ref":                          append(append(goodPeer(), full(0, 4)...), short(0, 0, shortRef, 5)...),
		"more time than fits":             append(append(goodPeer(), full(0, 4)...), short(0, 0, shortLeft, 5, 0xff, 0xff, 0xff, 0xff, 0x7f)...),
		"nothing but the slot":            append(append(goodPeer(), full(0, 4)...), short(0, 0, 0)...),
		"a definition that is no message": append(goodPeer(), func() []byte { b := short(0, 0, 0xff, 0xff); putHead(b, kindDefine, 4); return b }()...),
	} {
		if _, err := run(t, in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	good := append(append(goodPeer(), full(0, 4)...), short(0, 0, 0, 5, 'x')...)
	if r, err := run(t, good); errors.Is(err, ErrMalformed) || len(r.only("message")) != 5 {
		t.Errorf("%v, %+v", err, r.all())
	}
}
