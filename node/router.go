package node

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// table is what the router reads of the state machine.
type table interface {
	Lookup(wire.ClientID) (raftfsm.Route, bool)
	Applied() uint64
	WaitApplied(ctx context.Context, index uint64) error
	Devices(user wire.ClientID, buf []raftfsm.Device) []raftfsm.Device
	Incarnation(wire.NodeID) (inc wire.Incarnation, live bool)
}

// session is what the router and the takeover need of a client's session; *gateway.Session is one.
type session interface {
	origin
	Client() wire.ClientID
	ID() wire.SessionID
	Open(wire.Epoch)
	DeliverHeld(m *wire.Forward, to gateway.Receipt, hold *gateway.Held) wire.Code
	Close(code wire.Code, text string)
	Fenced() <-chan struct{}
}

// router brings a message to its recipient's session. The fast path is one look-up and one hop: the local session, or
// the lane to the owner. Whatever does not go through at once becomes a pending in a flow (flow.go), where alone
// consistency is paid for.
type router struct {
	self  wire.NodeID
	table table
	read  func(ctx context.Context, c wire.ClientID) (located, error) // linearizable
	life  func() *life                                                // this node's present incarnation; nil: none
	lease func() bool
	// reaches says that there is a connection to a node, or that it is this one. nil: always.
	reaches func(wire.NodeID) bool
	lane    func(owner wire.NodeID, to wire.ClientID) *lane.Session // nil: not a member
	nameOf  func(wire.NodeID) string
	nacked  func(wire.Code)

	undelivered func(m *wire.Forward, code wire.Code) // hears of messages to one client that ended otherwise than delivered; nil: nobody

	casts    *casts
	services *services
	again    *lookAgain
	pendings *pendings
	flows    flows
	passed   passed
	ctx      context.Context // of the flows
	wg       sync.WaitGroup

	local localReceipt

	results   [1024]atomic.Uint64 // by code
	forwarded atomic.Uint64       // handed to a lane
	delivered atomic.Uint64       // handed to a session here, by a sender here
	arrived   atomic.Uint64       // handed to a session here, from a lane
}

// send routes m, which is valid during the call only; m.Ack is what the sender asked for and o hears the outcome. t is
// the sending session's, nil for senders whose messages have no order.
func (r *router) send(o origin, t *tracker, m *wire.Forward, timeout time.Duration) {
	m.LeftMS = uint32(timeout / time.Millisecond)
	route, found := t.lookup(r.table, wire.ClientID{Tenant: m.Tenant, ID: m.To})
	hold := t.unresolved(r, m.To, route.Epoch)
	// Asked after hold: what has just been resolved may be in a flow because of that.
	fast := found && hold == nil && (r.flows.empty() || !r.flows.has(m))
	if fast && t == nil && m.Ack != wire.AckNone {
		// What waits in the lane to a node that cannot be reached may go out at any moment: if it does not in time, nobody can say
		// more than "timeout". A flow asks first whether the recipient is still there. Sessions do not look: they send too often.
		fast = r.nearby(route.Node)
	}
	var p *pending
	if m.Ack != wire.AckNone {
		if p = r.newPending(o, m, timeout); p == nil {
			return
		}
	}
	if fast && r.sendFast(o, t, m, &route, p) {
		return
	}
	if p == nil {
		if p = r.newPending(o, m, timeout); p == nil {
			return
		}
	}
	r.flows.add(r, p, 0, hold)
}

// nearby says that what is sent to a node now does not wait for a connection.
func (r *router) nearby(node wire.NodeID) bool { return r.reaches == nil || r.reaches(node) }

// sendFast tries the route at once; p is the message's pending if its sender wants an answer. false: not taken, look again.
func (r *router) sendFast(o origin, t *tracker, m *wire.Forward, route *raftfsm.Route, p *pending) bool {
	tr := t.on(r, m.To, route)
	if p == nil {
		code, l, seq := r.hand(m, route, nil, tr.context())
		switch code {
		case 0:
			tr.sent(m, l, seq)
		case wire.NotOwner, wire.NotReady:
			return false
		default:
			r.report(o, m.Counter, code, "", "")
		}
		return true
	}
	if !r.pendings.sending(p, route.Node, route.Incarnation) {
		return true // its time is over already
	}
	tr.follow(p)
	m.Ref = p.ref
	code, l, seq := r.hand(m, route, &r.local, tr.context())
	switch code {
	case 0:
		tr.sent(m, l, seq)
	case wire.NotOwner, wire.NotReady:
		r.pendings.refused(p.ref, route.Node)
		return false
	default:
		r.finish(p.ref, code, route.Node, "")
	}
	return true
}

