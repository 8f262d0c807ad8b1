package node

import (
	"errors"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// What a back end sends to a node that cannot be reached is not left to the lane: without a quorum nobody can say more than
// unavailable, from the first message on, and with one it goes out once the recipient is proven to be there.
func TestRouterUnreachableOwner(t *testing.T) {
	g := newRouterRig(t)
	l2 := g.peer(2, 1<<20)
	up := true
	g.reaches = func(wire.NodeID) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return up
	}
	g.set(func() { g.routes["bob"] = route("bob", 2, 9) })
	said := make(chan apiResult, 1)
	send := func(counter uint64, timeout time.Duration) {
		g.send(&apiOrigin{done: said}, nil, &wire.Forward{To: "bob", From: "ops", Instance: 5, Counter: counter, Ack: wire.AckOwner, Payload: []byte("x")}, timeout)
	}
	send(1, 50*time.Millisecond)
	if r := <-said; r.code != wire.Timeout || l2.Stats().LastSeq != 1 {
		t.Errorf("a node that is connected and says nothing: %v, want timeout, since it may have it", r.code)
	}
	truth := g.truth
	g.set(func() {
		up = false
		g.truth = func(string) (located, error) { return located{}, &wire.Error{Code: wire.Unavailable} }
	})
	for counter := range uint64(2) {
		send(2+counter, 50*time.Millisecond)
		if r := <-said; r.code != wire.Unavailable || l2.Stats().LastSeq != 1 {
			t.Errorf("without a quorum: %v, %d in the lane, want unavailable and no more than before", r.code, l2.Stats().LastSeq)
		}
	}
	g.set(func() { g.truth = truth })
	send(9, patience)
	untilOr(t, "it is in the lane", func() error {
		if l2.Stats().LastSeq != 2 {
			return errors.New("it is not")
		}
		return nil
	})
}
