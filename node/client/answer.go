package client

import "time"

// A node that stops (a frozen process, a cable that was pulled) closes no connection. An idle Client notices within two
// thirds of the idle time and need not sooner; one that waits for an answer asks whether the node is still there.
const (
	askAfter     = time.Second     // without a byte from the node while an answer is waited for: ping
	answerWithin = 2 * time.Second // without a byte after that ping: the node is given up
	// What was written before may still be on its way, and the ping is behind it: so much longer is waited, as if the way
	// took this many bytes a second.
	slowestWay = 32 << 10
)

// answerTimesLocked says when to ping s because an answer is overdue, and when to give it up because the pong is as well.
// heard is when the node was heard last.
func (c *Client) answerTimesLocked(s *session, heard int64) (ask, dead int64) {
	if len(c.pend.byID) == 0 || s.dead {
		return never, never
	}
	since := max(c.askingSince, s.since, heard)
	if s.pinged <= since {
		return since + int64(askAfter), never
	}
	return never, s.pinged + int64(answerWithin) + s.onTheWay()
}

// onTheWay is how many nanoseconds the ping may have to wait for what was written before it.
func (s *session) onTheWay() int64 { return s.ahead * int64(time.Second) / slowestWay }

// askLocked notes whether answers are waited for. The loop is told when that begins, and not for every message: it finds out
// by itself when there is nothing left to wait for.
func (c *Client) askLocked(asking bool) {
	if asking && !c.asking {
		c.askingSince = c.now()
		c.poke()
	}
	c.asking = asking
}

// wroteLocked counts what may still be on its way.
func (s *session) wroteLocked(n int) {
	if heard := s.heard.Load(); heard != s.heardAt {
		s.heardAt, s.unheard = heard, 0
	}
	s.unheard += int64(n)
}