// newPending copies m; nil: the limit is reached and o was told.
func (r *router) newPending(o origin, m *wire.Forward, timeout time.Duration) *pending {
	if !r.pendings.reserve(len(m.Payload)) {
		r.report(o, m.Counter, wire.Overloaded, "", "too many messages of this node are waiting for their outcome")
		return nil
	}
	p := keepPending(m)
	p.origin, p.deadline = o, now()+timeout
	r.pendings.add(p)
	return p
}

// hand gives m to the session here or to the owner's lane, and says where there. 0: taken; NotOwner, NotReady: look again;
// else it is over. c is the context of messages from the same session under the same route, nil for a single one.
func (r *router) hand(m *wire.Forward, route *raftfsm.Route, receipt gateway.Receipt, c *lane.Context) (code wire.Code, l *lane.Session, seq uint64) {
	m.Incarnation, m.Epoch = route.Incarnation, route.Epoch
	if route.Node == r.self {
		if code = r.deliver(m, receipt, nil); code == 0 {
			r.delivered.Add(1)
		}
		return code, nil, 0
	}
	to := wire.ClientID{Tenant: m.Tenant, ID: m.To}
	if m.Kind == wire.ToService {
		to.ID = m.From // no order is to be kept, and one service may have all the traffic
	}
	if m.Re != 0 {
		c = nil // messages that share a context differ in their ids only
	}
	if l = r.lane(route.Node, to); l == nil {
		return wire.NotOwner, nil, 0
	}
	seq, err := l.Send(m, c)
	switch {
	case errors.Is(err, lane.ErrClosed): // the peer was removed, or this node stops
		return wire.NotOwner, nil, 0
	case errors.Is(err, lane.ErrTooLarge):
		return wire.TooLarge, nil, 0
	case err != nil:
		return wire.Overloaded, nil, 0
	}
	r.forwarded.Add(1)
	return 0, l, seq
}

// incarnationOver: the table says that nothing is owned by that incarnation any more.
func (r *router) incarnationOver(node wire.NodeID, inc wire.Incarnation) bool {
	current, live := r.table.Incarnation(node)
	return current > inc || current == inc && !live || current == 0
}

// deliver is the owner's side, for messages from here and from peers: lease, incarnation, session and epoch are checked.
func (r *router) deliver(m *wire.Forward, receipt gateway.Receipt, hold *gateway.Held) wire.Code {
	l := r.life()
	if l == nil || l.incarnation != m.Incarnation {
		return wire.NotOwner
	}
	if !r.lease() && !mutate.NoLeaseCheckBefore {
		return wire.NotReady
	}
	s := remembered(m)
	if s == nil {
		var ok bool
		if s, ok = l.claims.find(wire.ClientID{Tenant: m.Tenant, ID: m.To}, m.Epoch); !ok {
			return wire.NotOwner
		}
		if m.Memo != nil {
			m.Memo.V = s
		}
	}
	code := s.DeliverHeld(m, receipt, hold)
	if code == wire.NotOwner && m.Memo != nil {
		m.Memo.V = nil // it is over: do not hold it
	}
	return code
}

// remembered is the session that an earlier message of the same context went to; nil: not known. It may have been given up
// since, and refuses then by itself; it never owns that epoch again.
func remembered(m *wire.Forward) session {
	if m.Memo == nil {
		return nil
	}
	s, _ := m.Memo.V.(session)
	return s
}

// finish ends the pending of ref and tells its sender, once.
func (r *router) finish(ref uint64, code wire.Code, owner wire.NodeID, text string) {
	p := r.pendings.take(ref)
	if p == nil {
		return
	}
	r.ended(p, code, owner, text)
}

// ended tells the sender of p, which is out of the pendings, and its flow.
func (r *router) ended(p *pending, code wire.Code, owner wire.NodeID, text string) {
	if p.sink != nil {
		p.sink.settled(r, p, code, 0)
		return
	}
	if r.undelivered != nil && code != wire.Delivered {
		r.undelivered(&p.m, code)
	}
	if p.ack != wire.AckNone || code != wire.Delivered {
		name := ""
		if owner != 0 {
			name = r.nameOf(owner)
		}
		r.report(p.origin, p.m.Counter, code, name, text)
	}
	p.leaveFast()
	if f := p.flow.Load(); f != nil {
		f.ended(p)
	}
}

func (r *router) report(o origin, counter uint64, code wire.Code, owner, text string) {
	if int(code) < len(r.results) {
		r.results[code].Add(1)
	}
	if o != nil {
		o.Result(counter, code, owner, text)
	}
}

