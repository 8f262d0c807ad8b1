package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// services brings each request to one instance of a service: to the nodes that hold it in turn, and there to the instance with
// the fewest requests open. What is refused for good reasons (nobody there any more, no lease, everybody busy) goes to the next
// node, and round again after a pause, until its time is over. What an instance's connection was given is never handed on: if
// nobody says any more how it went, the sender is told unknown.
type services struct {
	r       *router
	table   castTable
	refresh func(ctx context.Context) error // returns once the table holds everything acknowledged before the call
	up      func(wire.NodeID) bool          // there is a connection to that node
	turn    atomic.Uint64                   // among nodes
	spot    atomic.Uint64                   // among instances here

	mu     sync.Mutex
	paused int // requests with a goroutine that waits for them
	closed bool

	taken, refused atomic.Uint64 // requests that an instance here took, and that none did
}

// request is one on its way. It has one pending at a time, whose sink it is, so nobody uses it twice at the same time.
type request struct {
	s        *services
	o        origin
	m        wire.Forward // its own copy; Ack as asked for
	topic    wire.Topic
	deadline time.Duration
	slack    time.Duration // so long before the deadline it is offered to nobody a second time: the answer might be too late
	bytes    int64

	at      raftfsm.Holder // where it is
	tried   []wire.NodeID  // in this round
	proven  bool           // a linearizable read said who holds the service
	refusal wire.Code      // the last one
	pause   time.Duration
}

func serviceOf(tenant, name string) wire.Topic {
	return wire.Topic{Tenant: tenant, Kind: wire.TopicService, Name: name}
}

// send takes a request; m is valid during the call only, and its Instance is the one that the sender logged in with.
func (s *services) send(o origin, m *wire.Forward, timeout time.Duration) {
	m.Instance = wire.CastSender(m.Instance, wire.ToService, m.To)
	if !s.r.pendings.reserve(len(m.Payload)) {
		s.r.report(o, m.Counter, wire.Overloaded, "", "too many messages of this node are waiting for their outcome")
		return
	}
	q := &request{s: s, o: o, m: *m.Clone(), deadline: now() + timeout, slack: min(timeout/8, 50*time.Millisecond), bytes: int64(len(m.Payload) + pendingCost)}
	q.topic = serviceOf(q.m.Tenant, q.m.To)
	q.attempt()
}

// attempt hands the request to the next node that may have an instance, until one takes it. It does not block.
func (q *request) attempt() {
	r := q.s.r
	for {
		left := q.deadline - now()
		if left <= 0 {
			q.late()
			return
		}
		h, ok := q.next()
		if !ok {
			q.wait()
			return
		}
		q.tried = append(q.tried, h.Node)
		if h.Node != r.self && !q.s.up(h.Node) { // what waits in a lane to a node that is gone ends as unknown
			q.refusal = wire.NotReady
			continue
		}
		if !r.pendings.reserve(0) {
			q.end(wire.Overloaded, 0, "too many messages of this node are waiting for their outcome")
			return
		}
		q.at = h
		p := &pending{m: wire.Forward{Instance: q.m.Instance, Counter: q.m.Counter}, ack: wire.AckOwner, deadline: q.deadline, sink: q}
		r.pendings.add(p)
		r.pendings.sending(p, h.Node, h.Incarnation)
		m := q.m
		m.Ref, m.Incarnation, m.Epoch = p.ref, h.Incarnation, 0
		m.Ack, m.LeftMS = max(m.Ack, wire.AckOwner), uint32(max(left/time.Millisecond, 1))
		var code wire.Code
		if h.Node == r.self {
			code = q.s.arrived(&m, &r.local, nil)
		} else {
			code, _, _ = r.hand(&m, &raftfsm.Route{Node: h.Node, Incarnation: h.Incarnation}, nil, nil)
		}
		if code == 0 {
			return // it may be anybody's by now
		}
		if r.pendings.take(p.ref) == nil {
			return // its time was over in the middle of it, and that was told
		}
		if !handOn(code) {
			q.end(code, h.Node, "")
			return
		}
		q.refusal = code
	}
}

// handOn says whether a refusal leaves the request to others.
func handOn(code wire.Code) bool {
	return code == wire.NotOwner || code == wire.NotReady || code == wire.Overloaded
}

// next picks a node that was not tried in this round. This node counts as soon as it has an instance, whatever its table says.
func (q *request) next() (raftfsm.Holder, bool) {
	s := q.s
	holders := s.table.Holders(q.topic, make([]raftfsm.Holder, 0, 8))
	if l := s.r.life(); l != nil && l.topics.size(q.topic) > 0 && !slices.ContainsFunc(holders, func(h raftfsm.Holder) bool { return h.Node == s.r.self }) {
		holders = append(holders, raftfsm.Holder{Node: s.r.self, Incarnation: l.incarnation})
	}
	if len(holders) == 0 {
		return raftfsm.Holder{}, false
	}
	first := int(s.turn.Add(1) % uint64(len(holders)))
	for i := range holders {
		if h := holders[(first+i)%len(holders)]; !slices.Contains(q.tried, h.Node) {
			return h, true
		}
	}
	return raftfsm.Holder{}, false
}

