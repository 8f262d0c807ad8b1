package node

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// casts brings messages to whole nodes: those that hold a group, or all of them. Each gets a message once, over the lane that
// the address picks, and fans it out (fanout.go). Nothing is sent twice and nothing waits for a recipient that moves: a cast
// reaches who is there when it comes by.
type casts struct {
	r       *router
	table   castTable
	refresh func(ctx context.Context) error // returns once the table holds everything acknowledged before the call
	fan     *fanout

	mu     sync.Mutex
	flows  map[uint64]*castFlow // by the sender's instance for the address
	closed bool

	forwarded atomic.Uint64 // handed to a lane
}

// castTable is what casts reads of the state machine.
type castTable interface {
	Holders(topic wire.Topic, buf []raftfsm.Holder) []raftfsm.Holder
	Nodes() []raftfsm.Node
}

// castOrigin hears how a message to many ended.
type castOrigin interface {
	origin
	// Reached is Result with the number of recipients reached and who was not.
	Reached(counter uint64, code wire.Code, count uint32, missed wire.Missed, text string)
}

// castItem is a message to many that is not on its way yet.
type castItem struct {
	o        castOrigin
	m        wire.Forward
	deadline time.Duration
	bytes    int64
}

// castFlow keeps one sender's messages to one address in order while one of them waits for a linearizable read: who wants to
// know how many were reached means everybody who joined before. One goroutine serves it and ends with it.
type castFlow struct {
	key   uint64
	items []*castItem // guarded by casts.mu
}

// send takes a message to many; m is valid during the call only, and its Instance is the one of the sender's direct messages.
func (c *casts) send(o castOrigin, m *wire.Forward, timeout time.Duration) {
	m.Instance = wire.CastSender(m.Instance, m.Kind, m.To)
	m.LeftMS = uint32(timeout / time.Millisecond)
	c.mu.Lock()
	fl := c.flows[m.Instance]
	if m.Ack == wire.AckNone && fl == nil {
		c.mu.Unlock()
		c.dispatch(&castItem{o: o, m: *m, deadline: now() + timeout})
		return
	}
	var refusal string
	switch {
	case c.closed:
		c.mu.Unlock()
		c.r.reportCast(o, m.Counter, wire.Unknown, 0, wire.Missed{}, stopping)
		return
	case fl == nil && len(c.flows) >= maxFlows:
		refusal = "too many senders of this node wait for the table"
	case !c.r.pendings.reserve(len(m.Payload)):
		refusal = "too many messages of this node are waiting for their outcome"
	}
	if refusal != "" {
		c.mu.Unlock()
		c.r.reportCast(o, m.Counter, wire.Overloaded, 0, wire.Missed{}, refusal)
		return
	}
	it := &castItem{o: o, m: *m.Clone(), deadline: now() + timeout, bytes: int64(len(m.Payload) + pendingCost)}
	if fl != nil {
		fl.items = append(fl.items, it)
		c.mu.Unlock()
		return
	}
	fl = &castFlow{key: it.m.Instance, items: []*castItem{it}}
	c.flows[fl.key] = fl
	c.r.wg.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.r.wg.Done()
		c.run(fl)
	}()
}

// close refuses what would need a goroutine from now on.
func (c *casts) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// next takes everything that waits; nothing: the flow is gone.
func (c *casts) next(fl *castFlow) []*castItem {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := fl.items
	fl.items = nil
	if len(items) == 0 {
		delete(c.flows, fl.key)
	}
	return items
}

// run sends a flow's messages in order, all that gathered during one read behind the next. What the read cannot be had for in
// time is answered unavailable; each message has a deadline, so the flow ends.
func (c *casts) run(fl *castFlow) {
	for items := c.next(fl); len(items) > 0; items = c.next(fl) {
		for len(items) > 0 {
			acked := slices.IndexFunc(items, func(it *castItem) bool { return it.m.Ack != wire.AckNone })
			if acked < 0 {
				acked = len(items)
			}
			for _, it := range items[:acked] {
				c.leave(it)
			}
			if items = items[acked:]; len(items) == 0 {
				break
			}
			last := items[0].deadline
			for _, it := range items {
				if it.m.Ack != wire.AckNone {
					last = max(last, it.deadline)
				}
			}
			ctx, cancel := context.WithTimeout(c.r.ctx, last-now())
			err := c.refresh(ctx)
			cancel()
			if err == nil {
				for _, it := range items {
					c.leave(it)
				}
				break
			}
			items = c.overdue(items)
		}
	}
}

// leave sends an item that waited, unless its time is over.
func (c *casts) leave(it *castItem) {
	c.r.pendings.bytes.Add(-it.bytes)
	if left := it.deadline - now(); left > 0 {
		it.m.LeftMS = uint32(max(left/time.Millisecond, 1))
		c.dispatch(it)
		return
	}
	c.r.reportCast(it.o, it.m.Counter, wire.Unavailable, 0, wire.Missed{}, "nobody could say who is to be reached, within the time-out")
}

