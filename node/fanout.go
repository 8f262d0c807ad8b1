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

	looking sync.Mutex // guards what limits the search for names
	turn    time.Duration
	looks   int

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
	from     string  // others: who sent it, and under what instance
	instance uint64  // 0: whatever instance
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
func (f *fanout) take(l *life, m *wire.Forward, reply castReply) wire.Code {
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
	if m.Epoch == wire.WholeSender {
		it.instance = 0
	}
	var to gateway.Receipt
	if m.Ack != wire.AckNone && m.Ref != 0 && reply != nil {
		if it.gather = f.gather(m, key, it, reply); it.gather == nil {
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
			it.gather.answer(false)
		}
		return
	}
	if it.gather != nil {
		defer it.gather.spread()
	}
	n := 0
	f.each(it.life, key, it.from, it.instance, func(d castTarget) bool {
		if it.gather != nil {
			it.gather.expect()
		}
		code := d.DeliverCast(it.cast)
		if code == wire.None {
			f.reached.Add(1)
		} else if it.gather != nil {
			it.gather.refused(d.Client(), code)
		}
		if n++; n%fanYield == 0 {
			runtime.Gosched() // the writers of those that have it: or thousands would wait to run
		}
		return true
	})
}

// castTarget is a session that a message to many concerns; *gateway.Session is one, and so are memberships.
type castTarget interface {
	Client() wire.ClientID
	DeliverCast(*gateway.Cast) wire.Code
}

// each yields every session here that a message of this sender to an address concerns, until yield says no.
func (f *fanout) each(l *life, key fanKey, from string, instance uint64, yield func(castTarget) bool) {
	if key.kind == wire.ToGroup {
		for _, m := range l.topics.members(wire.Topic{Tenant: key.tenant, Kind: wire.TopicGroup, Name: key.to}) {
			if !yield(m) {
				return
			}
		}
		return
	}
	f.sessions(func(s *gateway.Session) bool {
		c := s.Client()
		if c.Tenant != key.tenant || key.kind == wire.ToPrefix && !strings.HasPrefix(c.ID, key.to) ||
			key.kind == wire.ToOthers && sentBy(s, from, instance) {
			return true
		}
		return yield(s)
	})
}

// sentBy says whether a message to the others is that session's own.
func sentBy(s *gateway.Session, from string, instance uint64) bool {
	c := s.Client()
	if instance == 0 {
		return c.ID == from || c.User() == from
	}
	return c.ID == from && wire.CastSender(wire.Sender(c, s.ID().Instance), wire.ToOthers, "") == instance
}
