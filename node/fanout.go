package node

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// fanout delivers messages to the many sessions here that they concern. What arrives is queued, bounded in bytes, so that
// nobody waits; messages to one address keep their order, and addresses take turns, one message each, on a few goroutines that
// exist only while there is something to do.
type fanout struct {
	r        *router
	cast     func(m *wire.Forward, ref uint64, to gateway.Receipt) *gateway.Cast
	expired  func(*gateway.Cast) bool
	sessions func(yield func(*gateway.Session) bool)
	workers  int

	mu      sync.Mutex
	by      map[fanKey]*fanQueue
	ready   []*fanQueue // have messages and no worker
	running int
	bytes   int
	closed  bool

	arrived, reached, refused atomic.Uint64 // messages taken, sessions that took one, messages refused for want of room
}

// fanKey is an address.
type fanKey struct {
	tenant, to string
	kind       wire.Kind
}

type fanQueue struct {
	key   fanKey
	items []*fanItem
	bytes int
}

type fanItem struct {
	cast     *gateway.Cast
	life     *life
	from     string // others: who sent it, and under what instance
	instance uint64
	gather   *gather // nil: nobody wants to know
	bytes    int
}

const (
	fanBytes      = 64 << 20 // of all queues together
	fanQueueBytes = 16 << 20 // of one address
	fanItemCost   = 512      // counted for each message on top of its bytes
	fanYield      = 64       // sessions between two chances for their writers to run
)

// take queues a message for the sessions here, see casts.arrived.
func (f *fanout) take(l *life, m *wire.Forward, reply func(ref uint64, code wire.Code, count uint32)) wire.Code {
	bytes := len(m.Payload) + fanItemCost
	key := fanKey{m.Tenant, m.To, m.Kind}
	f.mu.Lock()
	q := f.by[key]
	if f.closed || f.bytes+bytes > fanBytes || q != nil && q.bytes+bytes > fanQueueBytes {
		f.mu.Unlock()
		f.refused.Add(1)
		return wire.Overloaded
	}
	f.bytes += bytes // reserved while the message is copied without the lock
	f.mu.Unlock()
	it := &fanItem{life: l, from: strings.Clone(m.From), instance: m.Instance, bytes: bytes}
	var to gateway.Receipt
	if m.Ack != wire.AckNone && m.Ref != 0 && reply != nil {
		if it.gather = f.gather(m, reply); it.gather == nil {
			f.mu.Lock()
			f.bytes -= bytes
			f.mu.Unlock()
			f.refused.Add(1)
			return wire.Overloaded
		}
		to = it.gather
	} else if m.Ack != wire.AckNone {
		plain := *m
		plain.Ack = wire.AckNone
		m = &plain
	}
	it.cast = f.cast(m, 0, to)
	f.arrived.Add(1)
	f.mu.Lock()
	q = f.by[key]
	idle := q == nil
	if idle {
		key.tenant, key.to = strings.Clone(key.tenant), strings.Clone(key.to)
		q = &fanQueue{key: key}
		f.by[key] = q
		f.ready = append(f.ready, q)
	}
	q.items = append(q.items, it)
	q.bytes += bytes
	start := idle && f.running < f.workers && !f.closed
	if start {
		f.running++
		f.r.wg.Add(1)
	}
	f.mu.Unlock()
	if start {
		go func() {
			defer f.r.wg.Done()
			f.work()
		}()
	}
	return 0
}

// close takes nothing more; what is queued is still delivered to sessions that are there.
func (f *fanout) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// queued is how many bytes wait.
func (f *fanout) queued() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// work delivers one message of each queue in turn until nothing is ready.
func (f *fanout) work() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ready) > 0 {
		q := f.ready[0]
		f.ready[0] = nil
		f.ready = f.ready[1:]
		it := q.items[0]
		q.items[0] = nil
		q.items = q.items[1:]
		f.mu.Unlock()
		f.deliver(q.key, it)
		f.mu.Lock()
		f.bytes -= it.bytes
		q.bytes -= it.bytes
		if len(q.items) > 0 {
			f.ready = append(f.ready, q)
		} else {
			delete(f.by, q.key)
		}
	}
	f.ready = nil
	f.running--
}