// outcome takes what an owner said of a pending: an end, or a reason to look again. owner 0: nobody said it.
func (r *router) outcome(ref uint64, code wire.Code, owner wire.NodeID, index uint64) {
	if owner != 0 && (code == wire.NotOwner || code == wire.NotReady) {
		switch {
		case mutate.NackIsDelivered:
			code = wire.Delivered
		case mutate.NackIsOffline:
			code = wire.Offline
		case mutate.NackIgnored:
			r.pendings.take(ref)
			return
		}
	}
	if code != wire.NotOwner && code != wire.NotReady {
		switch p := r.pendings.take(ref); {
		case p == nil:
		case p.sink != nil:
			p.sink.settled(r, p, code, index)
		default:
			r.ended(p, code, owner, "")
		}
		return
	}
	r.pendings.refused(ref, owner)
	if p := r.pendings.get(ref); p != nil {
		if p.sink != nil { // a message to many is not sent again
			r.finish(ref, code, owner, "")
			return
		}
		r.flows.add(r, p, index, p.behind())
	}
}

// counts is how many sends ended how.
func (r *router) counts() map[wire.Code]uint64 {
	out := map[wire.Code]uint64{}
	for code := range r.results {
		if v := r.results[code].Load(); v != 0 {
			out[wire.Code(code)] = v
		}
	}
	return out
}

// localReceipt takes the receipts of sessions here for messages of senders here.
type localReceipt struct{ r *router }

func (l *localReceipt) Receipt(ref uint64, code wire.Code) {
	l.r.outcome(ref, code, l.r.self, l.r.table.Applied())
}

// inbound is what the router keeps for a lane: it sends the receipts of sessions here back to the node they came from, and
// collects the sessions whose writers start when everything that came together is handed over.
type inbound struct {
	r    *router
	lane *lane.Session
	held gateway.Held // for the lane's reader

	// refused holds whose messages are refused until their sender begins anew. A session may open between two of them: the
	// second one, which was on its way when the first was refused, would be taken before the first comes again.
	refused map[refusal]struct{}
}

// refusal is a sender and a recipient, whom an epoch names.
type refusal struct {
	instance uint64
	epoch    wire.Epoch
}

// maxRefusals bounds what is remembered for a lane. Beyond it the order is left to the recipient's session, which refuses what
// comes too late.
const maxRefusals = 16 << 10

// mustWait tells whether m may not be taken, because an earlier one of its sender was refused and has not come again.
func (in *inbound) mustWait(m *wire.Forward) bool {
	if len(in.refused) == 0 {
		return false
	}
	k := refusal{m.Instance, m.Epoch}
	if _, ok := in.refused[k]; !ok {
		return false
	}
	if m.Again != 0 {
		delete(in.refused, k)
	}
	return m.Again == 0
}

func (in *inbound) refuse(m *wire.Forward) {
	switch {
	case in.refused == nil:
		in.refused = map[refusal]struct{}{}
	case len(in.refused) >= maxRefusals:
		clear(in.refused)
	}
	in.refused[refusal{m.Instance, m.Epoch}] = struct{}{}
}

func (l *inbound) Receipt(ref uint64, code wire.Code) {
	index := uint64(0)
	if code == wire.NotOwner {
		index = l.r.table.Applied()
	}
	l.lane.SendStatus(ref, code, index)
}

// The lanes' handler: calls come in order from each lane's reader and must not block.

// Message takes a message of a peer for a session here.
func (r *router) Message(l *lane.Session, _ uint64, m *wire.Forward) (wire.Code, uint64) {
	if m.Kind != wire.ToClient && m.Kind != wire.ToService {
		code := wire.BadRequest
		if m.Kind.Cast() {
			code = r.casts.message(l, m)
		}
		if code != 0 {
			r.nacked(code)
		}
		return code, 0
	}
	in, ok := l.Kept.(*inbound)
	if !ok {
		in = &inbound{r: r, lane: l}
		l.Kept = in
	}
	code := wire.NotOwner
	switch {
	case m.Kind == wire.ToService:
		code = r.services.arrived(m, in, &in.held)
	case !in.mustWait(m):
		code = r.deliver(m, in, &in.held)
	}
	if code != 0 {
		if m.Kind == wire.ToClient && (code == wire.NotOwner || code == wire.NotReady) {
			in.refuse(m)
		}
		r.nacked(code)
		return code, r.table.Applied()
	}
	r.arrived.Add(1)
	return 0, 0
}

// Handled lets the sessions write that were given messages.
func (r *router) Handled(l *lane.Session) {
	if in, ok := l.Kept.(*inbound); ok {
		in.held.Release()
	}
}

