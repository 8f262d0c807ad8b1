package node

import (
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

// A lease is a node's time-limited right to deliver. The two halves below decide everything about it and know neither
// network nor Raft: the node holds (leaseHolder), the leader grants (grantor). Times come from now().

// leaseHolder is the node's half. Any goroutine may ask holds.
type leaseHolder struct {
	length, margin time.Duration
	ends           atomic.Int64 // holds before this moment; 0: no lease
}

// until is when a lease ends whose renewal was sent at sent and granted by a leader with leases of that length (0: it did
// not say). The right is counted from before the leader can have started counting, and no longer than the leader counts:
// a node that was configured with a longer lease would go on delivering after its end was agreed.
func (l *leaseHolder) until(sent, atLeader time.Duration) time.Duration {
	length := l.length
	if atLeader > 0 {
		length = min(length, atLeader)
	}
	return sent + length - l.margin
}

// granted takes a leader's yes to a renewal that gives the right until then.
func (l *leaseHolder) granted(ends time.Duration) {
	until := int64(ends)
	for {
		old := l.ends.Load()
		if until <= old || l.ends.CompareAndSwap(old, until) {
			return
		}
	}
}

// drop gives the right up: the incarnation ended.
func (l *leaseHolder) drop() { l.ends.Store(0) }

func (l *leaseHolder) holds(at time.Duration) bool { return int64(at) < l.ends.Load() }

// likely is holds for whoever only admits: what is admitted is checked again where it is written. It spares reading the clock
// for each message as long as the lease has plenty of time left.
func (l *leaseHolder) likely() bool {
	until := l.ends.Load()
	return until > 0 && (until-int64(lastNow()) > int64(1500*time.Millisecond) || int64(now()) < until)
}

// left is how much longer the lease holds; not positive: it does not.
func (l *leaseHolder) left(at time.Duration) time.Duration {
	return time.Duration(l.ends.Load()) - at
}

// grantor is the leader's half, made anew for each term in which its barrier was applied: nothing of an earlier term's
// timers and marks is kept.
type grantor struct {
	length, margin time.Duration
	term           uint64

	mu      sync.Mutex
	granted map[wire.NodeID]*grant
}

// grant is what the leader knows of one node's lease.
type grant struct {
	incarnation wire.Incarnation
	renewed     time.Duration // receipt of the last renewal granted
	expiring    bool          // NodeExpire was or is about to be proposed: this incarnation gets nothing any more
}

// member is a node as the applied table has it.
type member struct {
	node        wire.NodeID
	incarnation wire.Incarnation
	live        bool // not Down
	removed     bool // an operator removes it: no more grants, its lease runs out
}

func newGrantor(term uint64, length, margin time.Duration) *grantor {
	return &grantor{length: length, margin: margin, term: term, granted: map[wire.NodeID]*grant{}}
}

// observe brings the timers up to the applied table: an incarnation seen for the first time, at the start of the term or
// by a NodeUp since, is treated as renewed at this moment.
func (g *grantor) observe(at time.Duration, members []member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range members {
		g.entryLocked(at, m)
	}
}

// entryLocked returns the entry of m's incarnation; nil if a later one is known: m was read from the table before.
func (g *grantor) entryLocked(at time.Duration, m member) *grant {
	e := g.granted[m.node]
	if e == nil || e.incarnation < m.incarnation {
		e = &grant{incarnation: m.incarnation, renewed: at}
		g.granted[m.node] = e
	}
	if e.incarnation > m.incarnation {
		return nil
	}
	return e
}

// renew decides on a renewal that was received at received and whose ConfirmTerm began after that; m is the node in the
// table applied now.
func (g *grantor) renew(received time.Duration, m member, incarnation wire.Incarnation) wire.Code {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !m.live || m.incarnation != incarnation {
		return wire.BadIncarnation
	}
	e := g.entryLocked(received, m)
	switch {
	case e == nil || e.expiring:
		return wire.BadIncarnation
	case m.removed:
		return wire.Refused
	}
	e.renewed = max(e.renewed, received)
	return wire.OK
}

// expired marks and returns the live incarnations whose lease has run out at the moment at. The mark is made in the same
// step as the finding: what is returned is never granted to again, even if proposing its end fails.
func (g *grantor) expired(at time.Duration, members []member) []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []member
	for _, m := range members {
		if !m.live {
			continue
		}
		e := g.entryLocked(at, m)
		if e == nil {
			continue
		}
		if e.expiring || at-e.renewed > g.length+g.margin || mutate.ExpireEarly && at-e.renewed > g.length/3 {
			e.expiring = true
			out = append(out, m)
		}
	}
	return out
}
