package lane

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// script is a stream that says what a peer made up and swallows what it is told.
type script struct {
	io.Reader
	written int
}

func (s *script) Write(b []byte) (int, error)    { s.written += len(b); return len(b), nil }
func (*script) Close() error                     { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// goodPeer is what an honest peer would say.
func goodPeer(statuses ...wire.Status) []byte {
	b := hello{lane: 2, process: 9, life: 9}.append(nil)
	b = appendResume(b, 1, 1)
	for id := range uint64(3) {
		m := wire.AppendForward(make([]byte, headBytes), forward(id+1, 8))
		putHead(m, kindMessage, len(m)-headBytes)
		b = append(b, m...)
	}
	for _, st := range statuses {
		r := wire.AppendStatus(make([]byte, headBytes), &st)
		putHead(r, kindStatus, len(r)-headBytes)
		b = append(b, r...)
	}
	return b
}

func run(t testing.TB, in []byte) (*recorder, error) {
	r := newRecorder()
	r.reply = func(_ *Session, seq uint64, m *wire.Forward) (wire.Code, uint64) {
		return wire.Code(seq % 2), 0
	}
	cfg := Config{Lane: 2, Process: 1, Handler: plain{r}}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(5) {
		_, _ = s.Send(forward(id+1, 8), nil)
	}
	err = s.Attach(context.Background(), &script{Reader: bytes.NewReader(in)}, false)
	if cerr := s.Close(); cerr != nil {
		t.Error(cerr)
	}
	if st := s.Stats(); st.QueuedBytes != 0 || st.StatusBytes != 0 || st.Attached {
		t.Errorf("after Close: %+v", st)
	}
	return r, err
}

// plain does not look into payloads.
type plain struct{ *recorder }

func (p plain) Message(s *Session, seq uint64, m *wire.Forward) (wire.Code, uint64) {
	p.add(event{what: "message", seq: seq, id: m.Counter})
	return p.reply(s, seq, m)
}

func TestMalformed(t *testing.T) {
	good := goodPeer(wire.Status{Ref: 7, Code: wire.Delivered})
	if r, err := run(t, good); !errors.Is(err, io.EOF) || len(r.only("message")) != 3 || len(r.only("status")) != 1 {
		t.Fatalf("an honest peer: %v, %+v", err, r.all())
	}
	record := func(kind byte, body ...byte) []byte {
		b := make([]byte, headBytes, headBytes+len(body))
		putHead(b, kind, len(body))
		return append(b, body...)
	}
	head := func(kind byte, n int) []byte {
		b := make([]byte, headBytes)
		putHead(b, kind, n)
		return b
	}
	for name, in := range map[string][]byte{
		"no hello":           appendResume(nil, 1, 1),
		"foreign magic":      record(kindHello, bytes.Repeat([]byte{1}, helloBytes)...),
		"other lane":         hello{lane: 3, process: 9, life: 9}.append(nil),
		"no process":         hello{lane: 2, life: 9}.append(nil),
		"no resume":          append(hello{lane: 2, process: 9, life: 9}.append(nil), appendAck(nil, 0, 0)...),
		"resume from zero":   appendResume(hello{lane: 2, process: 9, life: 9}.append(nil), 0, 1),
		"two hellos":         append(bytes.Clone(good), hello{lane: 2, process: 9, life: 9}.append(nil)...),
		"two resumes":        appendResume(bytes.Clone(good), 4, 2),
		"unknown kind":       append(bytes.Clone(good), record(99)...),
		"short ack":          append(bytes.Clone(good), record(kindAck, 1, 2)...),
		"ack of the future":  appendAck(bytes.Clone(good), 6, 0),
		"status ack too far": appendAck(bytes.Clone(good), 0, 1000),
		"message too large":  append(bytes.Clone(good), head(kindMessage, wire.MaxPayload+wire.MaxHeader+1)...),
		"status too large":   append(bytes.Clone(good), head(kindStatus, maxStatus+1)...),
		"damaged message":    append(bytes.Clone(good), record(kindMessage, 0xff)...),
		"damaged status":     append(bytes.Clone(good), record(kindStatus, 0xa0, 0)...),
		"nack of the future": goodPeer(wire.Status{Seq: 6, Code: wire.NotOwner}),
		"knows too much":     hello{lane: 2, process: 9, life: 9, known: 1, message: 9}.append(nil),
	} {
		_, err := run(t, in)
		if name == "knows too much" { // it means another session than ours: of no consequence
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add(goodPeer())
	f.Add(appendAck(goodPeer(wire.Status{Seq: 2, Ref: 2, Code: wire.NotOwner, Index: 9}, wire.Status{Ref: 3, Code: wire.Delivered}), 3, 1))
	f.Add(hello{lane: 2, process: 9, life: 9, known: 5, message: 1, status: 2}.append(nil))
	f.Add([]byte{kindMessage, 0xff, 0xff, 0xff})
	f.Add(append(goodPeer(), kindDefine, 0, 0, 4, 0, 0, 0xa1, 0))
	f.Add(append(goodPeer(), kindShort, 0, 0, 4, 0, 0, 0, 4))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := run(t, in)
		if err == nil {
			t.Fatal("a stream cannot end without a reason")
		}
		seq, acked := uint64(0), uint64(0)
		open := map[uint64]bool{1: true, 2: true, 3: true, 4: true, 5: true}
		for _, e := range r.all() {
			switch e.what {
			case "message":
				if seq != 0 && e.seq != seq+1 {
					t.Fatalf("message %d behind %d", e.seq, seq)
				}
				seq = e.seq
			case "acked":
				if e.seq <= acked || e.seq > 5 {
					t.Fatalf("acked %d behind %d", e.seq, acked)
				}
				acked = e.seq
				for id := range open {
					if id <= acked {
						delete(open, id)
					}
				}
			case "lost":
				if !open[e.seq] {
					t.Fatalf("message %d is lost, but was taken", e.seq)
				}
				delete(open, e.seq)
			}
		}
		if len(open) != 0 {
			t.Fatalf("nobody was told of %v", open)
		}
	})
}

// A peer that goes back further than it must is heard once.
func TestDuplicatesAreDropped(t *testing.T) {
	r := newRecorder()
	s := newSession(t, 1, r, nil)
	for range 3 {
		in := goodPeer(wire.Status{Ref: 7, Code: wire.Delivered}, wire.Status{Ref: 8, Code: wire.Offline})
		if err := s.Attach(context.Background(), &script{Reader: bytes.NewReader(in)}, true); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if m, st := len(r.only("message")), len(r.only("status")); m != 3 || st != 2 {
		t.Errorf("%d messages and %d statuses, want 3 and 2", m, st)
	}
	if d := s.Stats().Duplicates; d != 10 {
		t.Errorf("%d duplicates counted, want 10", d)
	}
	gap := appendResume(hello{lane: 2, process: 9, life: 9}.append(nil), 5, 1)
	if err := s.Attach(context.Background(), &script{Reader: bytes.NewReader(gap)}, true); !errors.Is(err, ErrMalformed) {
		t.Errorf("a gap: %v", err)
	}
}