// settled hears what became of the request where it is. See pending.sink.
func (q *request) settled(_ *router, p *pending, code wire.Code, _ uint64) {
	if code == wire.NotOwner && p.doubt {
		q.end(wire.Unknown, q.at.Node, "the instance, or its node, ended before it told whether it had the request")
		return
	}
	if handOn(code) {
		q.refusal = code
		q.attempt()
		return
	}
	text := ""
	if code == wire.Timeout {
		text = "handed to an instance, but nothing was heard of that within the time-out"
	}
	q.end(code, q.at.Node, text)
}

// late ends a request that nobody took in time.
func (q *request) late() {
	switch q.refusal {
	case wire.Overloaded:
		q.end(wire.Overloaded, 0, "every instance of the service is busy")
	default:
		q.end(wire.Unavailable, 0, "no instance of the service could take the request within the time-out")
	}
}

func (q *request) end(code wire.Code, owner wire.NodeID, text string) {
	r := q.s.r
	r.pendings.bytes.Add(-q.bytes)
	name := ""
	if owner != 0 {
		name = r.nameOf(owner)
	}
	if q.m.Ack == wire.AckNone && code == wire.Delivered {
		return
	}
	r.report(q.o, q.m.Counter, code, name, text)
}

// wait begins another round a little later: after a linearizable read the first time, for the table may not know of anybody yet.
func (q *request) wait() {
	s := q.s
	s.mu.Lock()
	closed, full := s.closed, s.paused >= maxFlows
	if !closed && !full {
		s.paused++
		s.r.wg.Add(1)
	}
	s.mu.Unlock()
	switch {
	case closed:
		q.end(wire.Unknown, 0, stopping)
	case full:
		q.end(wire.Overloaded, 0, "too many requests of this node wait for an instance")
	default:
		go func() {
			defer s.r.wg.Done()
			again := q.rest()
			s.mu.Lock()
			s.paused--
			s.mu.Unlock()
			if again {
				q.attempt()
			}
		}()
	}
}

// rest returns whether to try again; if not, the request was ended.
func (q *request) rest() bool {
	r := q.s.r
	if q.proven && len(q.tried) == 0 {
		q.end(wire.Offline, 0, "the service has no instance")
		return false
	}
	if q.refusal != 0 && q.deadline-now() < q.slack+q.pause {
		q.late()
		return false
	}
	if q.pause > 0 {
		if !sleep(r.ctx, min(q.pause, q.deadline-now())) {
			q.end(wire.Unknown, 0, stopping)
			return false
		}
	}
	q.pause = min(max(2*q.pause, 5*time.Millisecond), 100*time.Millisecond)
	if !q.proven {
		ctx, cancel := context.WithTimeout(r.ctx, max(q.deadline-now(), 0))
		err := q.s.refresh(ctx)
		cancel()
		switch {
		case err == nil:
			q.proven = true
		case r.ctx.Err() != nil:
			q.end(wire.Unknown, 0, stopping)
			return false
		}
	}
	q.tried = q.tried[:0]
	return true
}

// close refuses what would need a goroutine from now on.
func (s *services) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// arrived gives a request, from here or from a lane, to the instance here that has the fewest open. Code 0: taken, and receipt
// hears the rest. It does not block.
func (s *services) arrived(m *wire.Forward, receipt gateway.Receipt, hold *gateway.Held) wire.Code {
	l := s.r.life()
	if l == nil || l.incarnation != m.Incarnation {
		return wire.NotOwner
	}
	if !s.r.lease() {
		return wire.NotReady
	}
	if m.Ack > wire.AckClient || m.From == "" || m.Instance == 0 || m.Counter == 0 {
		return wire.BadRequest
	}
	topic := serviceOf(m.Tenant, m.To)
	members := l.topics.members(topic)
	id := wire.MessageID{Instance: m.Instance, Counter: m.Counter}
	until := now() + time.Duration(m.LeftMS)*time.Millisecond
	answer := wire.NotOwner
	var skip []*book
	for range members {
		best, ms := leastBusy(members, topic, int(s.spot.Add(1)%uint64(len(members))), skip)
		if best == nil {
			break
		}
		if !best.take(id, m.From, until) {
			answer = wire.Overloaded
			skip = append(skip, best)
			continue
		}
		code := ms.s.DeliverHeld(m, receipt, hold)
		if code == 0 {
			s.taken.Add(1)
			return 0
		}
		best.done(id, m.From)
		if !handOn(code) {
			return code
		}
		if code == wire.Overloaded {
			answer = code
		}
		skip = append(skip, best)
	}
	s.refused.Add(1)
	return answer
}

// lookAtMost bounds how many instances are compared for one request.
const lookAtMost = 32

// leastBusy picks the instance with the fewest requests open, of some in a row from a changing place on.
func leastBusy(members []topicMember, topic wire.Topic, from int, skip []*book) (best *book, of *memberships) {
	least, seen := 0, 0
	for i := range members {
		ms, ok := members[(from+i)%len(members)].(*memberships)
		if !ok {
			continue
		}
		b := ms.book(topic)
		if b == nil || slices.Contains(skip, b) {
			continue
		}
		if n := int(b.open.Load()); best == nil || n < least {
			best, of, least = b, ms, n
		}
		if seen++; seen == lookAtMost || least == 0 {
			break
		}
	}
	return best, of
}