// overdue answers what a failed read leaves no time for, and returns the rest after a little pause.
func (c *casts) overdue(items []*castItem) []*castItem {
	stop := !sleep(c.r.ctx, 5*time.Millisecond)
	kept := items[:0]
	for _, it := range items {
		switch {
		case stop:
			c.r.pendings.bytes.Add(-it.bytes)
			c.r.reportCast(it.o, it.m.Counter, wire.Unknown, 0, wire.Missed{}, stopping)
		case it.deadline <= now():
			c.leave(it)
		default:
			kept = append(kept, it)
		}
	}
	return kept
}

// targets are the incarnations that a message goes to. This node counts as one as soon as it has a member, whatever its table
// says: a session that was told joined reaches itself.
func (c *casts) targets(m *wire.Forward) []raftfsm.Holder {
	if m.Kind != wire.ToGroup {
		var out []raftfsm.Holder
		for _, n := range c.table.Nodes() {
			if n.State != raftfsm.Down {
				out = append(out, raftfsm.Holder{Node: n.ID, Incarnation: n.Incarnation})
			}
		}
		return out
	}
	topic := wire.Topic{Tenant: m.Tenant, Kind: wire.TopicGroup, Name: m.To}
	out := c.table.Holders(topic, make([]raftfsm.Holder, 0, 8))
	l := c.r.life()
	if l == nil || l.topics.size(topic) == 0 || slices.ContainsFunc(out, func(h raftfsm.Holder) bool { return h.Node == c.r.self }) {
		return out
	}
	return append(out, raftfsm.Holder{Node: c.r.self, Incarnation: l.incarnation})
}

// laneKey is what picks a cast's lane: one for all messages to an address.
func laneKey(m *wire.Forward) wire.ClientID {
	return wire.ClientID{Tenant: m.Tenant, ID: strings.ReplaceAll(m.To, "/", "|")} // a slash would be taken for that of a device
}

// dispatch hands a message to every node that it concerns.
func (c *casts) dispatch(it *castItem) {
	m := &it.m
	to := c.targets(m)
	if m.Ack == wire.AckNone {
		m.Ref = 0
		var bad wire.Code
		for _, h := range to {
			if code := c.hand(m, h, nil); code != 0 && code != wire.NotOwner {
				bad = code
			}
		}
		if bad != 0 {
			c.r.reportCast(it.o, m.Counter, bad, 0, wire.Missed{}, "refused by a node on the way")
		}
		return
	}
	if len(to) == 0 { // and a linearizable read came before
		c.r.reportCast(it.o, m.Counter, wire.Offline, 0, wire.Missed{}, "")
		return
	}
	t := &tally{o: it.o, counter: m.Counter, open: len(to)}
	for _, h := range to {
		if !c.r.pendings.reserve(0) {
			t.ended(c.r, wire.Overloaded, 0)
			continue
		}
		p := &pending{m: wire.Forward{Instance: m.Instance, Counter: m.Counter}, ack: m.Ack, deadline: it.deadline, sink: t}
		c.r.pendings.add(p)
		c.r.pendings.sending(p, h.Node, h.Incarnation)
		m.Ref = p.ref
		if code := c.hand(m, h, c.localReply); code != 0 {
			c.r.pendings.refused(p.ref, h.Node)
			c.r.outcome(p.ref, code, h.Node, 0)
		}
	}
}

// localReply ends the pending of a message that this node fanned out itself.
func (c *casts) localReply(ref uint64, code wire.Code, count uint32, missed wire.Missed) {
	c.r.missing(ref, missed)
	c.r.outcome(ref, code, c.r.self, uint64(count))
}

// hand gives m to one node: 0: taken.
func (c *casts) hand(m *wire.Forward, h raftfsm.Holder, reply castReply) wire.Code {
	if m.Incarnation = h.Incarnation; m.Kind != wire.ToOthers || m.Epoch != wire.WholeSender {
		m.Epoch = 0
	}
	if h.Node == c.r.self {
		return c.arrived(m, reply)
	}
	l := c.r.lane(h.Node, laneKey(m))
	if l == nil {
		return wire.NotOwner
	}
	switch _, err := l.Send(m, nil); {
	case errors.Is(err, lane.ErrClosed):
		return wire.NotOwner
	case errors.Is(err, lane.ErrTooLarge):
		return wire.TooLarge
	case err != nil:
		return wire.Overloaded
	}
	c.forwarded.Add(1)
	return 0
}

// castReply tells the node that a message came from how many sessions were reached here, and who was not. It must not block.
type castReply func(ref uint64, code wire.Code, count uint32, missed wire.Missed)

