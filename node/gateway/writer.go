package gateway

import (
	"errors"
	"os"
	"runtime"
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

// The writer is the only one that writes to a session's connection. It is started by wakeLocked when there is something to
// write and ends when there is not; Session.writing says whether one exists. Once the session closes it (or a last one
// started for it) says the last words, and Session.writing stays true so that no other follows.

func (s *Session) wakeLocked() {
	if s.writing || !s.closing && s.ctl.empty() && !s.deliverableLocked() {
		return
	}
	s.writing = true
	go s.writeLoop() // ends: see finish, which the read goroutine waits for
}

func (s *Session) deliverableLocked() bool {
	return s.phase == open && !s.parked && !s.dlv.empty()
}

func (s *Session) writeLoop() {
	s.g.st.writers.Add(1)
	defer s.g.st.writers.Add(-1)
	runtime.Gosched() // who is ready to run may have more for this connection: fewer, larger writes while the processor is busy
	for {
		if s.writeControl(); !s.writeDeliver() {
			return
		}
	}
}

// writeControl writes one chunk of control frames if there is one. They come first, so that welcome precedes deliveries;
// their queue is bounded, and taking turns keeps either from starving the other.
func (s *Session) writeControl() {
	s.mu.Lock()
	idle := s.closing || s.ctl.empty()
	s.mu.Unlock()
	if idle {
		return
	}
	left := s.g.cfg.Backend.LeaseLeft()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	c := s.ctl.take() // only this goroutine takes
	s.allowWriteLocked(left)
	s.mu.Unlock()
	_, err := s.conn.write(c.buf, c.items)
	s.g.st.bytesOut.Add(uint64(len(c.buf)))
	s.mu.Lock()
	s.ctl.cost -= c.cost()
	s.crowdedLocked()
	s.mu.Unlock()
	c.release()
	s.writeFailed(err)
}

// writeDeliver writes one chunk of deliver frames if there is one and the lease holds. It reports whether the writer has to
// go on, and otherwise has ended it.
func (s *Session) writeDeliver() bool {
	s.mu.Lock()
	switch {
	case s.closing:
		s.mu.Unlock()
		s.finish()
		return false
	case !s.deliverableLocked():
		s.writing = !s.ctl.empty()
		goOn := s.writing
		s.mu.Unlock()
		return goOn
	case !s.welcomed && !s.ctl.empty(): // welcome was queued since writeControl looked, and goes first
		s.mu.Unlock()
		return true
	}
	s.welcomed = true
	s.mu.Unlock()
	checked := s.g.journalNow()
	left := s.g.cfg.Backend.LeaseLeft()
	if left <= 0 && !mutate.NoLeaseCheckBefore {
		return s.park()
	}
	var notes []note
	s.mu.Lock()
	if s.closing || s.dlv.empty() {
		s.mu.Unlock()
		return true
	}
	c := s.dlv.take()
	if c.expires != 0 {
		notes = s.expireChunkLocked(c, s.g.now(), nil)
	}
	for i := range c.items {
		if p := c.items[i].p; p != nil {
			p.taken = true
		}
	}
	epoch := s.epoch
	s.allowWriteLocked(left) // under the lock: Close's interrupt comes before, then closing is set, or after, then it counts
	s.mu.Unlock()
	tell(notes)

	c.encode(s.conn, epoch)
	s.journalWrite(c, checked)
	touched, err := 0, error(nil)
	if len(c.items) > 0 {
		touched, err = s.conn.write(c.buf, c.items)
	}
	s.written(c, touched, err)
	s.writeFailed(err)
	return true
}

// written settles the messages of a chunk after the attempt to write it: the first `touched` may have left in part or whole.
func (s *Session) written(c *chunk, touched int, err error) {
	owner := wire.Unknown
	checked := s.g.journalNow()
	if err == nil && (mutate.NoLeaseCheckAfter || s.g.cfg.Backend.LeaseLeft() > 0) {
		owner = wire.Delivered
		s.journalTold(c, checked)
	}
	var notes []note
	s.mu.Lock()
	for i, it := range c.items {
		switch {
		case it.p == nil:
		case err != nil && i >= touched:
			notes = s.resolveLocked(it.p, wire.NotOwner, notes)
		case err != nil || !it.p.client: // a client's ack is waited for only on a whole connection
			notes = s.resolveLocked(it.p, owner, notes)
		}
	}
	s.dlv.cost -= c.cost()
	s.giveBackLocked()
	s.mu.Unlock()
	if err == nil {
		s.g.st.msgsOut.Add(uint64(len(c.items)))
		s.g.st.bytesOut.Add(uint64(len(c.buf)))
	} else {
		s.g.st.msgsOut.Add(uint64(touched))
		s.g.st.drop(DropClosed, len(c.items)-touched)
	}
	c.release()
	tell(notes)
}

// park ends the writer because the lease does not hold; what waits is written once it does (Gateway.unpark). It reports
// whether the writer has to go on all the same.
func (s *Session) park() bool {
	s.mu.Lock()
	if s.closing || !s.ctl.empty() {
		s.parked = !s.closing
		s.mu.Unlock()
		s.g.park(s)
		return true
	}
	s.parked, s.writing = true, false
	s.mu.Unlock()
	s.g.park(s)
	return false
}

// unpark lets deliver frames be written again.
func (s *Session) unpark() {
	s.mu.Lock()
	s.parked = false
	s.wakeLocked()
	s.mu.Unlock()
}

// expireParked drops what waited for the lease too long. It reports whether the session still waits.
func (s *Session) expireParked(now time.Duration) bool {
	s.mu.Lock()
	if s.closing || !s.parked {
		s.mu.Unlock()
		return false
	}
	notes := s.expireParkedLocked(now, nil)
	s.mu.Unlock()
	tell(notes)
	return true
}

// deadlineSlack is how much sooner than it might a write's deadline may come: moving it for each write costs more than many
// a write's encoding.
const deadlineSlack = 500 * time.Millisecond

// allowWriteLocked moves the connection's write deadline on: no write goes on past the lease (left, if positive), nor for
// longer than WriteTimeout. On plain TCP a write that meets it goes on if the lease was renewed meanwhile, see goOn.
func (s *Session) allowWriteLocked(left time.Duration) {
	now := time.Now() // sockets know no other clock
	s.writeSince = now
	by := now.Add(s.g.cfg.WriteTimeout)
	if end := now.Add(left); left > 0 && end.Before(by) {
		by = end
	}
	if s.writeBy.After(by) || by.Sub(s.writeBy) > min(deadlineSlack, by.Sub(now)/2) {
		s.writeBy = by
		s.conn.setWriteDeadline(by)
	}
}

// goOn is asked when a write met its deadline and its rest could still be written.
func (s *Session) goOn() bool {
	left := s.g.cfg.Backend.LeaseLeft()
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.writeSince
	if s.closing || left <= 0 || time.Since(since) >= s.g.cfg.WriteTimeout {
		return false
	}
	s.allowWriteLocked(min(left, s.g.cfg.WriteTimeout-time.Since(since)))
	s.writeSince = since
	return true
}

func (s *Session) writeFailed(err error) {
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded) && s.g.cfg.Backend.LeaseLeft() <= 0:
		s.Close(wire.LeaseLost, "the lease ended during a write")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.Close(wire.SlowReader, "nothing was read for too long") // no effect if Close broke the write off
	default:
		s.Close(wire.ConnectionLost, err.Error())
	}
}