// deliver brings one message to every session that it concerns.
func (f *fanout) deliver(key fanKey, it *fanItem) {
	if f.expired(it.cast) {
		if it.gather != nil {
			it.gather.answer()
		}
		return
	}
	if it.gather != nil {
		defer it.gather.spread()
	}
	n := 0
	one := func(d interface{ DeliverCast(*gateway.Cast) wire.Code }) {
		if it.gather != nil {
			it.gather.expect()
		}
		code := d.DeliverCast(it.cast)
		if code == wire.None {
			f.reached.Add(1)
		} else if it.gather != nil {
			it.gather.Receipt(0, code)
		}
		if n++; n%fanYield == 0 {
			runtime.Gosched() // the writers of those that have it: or thousands would wait to run
		}
	}
	if key.kind == wire.ToGroup {
		for _, m := range it.life.topics.members(wire.Topic{Tenant: key.tenant, Kind: wire.TopicGroup, Name: key.to}) {
			one(m)
		}
		return
	}
	f.sessions(func(s *gateway.Session) bool {
		c := s.Client()
		if c.Tenant != key.tenant || key.kind == wire.ToPrefix && !strings.HasPrefix(c.ID, key.to) ||
			key.kind == wire.ToOthers && c.ID == it.from && wire.CastSender(wire.Sender(c, s.ID().Instance), key.kind, key.to) == it.instance {
			return true
		}
		one(s)
		return true
	})
}

// gather counts the receipts of one message's sessions here and answers the node that it came from: when all are there, or a
// little before that node gives up.
type gather struct {
	r     *router
	ref   uint64 // theirs
	own   uint64 // ours, for the deadline
	reply func(ref uint64, code wire.Code, count uint32)

	open    atomic.Int64 // receipts that are missing, and one for the fan-out itself
	any     atomic.Bool  // there was a session
	done    atomic.Bool  // every session was told of the message
	reached atomic.Uint32
	told    atomic.Bool
}

// gatherSlack is how much sooner than the sender's node this one gives up, so that its count arrives in time.
const gatherSlack = 100 * time.Millisecond

func (f *fanout) gather(m *wire.Forward, reply func(ref uint64, code wire.Code, count uint32)) *gather {
	if !f.r.pendings.reserve(0) {
		return nil
	}
	left := time.Duration(m.LeftMS) * time.Millisecond
	if left <= 0 || left > maxTimeout {
		left = maxTimeout
	}
	g := &gather{r: f.r, ref: m.Ref, reply: reply}
	g.open.Store(1)
	p := &pending{m: wire.Forward{Instance: m.Instance, Counter: m.Counter}, deadline: now() + left - min(left/8, gatherSlack), sink: g}
	f.r.pendings.add(p)
	g.own = p.ref
	return g
}

func (g *gather) expect() {
	g.open.Add(1)
	if !g.any.Load() {
		g.any.Store(true)
	}
}

// Receipt takes how it ended for one session.
func (g *gather) Receipt(_ uint64, code wire.Code) {
	if code == wire.Delivered {
		g.reached.Add(1)
	}
	if g.open.Add(-1) == 0 {
		g.answer()
	}
}

// spread: every session was told of the message.
func (g *gather) spread() {
	g.done.Store(true)
	if g.open.Add(-1) == 0 {
		g.answer()
	}
}

// settled: the time is over, or the node ends. See pending.sink.
func (g *gather) settled(*router, *pending, wire.Code, uint64) { g.answer() }

func (g *gather) answer() {
	if !g.told.CompareAndSwap(false, true) {
		return
	}
	g.r.pendings.take(g.own)
	code := wire.Delivered
	switch {
	case !g.done.Load():
		code = wire.Timeout // it lay in the queue for too long, or still does
	case !g.any.Load():
		code = wire.Offline
	}
	g.reply(g.ref, code, g.reached.Load())
}
