package gateway

import (
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// testJournal is a Journal that remembers.
type testJournal struct {
	mu             sync.Mutex
	writing, told  []wire.MessageID
	moment, latest time.Duration
}

func (j *testJournal) Now() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.moment++
	return j.moment
}

func (j *testJournal) Writing(_ *Session, checked time.Duration, ids []wire.MessageID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing, j.latest = append(j.writing, ids...), checked
}

func (j *testJournal) Told(_ *Session, checked time.Duration, ids []wire.MessageID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.told, j.latest = append(j.told, ids...), checked
}

// has tells whether the journal names a message as written, and as told, so many times.
func (j *testJournal) has(counter uint64, written, told int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range j.writing {
		if id == (wire.MessageID{Instance: 7, Counter: counter}) {
			written--
		}
	}
	for _, id := range j.told {
		if id == (wire.MessageID{Instance: 7, Counter: counter}) {
			told--
		}
	}
	return written == 0 && told == 0
}

// The journal names every message that is written, before its result is known, and Delivered only where it was answered.
func TestJournal(t *testing.T) {
	var j *testJournal
	both(t, func(c *Config, _ *fakeNode) {
		j = &testJournal{}
		c.Journal = j
	}, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		var rc receipts
		for counter, ack := range []wire.AckMode{1: wire.AckNone, 2: wire.AckOwner, 3: wire.AckClient} {
			if counter == 0 {
				continue
			}
			m := message(uint64(counter), ack, "x")
			m.Ref = uint64(counter)
			if code := s.Deliver(m, &rc); code != wire.None {
				t.Fatal(code)
			}
			expect(t, c, wire.TypeDeliver)
		}
		rc.wait(t, 2, wire.Delivered)
		if !j.has(1, 1, 0) || !j.has(2, 1, 1) || !j.has(3, 1, 0) {
			t.Errorf("written %v, told %v", j.writing, j.told)
		}
		c.send(&wire.Frame{Type: wire.TypeAck, Instance: 7, ID: 3})
		rc.wait(t, 3, wire.Delivered)
		if !j.has(3, 1, 1) || j.latest == 0 {
			t.Errorf("after the client's acknowledgement: told %v", j.told)
		}
	})
}
