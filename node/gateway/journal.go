package gateway

import (
	"time"

	"imroute/mesh/wire"
)

// Journal is told of everything that is written to clients under the lease, so that tests can judge it afterwards. It is
// called with no lock held, in the order of a session's writes, and what it does delays them.
type Journal interface {
	// Now is read right before the lease is looked at.
	Now() time.Duration
	// Writing: a look at the lease that began at checked found it held, and these messages are about to be written to s.
	Writing(s *Session, checked time.Duration, ids []wire.MessageID)
	// Told: the same, and Delivered is about to be answered for these messages.
	Told(s *Session, checked time.Duration, ids []wire.MessageID)
}

// journalNow is the moment before a look at the lease; 0 without a journal.
func (g *Gateway) journalNow() time.Duration {
	if g.cfg.Journal == nil {
		return 0
	}
	return g.cfg.Journal.Now()
}

// journalWrite tells of a chunk that is about to be written. The frames are read back, so that what is queued need not
// carry ids that only a journal wants.
func (s *Session) journalWrite(c *chunk, checked time.Duration) {
	j := s.g.cfg.Journal
	if j == nil || len(c.items) == 0 {
		return
	}
	ids := make([]wire.MessageID, 0, len(c.items))
	var f wire.Frame
	start := 0
	for _, it := range c.items {
		b, err := c.buf[start:it.end], error(nil)
		start = it.end
		if s.Transport() == TransportWS {
			err = wire.UnmarshalFrameJSON(b, &f)
		} else {
			err = wire.DecodeFrame(b[wire.LengthBytes:], &f)
		}
		if err != nil {
			s.g.log.Error("journal: a frame of our own cannot be read", "err", err)
			continue
		}
		ids = append(ids, wire.MessageID{Instance: f.Instance, Counter: f.ID})
	}
	j.Writing(s, checked, ids)
}

// journalTold tells which of a written chunk's messages are answered Delivered.
func (s *Session) journalTold(c *chunk, checked time.Duration) {
	j := s.g.cfg.Journal
	if j == nil {
		return
	}
	var ids []wire.MessageID
	s.mu.Lock()
	for _, it := range c.items {
		if it.p != nil && !it.p.client && !it.p.done {
			ids = append(ids, it.p.id)
		}
	}
	s.mu.Unlock()
	if len(ids) > 0 {
		j.Told(s, checked, ids)
	}
}
