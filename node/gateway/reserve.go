package gateway

import "sync/atomic"

// reserve is room for deliver frames that sessions share. Each may queue QueueBytes; past that it borrows, up to QueueMost. So
// a client that falls behind for a moment loses nothing, and however many clients do not read, they hold no more memory than
// QueueBytes each and the reserve. One message may go past that: an empty queue takes any, and JSON's escapes are guessed.
type reserve struct{ free atomic.Int64 }

// loan is in which steps it is lent, in bytes: who borrows for each message would have all sessions meet at one counter.
const loan = 64 << 10

// take lends n bytes, or says that so many are not left.
func (r *reserve) take(n int) bool {
	if r.free.Add(-int64(n)) >= 0 {
		return true
	}
	r.free.Add(int64(n))
	return false
}

// fitsLocked says whether a deliver frame of size bytes may be queued. An empty queue takes any.
func (s *Session) fitsLocked(size int) bool {
	cfg := &s.g.cfg
	need := s.dlv.cost + size + itemCost
	more := need - cfg.QueueBytes - s.borrowed
	if s.dlv.cost == 0 || more <= 0 {
		return true
	}
	left := cfg.QueueMost - cfg.QueueBytes - s.borrowed
	if more > left {
		return false
	}
	more = min(max(more, loan), left)
	if !s.g.reserve.take(more) {
		return false
	}
	s.borrowed += more
	return true
}

// giveBackLocked returns what was borrowed once the queue does without.
func (s *Session) giveBackLocked() {
	if s.borrowed > 0 && s.dlv.cost <= s.g.cfg.QueueBytes {
		s.g.reserve.free.Add(int64(s.borrowed))
		s.borrowed = 0
	}
}
