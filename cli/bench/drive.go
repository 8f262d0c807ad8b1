package bench

import (
	"errors"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// start begins to send. Follow with finish.
func (m *meter) start() {
	switch {
	case m.rate > 0:
		m.sending.Go(m.openLoop)
	case m.ack:
		for i := range m.pairs {
			for k := range int(m.window) {
				m.flying.Add(1)
				c := &call{m: m, from: i, to: (i + k) % m.pairs}
				if !m.spread {
					c.to = i
				}
				c.done = c.result
				c.send()
			}
		}
	default:
		for i := range m.pairs {
			m.sending.Go(func() { m.flatOut(i) })
		}
	}
}

// retryNap is how long a sender waits that may not send.
const retryNap = 50 * time.Microsecond

// flatOut is one sender that sends as long as its recipients have room.
func (m *meter) flatOut(from int) {
	to, skipped := from, 0
	for !m.stopping.Load() {
		if m.spread {
			to = (to + 1) % m.pairs
		}
		err := errFull
		if !m.full(to) {
			err = m.one(from, to, -1, nil)
		}
		switch {
		case err == nil:
		case !errors.Is(err, errFull):
			m.broken(err)
			return
		case !m.spread && m.full(to):
			m.awaitRoom(m.recipients[to])
		default:
			// A sender that woke for each place that comes free would make one packet of each message. So it leaves out who
			// has no room, and rests once that were half of all, for a time that empties a small part of the window.
			if skipped++; 2*skipped >= m.pairs {
				skipped = 0
				time.Sleep(retryNap * time.Duration(min(max(m.window/16, 1), 20)))
			}
		}
	}
}

// awaitRoom returns when half of r's window may be free, or the run stops.
func (m *meter) awaitRoom(r *recipient) {
	r.waiting.Store(true)
	if r.sent.Load()-r.over.Load() > m.window/2 && !m.stopping.Load() {
		<-r.room
	}
}

// openLoop sends what is due. A recipient without room holds up the rest, which stays due since when it was.
func (m *meter) openLoop() {
	s, start := schedule{m.rate}, m.now()
	for n := int64(0); ; {
		for due := s.due(m.now() - start); n < due; n++ {
			from, to := s.pairOf(n, m.pairs, m.spread)
			for {
				if m.stopping.Load() {
					return
				}
				err := errFull
				if !m.full(to) {
					err = m.offer(from, to, start+s.at(n))
				}
				if err == nil {
					break
				}
				if !errors.Is(err, errFull) {
					m.broken(err)
					return
				}
				m.nap(retryNap)
			}
		}
		if m.stopping.Load() {
			return
		}
		m.nap(min(max(start+s.at(n)-m.now(), leastNap), 50*time.Millisecond))
	}
}

// offer sends one message of an open loop.
func (m *meter) offer(from, to int, due time.Duration) error {
	if !m.ack {
		return m.one(from, to, due, nil)
	}
	c := calls.Get().(*call)
	c.m, c.from, c.to, c.due, c.once = m, from, to, due, true
	if c.done == nil {
		c.done = c.result
	}
	m.flying.Add(1)
	c.sent = m.now()
	err := m.one(from, to, due, c.done)
	if err != nil {
		m.flying.Done()
		calls.Put(c)
	}
	return err
}

// call is one place for an acknowledged message in flight. In a closed loop its result sends the next one.
type call struct {
	m         *meter
	from, to  int
	due, sent time.Duration
	once      bool
	done      func(client.Result) // result, bound once
}

var calls = sync.Pool{New: func() any { return new(call) }}

func (c *call) send() {
	c.sent = c.m.now()
	c.due = c.sent
	if err := c.m.one(c.from, c.to, c.due, c.done); err != nil {
		c.m.broken(err)
		c.m.flying.Done()
	}
}

func (c *call) result(r client.Result) {
	m := c.m
	m.recipients[c.to].passed(m.window)
	if r.Code == wire.Delivered {
		m.delivered.Add(1)
		m.record(c.from, c.due, c.sent)
	} else {
		m.failed.Add(1)
		m.note(r.Code)
	}
	switch {
	case c.once:
		calls.Put(c)
		m.flying.Done()
	case m.stopping.Load():
		m.flying.Done()
	default:
		if m.spread {
			c.to = (c.to + 1) % m.pairs
		}
		c.send()
	}
}
