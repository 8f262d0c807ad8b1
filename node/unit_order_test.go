package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// moving is alice, whose first message to bob is with another node, and bob, who has just moved here.
func moving(t *testing.T, first wire.AckMode) (g *routerRig, alice, bob *fakeSession) {
	g = newRouterRig(t)
	g.over = map[wire.NodeID]bool{}
	g.peer(2, 1<<16) // nobody takes what is sent there
	alice, bob = g.open("alice", 10), g.open("bob", 12)
	alice.order = newTracker()
	g.routes["bob"] = route("bob", 2, 11)
	g.sendMsg(alice, "bob", 1, first, patience)
	g.set(func() { g.routes["bob"] = route("bob", rigSelf, 12) })
	return g, alice, bob
}

func delivered(t *testing.T, s *fakeSession, want ...uint64) {
	t.Helper()
	untilOr(t, "the messages", func() error {
		if got := s.took(); !slices.Equal(got, want) {
			return fmt.Errorf("took %v, want %v", got, want)
		}
		return nil
	})
}

// held makes sure that nothing was delivered although the flow has had time to do so: it has looked several times.
func held(t *testing.T, g *routerRig, s *fakeSession) {
	t.Helper()
	deadline := now() + 20*holdTick
	untilOr(t, "the flow to look", func() error {
		if now() < deadline {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if got := s.took(); len(got) != 0 || g.flows.empty() {
		t.Fatalf("took %v before the earlier message was resolved", got)
	}
}

func TestOrderHoldsUntilARefusal(t *testing.T) {
	for _, later := range []wire.AckMode{wire.AckNone, wire.AckOwner, wire.AckClient} {
		g, alice, bob := moving(t, wire.AckOwner)
		g.sendMsg(alice, "bob", 2, later, patience)
		g.sendMsg(alice, "bob", 3, later, patience)
		held(t, g, bob)
		ref := g.pendings.sentTo(2, rigInc)[0].ref
		g.outcome(ref, wire.NotOwner, 2, 0)
		g.set(func() { g.over[2] = true }) // a lane acknowledges what it refused right after; this one has no other end
		delivered(t, bob, 1, 2, 3)
		alice.wants(t, "1 delivered n1")
	}
}

func TestOrderHoldsUntilAnAnswer(t *testing.T) {
	g, alice, bob := moving(t, wire.AckClient)
	g.sendMsg(alice, "bob", 2, wire.AckOwner, patience)
	held(t, g, bob)
	g.outcome(g.pendings.sentTo(2, rigInc)[0].ref, wire.Delivered, 2, 0)
	g.set(func() { g.over[2] = true }) // for the lane, as above
	alice.wants(t, "1 delivered n2")
	alice.wants(t, "2 delivered n1")
	delivered(t, bob, 2)
	untilOr(t, "the flow to end", func() error {
		if !g.flows.empty() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	g.sendMsg(alice, "bob", 3, wire.AckOwner, patience) // nothing is unresolved: at once
	alice.wants(t, "3 delivered n1")
}

func TestOrderHoldsBehindALane(t *testing.T) {
	g, alice, bob := moving(t, wire.AckNone)
	g.sendMsg(alice, "bob", 2, wire.AckNone, patience)
	held(t, g, bob)
	g.sendMsg(alice, "carol", 3, wire.AckOwner, patience) // others do not wait
	alice.wants(t, "3 offline")
	g.set(func() { g.over[2] = true }) // the old incarnation ended: what lies in its lane is refused whenever it arrives
	delivered(t, bob, 2)
	_ = g.lanes[2].Close() // the lane gives back what nobody took: too late, it would arrive after what was sent later
	alice.wants(t, "1 unknown")
	if got := bob.took(); len(got) != 1 {
		t.Errorf("took %v", got)
	}
}

// The same if what goes past was sent the same way, and was taken back when the incarnation ended.
func TestOrderOfWhatIsTakenBackFromTheEndedIncarnation(t *testing.T) {
	g, alice, bob := moving(t, wire.AckNone)
	g.set(func() { g.routes["bob"] = route("bob", 2, 11) })
	g.sendMsg(alice, "bob", 2, wire.AckOwner, patience)
	g.sendMsg(alice, "bob", 3, wire.AckNone, patience)
	g.set(func() { g.routes["bob"], g.over[2] = route("bob", rigSelf, 12), true })
	g.abandoned(2, rigInc)
	delivered(t, bob, 2)
	alice.wants(t, "2 delivered n1")
	_ = g.lanes[2].Close()
	alice.wants(t, "1 unknown")
	delivered(t, bob, 2, 3) // nothing went past the third
}

// What a lane gives back before anything later was sent is sent again.
func TestOrderKeepsWhatNothingWentPast(t *testing.T) {
	g, alice, bob := moving(t, wire.AckNone)
	g.set(func() { g.over[2] = true })
	_ = g.lanes[2].Close()
	delivered(t, bob, 1)
	g.sendMsg(alice, "bob", 2, wire.AckNone, patience)
	delivered(t, bob, 1, 2)
}

func TestOrderHoldEndsWithTheTimeOut(t *testing.T) {
	g, alice, bob := moving(t, wire.AckNone)
	g.sendMsg(alice, "bob", 2, wire.AckOwner, 100*time.Millisecond)
	alice.wants(t, "2 unavailable")
	if got := bob.took(); len(got) != 0 {
		t.Errorf("took %v", got)
	}
}

func TestTrackerForgetsWhatIsResolved(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	alice.order = newTracker()
	for i := range 5 * minTracks {
		id := fmt.Sprint("c", i)
		g.open(id, wire.Epoch(100+i))
		g.set(func() { g.routes[id] = route(id, rigSelf, wire.Epoch(100+i)) })
		g.sendMsg(alice, id, uint64(i+1), wire.AckOwner, patience)
		alice.wants(t, fmt.Sprintf("%d delivered n1", i+1))
	}
	if n := len(alice.order.by); n > 2*minTracks {
		t.Errorf("%d recipients are kept, all resolved", n)
	}
}
