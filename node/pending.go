package node

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"imroute/mesh/wire"
)

// origin is who hears how a send ended: a client's session or a call of the API.
type origin interface {
	// Result is called at most once for a message; it must not block. owner is the name of the node that answered.
	Result(counter uint64, code wire.Code, owner, text string)
}

// pending is a message whose end is not known yet: one whose sender wants to hear of it, or one that met trouble. It owns
// its copy of the message.
type pending struct {
	ref      uint64
	m        wire.Forward
	ack      wire.AckMode // what the sender asked for; m.Ack may ask for more
	origin   origin       // nil: nobody is left to tell
	deadline time.Duration
	bytes    int
	back     givenBack // fixed before it enters a flow
	sink     sink      // not nil: who hears of its end in place of origin and flow; m is then no message

	flow atomic.Pointer[flow]         // set once, when it meets trouble
	open atomic.Pointer[atomic.Int64] // counts it while it is on the fast path, see tracker

	// guarded by the flow's mu
	out  bool // it is with an owner
	over bool

	// guarded by the shard's mu
	sent       bool // handed to a lane or a session, which has not refused it
	doubt      bool // somebody took it and ended before telling how it went: it may have been delivered
	node       wire.NodeID
	inc        wire.Incarnation
	slot       int
	prev, next *pending
}

// keepTogether is the largest payload that is copied together with the names: whoever remembers a name for longer than the
// message keeps that much with it. What is no longer than keepInside, names included, lies in the pending itself.
const (
	keepTogether = 1 << 10
	keepInside   = 192
)

// roomyPending is a pending with space for a short message.
type roomyPending struct {
	pending
	space [keepInside]byte
}

// keepPending makes a pending of a copy of m, which may share memory with a buffer of somebody else.
func keepPending(m *wire.Forward) *pending {
	names, size := len(m.Tenant)+len(m.To)+len(m.From), len(m.Payload)
	if size > keepTogether {
		size = 0
	}
	var p *pending
	var b []byte
	if names+len(m.Payload) <= keepInside {
		r := new(roomyPending)
		p, b = &r.pending, r.space[:0]
	} else {
		p, b = new(pending), make([]byte, 0, names+size)
	}
	p.m, p.ack = *m, m.Ack
	b = append(append(append(b, m.Tenant...), m.To...), m.From...)
	s := unsafe.String(unsafe.SliceData(b), names) // nobody writes to these bytes again
	p.m.Tenant, s = s[:len(m.Tenant)], s[len(m.Tenant):]
	p.m.To, p.m.From = s[:len(m.To)], s[len(m.To):]
	p.m.Payload = nil
	switch {
	case size > 0:
		p.m.Payload = slices.Clip(append(b, m.Payload...)[names:])
	case len(m.Payload) > 0:
		p.m.Payload = bytes.Clone(m.Payload)
	}
	return p
}

// sink hears the end of a part of a message to many: the answer of one node, or what became of it without one. It is called
// once, with no lock held. count is what the node said with it.
type sink interface {
	settled(r *router, p *pending, code wire.Code, count uint64)
}

// leaveFast: p is no longer on the fast path: over, or in a flow, which keeps the order from now on.
func (p *pending) leaveFast() {
	if open := p.open.Swap(nil); open != nil {
		open.Add(-1)
	}
}

// pendings holds every pending by its ref, and by its deadline in a wheel, in shards.
type pendings struct {
	limit  int64 // bytes
	bytes  atomic.Int64
	count  atomic.Int64
	shards [pendingShards]pendingShard
	wake   chan struct{} // capacity 1: the first pending after none
}

const (
	pendingShards = 16
	wheelSlots    = 1024
	wheelTick     = 16 * time.Millisecond
	pendingCost   = 256 // bytes that a pending takes beside its payload
)

type pendingShard struct {
	mu    sync.Mutex
	refs  uint64
	byRef map[uint64]*pending
	wheel [wheelSlots]*pending // first of a list each
	seen  int64                // ticks up to here were looked at
}

func newPendings(limit int64) *pendings {
	p := &pendings{limit: limit, wake: make(chan struct{}, 1)}
	for i := range p.shards {
		p.shards[i].byRef = map[uint64]*pending{}
		// Not from zero: a late status for a message of this node's former process must not find one of ours.
		p.shards[i].refs = wire.NewID() / (2 * pendingShards)
	}
	return p
}

