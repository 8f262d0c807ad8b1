package node

import (
	"testing"
	"time"

	"imroute/mesh/wire"
)

// A node with a longer lease than its leader's stops when the leader may have ended its incarnation.
func TestLeaseIsNoLongerThanTheLeaders(t *testing.T) {
	const sent = 10 * time.Second
	for _, c := range []struct {
		own, leader, want time.Duration
	}{
		{4 * time.Second, 2 * time.Second, sent + 1750*time.Millisecond},
		{2 * time.Second, 4 * time.Second, sent + 1750*time.Millisecond},
		{2 * time.Second, 0, sent + 1750*time.Millisecond},
	} {
		h := leaseHolder{length: c.own, margin: 250 * time.Millisecond}
		until := h.until(sent, c.leader)
		h.granted(until)
		if until != c.want || !h.holds(c.want-1) || h.holds(c.want) {
			t.Errorf("own lease %v, the leader's %v: until %v, want %v", c.own, c.leader, until, c.want)
		}
	}
}

// While an operator removes a node it gets no more grants, its incarnation ends, and it does not come up anew before the
// removal had its chance.
func TestRemovedNodeGetsNothing(t *testing.T) {
	const lease, margin = 2 * time.Second, 250 * time.Millisecond
	g := newGrantor(3, lease, margin)
	m := member{node: 7, incarnation: 4, live: true}
	g.observe(0, []member{m})
	if code := g.renew(time.Second, m, 4); code != wire.OK {
		t.Fatalf("a renewal: %s", code)
	}
	m.removed = true
	if code := g.renew(1500*time.Millisecond, m, 4); code != wire.Refused {
		t.Errorf("a renewal of a node that is being removed: %s", code)
	}
	if due := g.expired(time.Second+lease+margin, []member{m}); len(due) != 0 {
		t.Errorf("it was expired before its lease was over")
	}
	if due := g.expired(time.Second+lease+margin+1, []member{m}); len(due) != 1 {
		t.Errorf("it was not expired: %v", due)
	}
}