// arrived takes a message, from here or from a lane, whose reader must not wait: it is queued for the fan-out. Code 0: taken,
// and reply (if m has a Ref) is called once.
func (c *casts) arrived(m *wire.Forward, reply castReply) wire.Code {
	l := c.r.life()
	if l == nil || l.incarnation != m.Incarnation {
		return wire.NotOwner
	}
	if m.Ack > wire.AckClient || m.From == "" || m.Instance == 0 || m.Counter == 0 {
		return wire.BadRequest
	}
	return c.fan.take(l, m, reply)
}

// message is arrived for a lane's reader.
func (c *casts) message(l *lane.Session, m *wire.Forward) wire.Code {
	return c.arrived(m, func(ref uint64, code wire.Code, count uint32, missed wire.Missed) {
		missed = missed.Fit()
		l.Say(&wire.Status{Ref: ref, Code: code, Index: uint64(count), Missed: missed.Count, MissedIDs: missed.IDs})
	})
}

// tally adds up what the nodes say that a message went to.
type tally struct {
	o       castOrigin
	counter uint64

	mu      sync.Mutex
	open    int
	count   uint64
	nobody  bool // a node has members of which none was reached
	missed  wire.Missed
	trouble wire.Code // the worst of the nodes that cannot say or refused
}

// settled takes the end of one part, see pending.sink. count is the number of recipients reached.
func (t *tally) settled(r *router, p *pending, code wire.Code, count uint64) {
	if code == wire.NotOwner && p.doubt {
		code = wire.Unknown // it had taken the message and ended without telling
	}
	t.ended(r, code, count)
}

func (t *tally) ended(r *router, code wire.Code, count uint64) {
	t.mu.Lock()
	t.open--
	t.count += count
	switch code {
	case wire.Delivered:
		t.nobody = t.nobody || count == 0
	case wire.Offline, wire.NotOwner: // nobody there, or the incarnation is over
	default:
		if rankOf(code) > rankOf(t.trouble) {
			t.trouble = code
		}
	}
	done := t.open == 0
	t.mu.Unlock()
	if !done {
		return
	}
	text := ""
	switch code = wire.Delivered; {
	case t.trouble != 0:
		code, text = t.trouble, "not every node could answer: the count is of those that did"
	case t.count == 0 && t.nobody:
		code, text = wire.Timeout, "there are recipients, but none of them was reached within the time-out"
	case t.count == 0:
		code = wire.Offline
	}
	r.reportCast(t.o, t.counter, code, uint32(min(t.count, 1<<32-1)), t.missed, text)
}

// missing adds whom a node that is about to answer could not reach.
func (t *tally) missing(m wire.Missed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open > 0 { // the answer shares the ids
		t.missed.Join(m)
	}
}

// missing passes on whom a node could not reach of those whom the message of ref concerned; its outcome follows.
func (r *router) missing(ref uint64, m wire.Missed) {
	if m.Count == 0 {
		return
	}
	if p := r.pendings.get(ref); p != nil {
		if t, ok := p.sink.(*tally); ok {
			t.missing(m)
		}
	}
}

// rankOf orders troubles: what leaves more open comes later.
func rankOf(code wire.Code) int {
	switch code {
	case wire.None:
		return 0
	case wire.Unknown:
		return 4
	case wire.Timeout:
		return 3
	case wire.Unavailable:
		return 2
	}
	return 1
}

// reportCast is report for messages to many.
func (r *router) reportCast(o castOrigin, counter uint64, code wire.Code, count uint32, missed wire.Missed, text string) {
	if int(code) < len(r.results) {
		r.results[code].Add(1)
	}
	if o != nil {
		o.Reached(counter, code, count, missed, text)
	}
}

var _ castOrigin = (*gateway.Session)(nil)

// openCasts completes the router.
func (n *Node) openCasts() {
	fan := &fanout{
		r: n.router, by: map[fanKey]*fanQueue{}, workers: max(2, runtime.GOMAXPROCS(0)),
		cast: func(m *wire.Forward, ref uint64, to gateway.Receipt) *gateway.Cast {
			return n.gateway.NewCast(m, ref, to)
		},
		expired:  func(c *gateway.Cast) bool { return n.gateway.Expired(c) },
		sessions: func(yield func(*gateway.Session) bool) { n.gateway.Sessions(yield) },
	}
	n.router.casts = &casts{r: n.router, table: n.fsm, refresh: n.refresh, fan: fan, flows: map[uint64]*castFlow{}}
	n.router.again = &lookAgain{r: n.router, refresh: n.refresh}
	n.router.services = &services{r: n.router, table: n.fsm, refresh: n.refresh, up: func(id wire.NodeID) bool { return n.mesh.Connected(id) }}
}