// reserve accounts for a message of n payload bytes; false: the limit is reached and the sender must be told.
func (t *pendings) reserve(n int) bool {
	if t.bytes.Add(int64(n+pendingCost)) > t.limit {
		t.bytes.Add(-int64(n + pendingCost))
		return false
	}
	return true
}

// add gives p its ref; its bytes were reserved.
func (t *pendings) add(p *pending) {
	p.bytes = len(p.m.Payload) + pendingCost
	i := (p.m.Instance + p.m.Counter) % pendingShards
	sh := &t.shards[i]
	sh.mu.Lock()
	sh.refs++
	p.ref = sh.refs*pendingShards + i
	p.m.Ref = p.ref
	sh.byRef[p.ref] = p
	sh.link(p)
	sh.mu.Unlock()
	if t.count.Add(1) == 1 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// sending notes where p goes now; false: it is over already.
func (t *pendings) sending(p *pending, node wire.NodeID, inc wire.Incarnation) bool {
	sh := &t.shards[p.ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.byRef[p.ref] != p {
		return false
	}
	p.sent, p.node, p.inc = true, node, inc
	return true
}

// refused notes that node said no to p: it has not delivered it.
func (t *pendings) refused(ref uint64, node wire.NodeID) {
	sh := &t.shards[ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.byRef[ref]; p != nil && p.node == node && !p.doubt {
		p.sent = false
	}
}

// doubted notes that whoever had p will not say any more how it went.
func (t *pendings) doubted(ref uint64) {
	sh := &t.shards[ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.byRef[ref]; p != nil {
		p.doubt = true
	}
}

// take removes and returns the pending of ref; nil: it is over already.
func (t *pendings) take(ref uint64) *pending {
	sh := &t.shards[ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.byRef[ref]
	if p != nil {
		t.dropLocked(sh, p)
	}
	return p
}

// get returns the pending of ref without removing it.
func (t *pendings) get(ref uint64) *pending {
	sh := &t.shards[ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.byRef[ref]
}

func (t *pendings) dropLocked(sh *pendingShard, p *pending) {
	delete(sh.byRef, p.ref)
	sh.unlink(p)
	t.count.Add(-1)
	t.bytes.Add(-int64(p.bytes))
}

// expired removes and returns what is past its deadline at the moment at; the slots passed since last are looked at.
func (t *pendings) expired(last, at time.Duration) (out []*pending) {
	from, to := int64(last/wheelTick), int64(at/wheelTick)
	from = max(from, to-wheelSlots+1)
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		sh.seen = max(sh.seen, to)
		for slot := from; slot <= to; slot++ {
			for p := sh.wheel[slot%wheelSlots]; p != nil; {
				next := p.next
				if p.deadline <= at {
					t.dropLocked(sh, p)
					out = append(out, p)
				}
				p = next
			}
		}
		sh.mu.Unlock()
	}
	return out
}

// sentTo returns, without removing them, the pendings that were last sent to this incarnation of a node.
func (t *pendings) sentTo(node wire.NodeID, inc wire.Incarnation) (out []*pending) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for _, p := range sh.byRef {
			if p.sent && p.node == node && p.inc <= inc {
				out = append(out, p)
			}
		}
		sh.mu.Unlock()
	}
	return out
}

// incarnation is the one that p was last sent to.
func (t *pendings) incarnation(p *pending) wire.Incarnation {
	sh := &t.shards[p.ref%pendingShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return p.inc
}

// all returns every pending; for the end of the node.
func (t *pendings) all() (out []*pending) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for _, p := range sh.byRef {
			out = append(out, p)
		}
		sh.mu.Unlock()
	}
	return out
}

// link puts p in the slot behind its deadline, so that it is over when the slot is passed; but in none that was passed, since
// that would come round again only after a whole turn.
func (sh *pendingShard) link(p *pending) {
	p.slot = int(max(int64(p.deadline/wheelTick), sh.seen)+1) % wheelSlots
	p.prev, p.next = nil, sh.wheel[p.slot]
	if p.next != nil {
		p.next.prev = p
	}
	sh.wheel[p.slot] = p
}

func (sh *pendingShard) unlink(p *pending) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		sh.wheel[p.slot] = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}