// finish is the writer's end once the session closes: it reports what was not written, fences, and says the last words.
func (s *Session) finish() {
	var notes []note
	dropped := 0
	s.mu.Lock()
	for _, c := range s.dlv.chunks {
		dropped += len(c.items)
		for _, it := range c.items {
			if it.p != nil && !mutate.RevokedQueueDropped {
				notes = s.resolveLocked(it.p, wire.NotOwner, notes)
			}
		}
		c.release()
	}
	for _, p := range s.unacked { // those left were written
		notes = s.resolveLocked(p, wire.Unknown, notes)
	}
	s.dlv, s.dedupe, s.unacked = queue{}, dedupe{}, nil
	s.giveBackLocked()
	code, text, ctl := s.code, s.text, s.ctl
	s.ctl = queue{}
	s.mu.Unlock()
	s.g.st.drop(DropClosed, dropped)
	tell(notes)
	s.fenced.open()

	s.kicked = s.lastWords(ctl, code, text)
	s.flushed.open()
}

// lastWords writes what was queued for the client besides messages, and why the session ends. It reports whether the client
// can have got it.
func (s *Session) lastWords(ctl queue, code wire.Code, text string) bool {
	defer func() {
		for _, c := range ctl.chunks {
			c.release()
		}
	}()
	if code == wire.ConnectionLost || !s.conn.writable() {
		return false
	}
	s.conn.setWriteDeadline(time.Now().Add(s.g.cfg.KickTimeout))
	if f := s.g.kickFrame(code, text, s.Transport()); f != nil {
		c := ctl.room(s.conn.size(f))
		if b, err := s.conn.append(c.buf, f); err == nil {
			before := len(c.buf)
			c.buf = b
			ctl.added(c, before, nil, 0)
		}
	}
	for _, c := range ctl.chunks {
		if _, err := s.conn.write(c.buf, c.items); err != nil {
			return false
		}
		s.g.st.bytesOut.Add(uint64(len(c.buf)))
	}
	return true
}
