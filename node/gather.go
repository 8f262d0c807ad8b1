package node

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// gather counts the receipts of one message's sessions here and answers the node that it came from: when all are there, or a
// little before that node gives up.
type gather struct {
	f     *fanout
	life  *life
	key   fanKey // its texts are its own
	from  string
	of    uint64 // the sender's instance, as in fanItem
	id    wire.MessageID
	ref   uint64 // theirs
	own   uint64 // ours, for the deadline
	reply castReply

	open    atomic.Int64  // receipts that are missing, and one for the fan-out itself
	any     atomic.Bool   // there was a session
	all     atomic.Uint32 // sessions that were there to take it
	done    atomic.Bool   // every session was told of the message
	reached atomic.Uint32
	told    atomic.Bool

	mu     sync.Mutex
	missed wire.Missed // who refused it or ended without it; its count does not matter
}

// gatherSlack is how much sooner than the sender's node this one gives up, so that its count arrives in time.
const gatherSlack = 100 * time.Millisecond

func (f *fanout) gather(m *wire.Forward, key fanKey, it *fanItem, reply castReply) *gather {
	if !f.r.pendings.reserve(0) {
		return nil
	}
	left := time.Duration(m.LeftMS) * time.Millisecond
	if left <= 0 || left > maxTimeout {
		left = maxTimeout
	}
	key.tenant, key.to = strings.Clone(key.tenant), strings.Clone(key.to)
	g := &gather{f: f, life: it.life, key: key, from: it.from, of: it.instance, id: wire.MessageID{Instance: m.Instance, Counter: m.Counter}, ref: m.Ref, reply: reply}
	g.open.Store(1)
	p := &pending{m: wire.Forward{Instance: m.Instance, Counter: m.Counter}, deadline: now() + left - min(left/8, gatherSlack), sink: g}
	f.r.pendings.add(p)
	g.own = p.ref
	return g
}

func (g *gather) expect() {
	g.open.Add(1)
	g.all.Add(1)
	if !g.any.Load() {
		g.any.Store(true)
	}
}

// refused: a session did not take it. One that is on its way in or out is nobody who was missed.
func (g *gather) refused(client wire.ClientID, code wire.Code) {
	if code == wire.NotOwner {
		g.all.Add(^uint32(0))
		g.Receipt(0, code)
		return
	}
	g.Missed(client, 0, code)
}

// Receipt takes how it ended for one session.
func (g *gather) Receipt(_ uint64, code wire.Code) {
	if code == wire.Delivered {
		g.reached.Add(1)
	}
	if g.open.Add(-1) == 0 {
		g.answer(false)
	}
}

// Missed is Receipt for a session that it was not delivered to.
func (g *gather) Missed(client wire.ClientID, ref uint64, code wire.Code) {
	g.mu.Lock()
	if !g.told.Load() { // the answer shares the ids
		g.missed.AddNamed(client.ID)
	}
	g.mu.Unlock()
	g.Receipt(ref, code)
}

// spread: every session was told of the message.
func (g *gather) spread() {
	g.done.Store(true)
	if g.open.Add(-1) == 0 {
		g.answer(false)
	}
}

// settled: the time is over, or the node ends. See pending.sink.
func (g *gather) settled(*router, *pending, wire.Code, uint64) { g.answer(true) }

// answer tells the sender's node, once. late: some sessions have not answered, and are looked for.
func (g *gather) answer(late bool) {
	g.mu.Lock()
	first := g.told.CompareAndSwap(false, true)
	missed := g.missed
	g.mu.Unlock()
	if !first {
		return
	}
	g.f.r.pendings.take(g.own)
	code, reached := wire.Delivered, g.reached.Load()
	switch {
	case !g.done.Load():
		code, missed = wire.Timeout, wire.Missed{} // it lay in the queue for too long, or still does: it concerns who is there when it is its turn
	case !g.any.Load():
		code = wire.Offline
	default:
		if missed.Count = g.all.Load() - reached; late {
			g.f.names(g, &missed)
		}
	}
	g.reply(g.ref, code, reached, missed)
}

// Names of those who have not answered are not kept for each message: they are found by asking the sessions, of which no more
// than nameLooks are asked in each nameTurn, so that the time-outs of many messages to many do not hold up those of others.
// Beyond that there are numbers without names.
const (
	nameLooks = 1 << 17
	nameTurn  = 100 * time.Millisecond
)

// names adds some of those from whom there is no receipt yet.
func (f *fanout) names(g *gather, missed *wire.Missed) {
	open := g.open.Load()
	if open <= 0 || len(missed.IDs) >= wire.MaxMissedIDs {
		return
	}
	f.looking.Lock()
	defer f.looking.Unlock()
	if at := now(); at-f.turn >= nameTurn {
		f.turn, f.looks = at, nameLooks
	}
	f.each(g.life, g.key, g.from, g.of, func(d castTarget) bool {
		if f.looks--; f.looks < 0 {
			return false
		}
		if s, ok := d.(interface{ Awaits(wire.MessageID) bool }); ok && s.Awaits(g.id) {
			missed.AddNamed(d.Client().ID)
			open--
		}
		return open > 0 && len(missed.IDs) < wire.MaxMissedIDs
	})
}