// Status takes what a peer says of a message of ours.
func (r *router) Status(l *lane.Session, st wire.Status, m *wire.Forward) {
	if st.Ref != 0 {
		r.missing(st.Ref, wire.Missed{Count: st.Missed, IDs: st.MissedIDs})
		r.outcome(st.Ref, st.Code, l.Peer(), st.Index)
		return
	}
	if m != nil {
		r.refusedOneWay(m, st.Code, st.Index, false, givenBack{l, st.Seq})
	}
}

// refusedOneWay looks again for a message without acknowledgement that the owner refused or never took.
func (r *router) refusedOneWay(m *wire.Forward, code wire.Code, index uint64, doubt bool, back givenBack) {
	o := r.senderOf(m)
	if m.Kind != wire.ToClient {
		if code != wire.NotOwner && code != wire.NotReady {
			r.report(o, m.Counter, code, "", "")
		}
		return
	}
	if code != wire.NotOwner && code != wire.NotReady {
		r.report(o, m.Counter, code, "", "")
		return
	}
	m.Ref = 0
	if p := r.newPending(o, m, time.Duration(m.LeftMS)*time.Millisecond); p != nil {
		if doubt {
			r.pendings.doubted(p.ref)
		}
		p.back = back
		r.flows.add(r, p, index, p.behind())
	}
}

// senderOf finds the session that sent m; nil if it is gone.
func (r *router) senderOf(m *wire.Forward) origin {
	l := r.life()
	if l == nil {
		return nil
	}
	from := wire.ClientID{Tenant: m.Tenant, ID: m.From}
	s, ok := l.claims.current(from)
	if !ok || m.Kind == wire.ToService || wire.CastSender(wire.Sender(from, s.ID().Instance), m.Kind, m.To) != m.Instance {
		return nil
	}
	return s
}

// Acked has nothing to do here: a lane keeps what is unacknowledged itself.
func (r *router) Acked(*lane.Session, uint64) {}

// Lost gets back a message that the peer's former process may or may not have taken.
func (r *router) Lost(l *lane.Session, seq uint64, m *wire.Forward) {
	if m.Ref != 0 {
		r.pendings.doubted(m.Ref)
		r.outcome(m.Ref, wire.NotOwner, 0, 0)
		return
	}
	r.refusedOneWay(m, wire.NotOwner, 0, true, givenBack{l, seq})
}

// PeerRestarted sends again what the peer's former process had taken without telling how it ended.
func (r *router) PeerRestarted(l *lane.Session) { r.abandoned(l.Peer(), ^wire.Incarnation(0)) }

// abandoned: no answer will come from incarnations of node up to inc.
func (r *router) abandoned(node wire.NodeID, inc wire.Incarnation) {
	for _, p := range r.pendings.sentTo(node, inc) {
		if l := r.lane(node, wire.ClientID{Tenant: p.m.Tenant, ID: p.m.To}); l != nil {
			// What it was sent behind may still lie in the lane.
			if st := l.Stats(); st.AckedSeq < st.LastSeq {
				r.passed.note(passedKey{flowKey{p.m.Instance, strings.Clone(p.m.Tenant), strings.Clone(p.m.To)}, node, r.pendings.incarnation(p)}, passing{l, st.LastSeq, p.m.Counter})
			}
		}
		r.pendings.doubted(p.ref)
		r.outcome(p.ref, wire.NotOwner, 0, 0)
	}
}

// stopping is what senders are told whose messages a node that ends still had.
const stopping = "this node is stopping"

// run ends what is past its deadline, until ctx ends; then it ends the flows.
func (r *router) run(ctx context.Context) {
	defer r.wg.Wait()
	ticker := time.NewTicker(wheelTick)
	defer ticker.Stop()
	for last := now(); ; {
		if r.pendings.count.Load() == 0 {
			ticker.Stop() // an idle node does not tick
			select {
			case <-r.pendings.wake:
			case <-ctx.Done():
			}
			ticker.Reset(wheelTick)
		}
		select {
		case <-ctx.Done():
			r.flows.close()
			if r.casts != nil {
				r.casts.close()
				r.casts.fan.close()
				r.again.close()
				r.services.close()
			}
			for _, p := range r.pendings.all() {
				r.finish(p.ref, wire.Unknown, 0, stopping)
			}
			return
		case <-ticker.C:
		}
		at := now()
		for _, p := range r.pendings.expired(last, at) {
			code, text := wire.Unavailable, "no node could say where the recipient is, within the time-out"
			if p.sent {
				code, text = wire.Timeout, "sent, but no answer came within the time-out: it may have been delivered"
			}
			r.ended(p, code, 0, text)
		}
		last = at
	}
}
