package gateway

import (
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

// maxRepeats bounds how many repeats of one message wait for its result.
const maxRepeats = 8

// coarseExpiry is from which time-out on a message's end is counted from the last tick.
const coarseExpiry = 2 * time.Second

// Deliver encodes m into the session's queue. It copies m.Payload once and keeps nothing of m, and it does not block.
//
// 0 means accepted. If m.Ack is owner or client, to.Receipt(m.Ref, code) follows exactly once, perhaps before Deliver
// returns: Delivered once it was written (owner) or the client acknowledged it (client) while the lease held; Unknown if it
// was written or begun and the rest is not known; Timeout if m.LeftMS passed before it was written or acknowledged; NotOwner
// if the session ended with no byte of it written.
//
// Any other code is the whole answer and no receipt follows: NotOwner (closing, or another epoch), Overloaded, TooLarge,
// BadRequest (no sender, instance or counter), OutOfOrder (never taken, and a later message of that sender instance was; not for requests to a service) — and for a message id that was taken before,
// the result which the first one had, Delivered included; Unknown if that is not remembered. A repeat without ack is
// accepted and dropped.
func (s *Session) Deliver(m *wire.Forward, to Receipt) wire.Code { return s.DeliverHeld(m, to, nil) }

// Held collects sessions that were given messages and whose writers wait for Release, so that what comes together is written
// together. It is for one goroutine; the zero value is ready.
type Held struct{ sessions []*Session }

// Release lets the writers begin. Whoever holds sessions must call it before it waits for anything.
func (h *Held) Release() {
	for i, s := range h.sessions {
		s.mu.Lock()
		s.held = false
		s.wakeLocked()
		s.mu.Unlock()
		h.sessions[i] = nil
	}
	h.sessions = h.sessions[:0]
}

// DeliverHeld is Deliver, except that a writer that would have to be started waits for hold.Release; nil: it does not.
func (s *Session) DeliverHeld(m *wire.Forward, to Receipt, hold *Held) wire.Code {
	if len(m.Payload) > s.g.cfg.MaxPayload {
		s.g.st.drop(DropTooLarge, 1)
		return wire.TooLarge
	}
	var expires time.Duration
	coarse := s.g.coarseNow()
	switch left := time.Duration(m.LeftMS) * time.Millisecond; {
	case left <= 0:
	case left < coarseExpiry:
		expires = s.g.now() + left
	default: // reading the clock costs as much as the queueing, and who waits longer loses nothing by a tick
		expires = coarse + tick + left
	}
	s.mu.Lock()
	code, notes := s.deliverLocked(m, to, expires, coarse)
	switch {
	case code != wire.None || s.writing || s.held:
	case hold == nil:
		s.wakeLocked()
	default:
		s.held = true
		hold.sessions = append(hold.sessions, s)
	}
	s.mu.Unlock()
	tell(notes)
	return code
}

func (s *Session) deliverLocked(m *wire.Forward, to Receipt, expires, now time.Duration) (wire.Code, []note) {
	epoch := s.epoch
	if epoch == 0 {
		epoch = m.Epoch
	}
	if s.closing || epoch == 0 || m.Epoch != 0 && m.Epoch != epoch {
		s.g.st.drop(DropClosed, 1)
		return wire.NotOwner, nil
	}
	if m.Instance == 0 || m.Counter == 0 || m.From == "" {
		return wire.BadRequest, nil // clients drop the connection over such a frame
	}
	v, from, first := s.dedupe.look(m.Instance, m.Counter, now, m.Memo)
	if m.Kind == wire.ToService && v != repeated {
		v = fresh // see tookAnyhow
	}
	if v != fresh && !mutate.NoDedupe {
		return s.notFreshLocked(v, first, m.Ack, waiter{to, m.Ref}), nil
	}
	var notes []note
	if m.Ack == wire.AckClient && len(s.unacked) >= s.g.cfg.MaxUnacked {
		if notes = s.expireUnackedLocked(now, nil); len(notes) == 0 {
			s.g.st.drop(DropUnacked, 1)
			return wire.Overloaded, nil
		}
	}
	size := s.conn.deliverSize(m)
	if !s.fitsLocked(size) {
		s.g.st.drop(DropQueueFull, 1)
		return wire.Overloaded, notes
	}
	c := s.dlv.room(size)
	before := len(c.buf)
	b, err := s.conn.appendDeliver(c.buf, m, epoch)
	if err != nil {
		s.g.st.drop(DropTooLarge, 1)
		return wire.BadRequest, notes
	}
	c.buf = b
	var p *pending
	if mutate.DeliveredOnAccept && m.Ack != wire.AckNone {
		notes = append(notes, note{waiter: waiter{to, m.Ref}, code: wire.Delivered})
	} else if m.Ack != wire.AckNone {
		p = s.awaitLocked(wire.MessageID{Instance: m.Instance, Counter: m.Counter}, m.Ack, waiter{to, m.Ref}, expires)
	}
	if m.Kind == wire.ToService {
		s.dedupe.tookAnyhow(from, m.Instance, m.Counter, wire.Unknown, p, now)
	} else {
		s.dedupe.took(from, m.Instance, m.Counter, wire.Unknown, p, now)
	}
	s.dlv.added(c, before, p, expires)
	return wire.None, notes
}

// awaitLocked notes that w waits for the end of a message that is about to be queued.
func (s *Session) awaitLocked(id wire.MessageID, ack wire.AckMode, w waiter, expires time.Duration) *pending {
	p := &pending{id: id, to: w.to, ref: w.ref, expires: expires, client: ack == wire.AckClient}
	if p.client {
		if s.unacked == nil {
			s.unacked = make(map[wire.MessageID]*pending)
		}
		s.unacked[p.id] = p
	}
	return p
}

func (s *Session) notFreshLocked(v verdict, first *seen, ack wire.AckMode, w waiter) wire.Code {
	if v == overtaken {
		s.g.st.drop(DropOutOfOrder, 1)
		return wire.OutOfOrder
	}
	s.g.st.drop(DropDuplicate, 1)
	switch {
	case ack == wire.AckNone:
		return wire.None
	case v == forgotten:
		return wire.Unknown
	case first.p == nil:
		return first.code
	case len(first.p.more) >= maxRepeats:
		return wire.Overloaded
	}
	first.p.more = append(first.p.more, w)
	return wire.None
}

// onAck is the client's word that it has a message.
func (s *Session) onAck(id wire.MessageID) {
	code := wire.Unknown
	checked := s.g.journalNow()
	if mutate.NoLeaseCheckAfter || s.g.cfg.Backend.LeaseLeft() > 0 {
		code = wire.Delivered
		if j := s.g.cfg.Journal; j != nil {
			j.Told(s, checked, []wire.MessageID{id})
		}
	}
	var some [2]note // whoever waits; more than one only if the message came twice
	notes := some[:0]
	s.mu.Lock()
	if p := s.unacked[id]; p != nil && p.taken { // what was not written cannot be acknowledged
		notes = s.resolveLocked(p, code, notes)
	}
	s.mu.Unlock()
	if len(notes) == 0 {
		s.g.st.drop(DropStrayAck, 1)
	}
	tell(notes)
}

// resolveLocked ends p's wait and appends who must be told.
func (s *Session) resolveLocked(p *pending, code wire.Code, notes []note) []note {
	if p.done {
		return notes
	}
	p.done = true
	if p.client {
		delete(s.unacked, p.id)
	}
	s.dedupe.resolved(p, code)
	by := s
	if code == wire.Delivered {
		by = nil
	}
	notes = append(notes, note{waiter{p.to, p.ref}, code, by})
	for _, w := range p.more {
		notes = append(notes, note{w, code, by})
	}
	p.more = nil
	return notes
}

// expireUnackedLocked gives up on written messages whose sender has stopped waiting for the client's ack.
func (s *Session) expireUnackedLocked(now time.Duration, notes []note) []note {
	for _, p := range s.unacked {
		if p.taken && p.expires != 0 && p.expires <= now {
			notes = s.resolveLocked(p, wire.Timeout, notes)
		}
	}
	return notes
}

// expireParkedLocked takes what expired out of the queue while the lease is off.
func (s *Session) expireParkedLocked(now time.Duration, notes []note) []note {
	kept := s.dlv.chunks[:0]
	for _, c := range s.dlv.chunks {
		notes = s.expireChunkLocked(c, now, notes)
		if len(c.items) == 0 {
			c.release()
			continue
		}
		kept = append(kept, c)
	}
	clear(s.dlv.chunks[len(kept):])
	s.dlv.chunks = kept
	return notes
}

func (s *Session) expireChunkLocked(c *chunk, now time.Duration, notes []note) []note {
	before := c.cost()
	n := c.removeExpired(now, func(p *pending) { notes = s.resolveLocked(p, wire.Timeout, notes) })
	if n > 0 {
		s.dlv.cost -= before - c.cost()
		s.giveBackLocked()
		s.g.st.drop(DropExpired, n)
	}
	return notes
}
