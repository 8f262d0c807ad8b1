package lane

import "time"

// A message that comes alone is written by whoever sends it: waking the writer would cost more than the write. A stream can
// have that if it takes bytes without ever waiting.

// tryStream is a Stream that can be asked not to wait: TryWriteAll takes all of p, or nothing and says so with an error.
type tryStream interface{ TryWriteAll(p []byte) error }

const (
	// directBytes is the most that is written directly: what fits a packet together with an ack.
	directBytes = 1000
	// directPause is how long nothing must have been written before that. Closer together, messages are better gathered.
	directPause = 100 * time.Microsecond
)

// direct is what sayLocked needs to know. Guarded by Session.mu.
type direct struct {
	a    *attachment // whose writer set idle last; nil once it has ended
	last time.Time   // when something was written
}

// sayLocked has written what was just queued, of that size: here and now if the writer is idle and the stream takes it, by the
// writer otherwise.
func (s *Session) sayLocked(size int) {
	if !s.idle {
		return
	}
	if a := s.direct.a; a != nil && a.try != nil && size <= directBytes && a.directLocked() {
		return
	}
	s.wakeLocked()
}

// directLocked does what one round of the idle writer would do. false: the writer must be woken.
func (a *attachment) directLocked() bool {
	s := a.s
	now := time.Now()
	if now.Sub(s.direct.last) < directPause {
		return false
	}
	select {
	case <-a.done: // no more is written to a stream that was stopped
		return false
	default:
	}
	s.direct.last = now
	if s.statuses.pending() {
		a.takeLocked(&s.statuses)
	}
	a.ackLocked()
	if s.msgs.pending() {
		a.takeLocked(&s.msgs)
	}
	if err := a.try.TryWriteAll(a.scratch); err != nil {
		a.rest = true // the writer waits, or meets the error
		return false
	}
	a.scratch = a.scratch[:0]
	return true
}

// endDirect is the writer's last step: nobody writes for it any more when it returns.
func (a *attachment) endDirect() {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.direct.a == a {
		s.direct.a = nil
	}
}
