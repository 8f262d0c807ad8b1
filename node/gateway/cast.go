package gateway

import (
	"time"

	"imroute/mesh/wire"
)

// Cast is one message on its way to many sessions of this gateway, which share its bytes until they are written. It is made
// by NewCast and may be used by several goroutines.
type Cast struct {
	frame   *wire.Shared
	ack     wire.AckMode
	ref     uint64
	to      Receipt
	expires time.Duration
}

// NewCast copies m, payload included; that is the only copy until sessions write it. to (nil for AckNone) hears Receipt(ref, code)
// once for each session that accepts it, as with Session.Deliver.
func (g *Gateway) NewCast(m *wire.Forward, ref uint64, to Receipt) *Cast {
	f := wire.Frame{From: m.From, To: m.To, Kind: m.Kind, Instance: m.Instance, ID: m.Counter, Ack: m.Ack, Payload: m.Payload}
	c := &Cast{frame: wire.NewShared(&f), ack: m.Ack, ref: ref, to: to}
	if m.LeftMS > 0 {
		c.expires = g.now() + time.Duration(m.LeftMS)*time.Millisecond
	}
	return c
}

// Size is about what the message takes in memory, in bytes.
func (c *Cast) Size() int { return c.frame.Size() }

// Expired says that nobody waits for it any more.
func (g *Gateway) Expired(c *Cast) bool { return c.expires != 0 && g.now() >= c.expires }

// DeliverCast takes c into the session's queue, by reference. Codes and receipts are those of Deliver, except that a repeat of
// what went without ack cannot be told from what was overtaken: it is dropped, and Unknown if this one asks for an answer.
func (s *Session) DeliverCast(c *Cast) wire.Code {
	f := c.frame.Frame()
	if len(f.Payload) > s.g.cfg.MaxPayload {
		s.g.st.drop(DropTooLarge, 1)
		return wire.TooLarge
	}
	now := s.g.coarseNow()
	s.mu.Lock()
	code, notes := s.castLocked(c, f, now)
	s.mu.Unlock()
	tell(notes)
	return code
}

func (s *Session) castLocked(c *Cast, f *wire.Frame, now time.Duration) (wire.Code, []note) {
	if s.closing || s.epoch == 0 {
		s.g.st.drop(DropClosed, 1)
		return wire.NotOwner, nil
	}
	if f.Instance == 0 || f.ID == 0 || f.From == "" {
		return wire.BadRequest, nil // clients drop the connection over such a frame
	}
	v, from, first := s.dedupe.look(f.Instance, f.ID, now, nil)
	if v != fresh {
		return s.notFreshLocked(v, first, c.ack, waiter{c.to, c.ref}), nil
	}
	var notes []note
	if c.ack == wire.AckClient && len(s.unacked) >= s.g.cfg.MaxUnacked {
		if notes = s.expireUnackedLocked(now, nil); len(notes) == 0 {
			s.g.st.drop(DropUnacked, 1)
			return wire.Overloaded, nil
		}
	}
	size := s.conn.sizeShared(c.frame, s.epoch)
	if !s.fitsLocked(size) {
		s.g.st.drop(DropQueueFull, 1)
		return wire.Overloaded, notes
	}
	var p *pending
	if c.ack == wire.AckNone {
		s.dedupe.passed(from, f.Instance, f.ID, now)
	} else {
		p = s.awaitLocked(wire.MessageID{Instance: f.Instance, Counter: f.ID}, c.ack, waiter{c.to, c.ref}, c.expires)
		s.dedupe.took(from, f.Instance, f.ID, wire.Unknown, p, now)
	}
	s.dlv.addShared(c.frame, size, p, c.expires)
	s.wakeLocked()
	return wire.None, notes
}

// Awaits says that the outcome of a message which this session was given is still open: it lies in the queue, or its client has
// not acknowledged it. It costs a lock and a look-up.
func (s *Session) Awaits(id wire.MessageID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unacked[id] != nil {
		return true
	}
	if from := s.dedupe.peers[id.Instance]; from != nil {
		for i := len(from.seen) - 1; i >= 0 && from.seen[i].counter >= id.Counter; i-- {
			if from.seen[i].counter == id.Counter {
				return from.seen[i].p != nil
			}
		}
	}
	return false
}

// encode gives a chunk of shared frames its bytes, right before it is written.
func (c *chunk) encode(by conn, epoch wire.Epoch) {
	if c.lazy == 0 {
		return
	}
	c.loan = wire.GetBuffer(c.lazy)
	c.buf = c.loan.B[:0]
	for i := range c.items {
		it := &c.items[i]
		c.buf = by.appendShared(c.buf, it.shared, epoch)
		it.shared, it.end = nil, len(c.buf)
	}
	c.lazy = 0
}

// Left tells the client that it is no longer in a group, though it did not ask for that.
func (s *Session) Left(group string, code wire.Code, text string) {
	s.control(&wire.Frame{Type: wire.TypeLeave, To: group, Code: code, Text: clip(text)})
}

// Reached is Result for what went to many: count is how many of them were reached, missed who was not.
func (s *Session) Reached(counter uint64, code wire.Code, count uint32, missed wire.Missed, text string) {
	f := wire.Frame{Type: wire.TypeResult, ID: counter, Code: code, Count: count, Missed: missed.Count, MissedIDs: missed.IDs, Text: clip(text)}
	if !s.control(&f) {
		s.g.st.drop(DropResult, 1)
	}
}

// LoginGroups are the groups that the login frame named. Only for use within Backend.Login.
func (s *Session) LoginGroups() []string { return s.loginGroups }
