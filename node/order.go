package node

import (
	"strings"
	"sync/atomic"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/raftfsm"
)

// tracker remembers where the messages of one session went, by recipient: when a recipient moves, a later message must not
// overtake on the new way an earlier one whose end on the old way is not known yet. It belongs to the session's read
// goroutine, and forgets what is resolved.
type tracker struct {
	by    map[string]*track // by recipient
	last  *track            // the one that find returned last: several steps of one message ask for it
	to    string            // of last, with memory of its own
	limit int               // of by, before the resolved ones are thrown out
}

type track struct {
	to    string // the key in by
	epoch wire.Epoch
	way   way
	ctx   lane.Context // what its messages have in common on the lane
	alone uint64       // one more than what was applied when this user was seen to have no devices
	route raftfsm.Route
	at    uint64 // one more than what was applied before route was read; 0: it was not. As long as nothing was applied since, it stands
}

func (tr *track) context() *lane.Context {
	if tr == nil {
		return nil
	}
	return &tr.ctx
}

// way is how the messages to a recipient went under one epoch.
type way struct {
	node wire.NodeID
	inc  wire.Incarnation
	lane *lane.Session // of the last message; nil: to a session here
	seq  uint64
	open *atomic.Int64 // acknowledged messages that are on the fast path; nil: none ever were
	key  flowKey       // sender and recipient; set if lane is
}

// minTracks is how many recipients a tracker keeps without looking whether they are resolved.
const minTracks = 256

func newTracker() *tracker { return &tracker{limit: minTracks} }

// find returns the track of a recipient, nil if there is none.
func (t *tracker) find(to string) *track {
	if t == nil {
		return nil
	}
	if t.last != nil && t.to == to {
		return t.last
	}
	tr := t.by[to]
	if tr != nil {
		t.last, t.to = tr, tr.to
	}
	return tr
}

// lookup is the table's Lookup, spared if nothing was applied since this session last sent to that recipient.
func (t *tracker) lookup(table table, c wire.ClientID) (raftfsm.Route, bool) {
	tr := t.find(c.ID)
	if tr == nil {
		return table.Lookup(c)
	}
	applied := table.Applied() // before the look: what comes in between makes the next one look again
	if tr.at == applied+1 {
		return tr.route, true
	}
	route, found := table.Lookup(c)
	if tr.at = 0; found {
		tr.route, tr.at = route, applied+1
		tr.route.Client = wire.ClientID{} // lent by the caller
	}
	return route, found
}

// unresolved returns the way to a recipient if something on it is not resolved and next, the route to be used now, is
// another one (the zero route: there is none).
func (t *tracker) unresolved(r *router, to string, next wire.Epoch) *way {
	tr := t.find(to)
	if mutate.NoOrderHold || tr == nil || tr.epoch == next || tr.way.resolved(r) {
		return nil
	}
	w := tr.way
	return &w
}

// on returns the track of a recipient, for messages under route from now on; nil without a tracker.
func (t *tracker) on(r *router, to string, route *raftfsm.Route) *track {
	if t == nil {
		return nil
	}
	tr := t.find(to)
	if tr == nil {
		if len(t.by) >= t.limit {
			t.forget(r)
		}
		tr = &track{to: strings.Clone(to)}
		if t.by == nil {
			t.by = map[string]*track{}
		}
		t.by[tr.to] = tr
		t.last, t.to = tr, tr.to
	}
	if tr.epoch != route.Epoch {
		*tr = track{to: tr.to, epoch: route.Epoch, way: way{node: route.Node, inc: route.Incarnation}, route: tr.route, at: tr.at}
	}
	return tr
}

// forget throws out what is resolved: it would only be noted again.
func (t *tracker) forget(r *router) {
	t.last = nil
	for to, tr := range t.by {
		if tr.way.resolved(r) {
			delete(t.by, to)
		}
	}
	t.limit = max(minTracks, 2*len(t.by))
}

// follow counts p on this track until it leaves the fast path.
func (tr *track) follow(p *pending) {
	if tr == nil {
		return
	}
	if tr.way.open == nil {
		tr.way.open = new(atomic.Int64)
	}
	tr.way.open.Add(1)
	p.open.Store(tr.way.open)
}

// sent notes the last message.
func (tr *track) sent(m *wire.Forward, l *lane.Session, seq uint64) {
	if tr == nil {
		return
	}
	if tr.way.lane, tr.way.seq = l, seq; l != nil && tr.way.key.to == "" { // m lends its memory
		tr.way.key = flowKey{m.Instance, strings.Clone(m.Tenant), strings.Clone(m.To)}
	}
}

// resolved: of every message on this way it is known how it ended, or it is in a flow. What lies in the lane to an
// incarnation that has ended will be refused there, whenever it arrives; once it comes back it may not follow what is sent
// from now on, which passed remembers.
func (w *way) resolved(r *router) bool {
	if w.open != nil && w.open.Load() > 0 {
		return false
	}
	if w.lane == nil || w.lane.Settled() >= w.seq {
		return true
	}
	if !r.incarnationOver(w.node, w.inc) {
		return false
	}
	r.passed.note(passedKey{w.key, w.node, w.inc}, passing{w.lane, w.seq, everyLater})
	return true
}

// behind is what was sent before p on the fast path and has no answer yet, p itself included until it leaves that.
func (p *pending) behind() *way {
	if open := p.open.Load(); open != nil {
		return &way{open: open}
	}
	return nil
}
