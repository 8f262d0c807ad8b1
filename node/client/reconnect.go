package client

import (
	"context"
	"slices"
	"time"

	"imroute/mesh/wire"
)

func newSession(c *Client, a address, attempt uint64) *session {
	s := &session{c: c, addr: a, attempt: attempt, goAhead: make(chan struct{}), deadline: never}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// sessionEnded decides what follows the end of a session.
func (c *Client) sessionEnded(s *session, e *ending) {
	l := &c.loop
	l.live = slices.DeleteFunc(l.live, func(o *session) bool { return o == s })
	was := s == l.cur
	switch s {
	case l.next:
		l.next = nil
	case l.cur:
		l.cur = nil
		if c.now()-s.since >= int64(stableAfter) {
			l.failures = 0
		}
	}
	c.arrive()
	switch {
	case l.stopping, s.state == superseded:
		if l.bye && was {
			l.bye = false
		}
		return
	case c.classify(s, e) == wire.Final || c.cfg.DisableReconnect && s.up:
		c.stop(e)
		c.report(closedState(s, e))
		return
	case was && (l.next != nil || l.dueAt != never):
		// the move that a goaway began goes on, now in a hurry
		l.book.learn(e.addrs, s.addr)
		if l.next == nil {
			l.dueAt = min(l.dueAt, c.now()+int64(c.backoff(0)))
		}
		st := closedState(s, e)
		st.Retrying, st.After = true, max(0, c.untilLogin())
		if e.told && e.code == wire.Superseded && l.leaving != wire.None { // by the login that the goaway began
			st.Code, st.Text = l.leaving, "its node asked to connect elsewhere"
		}
		c.report(st)
		return
	}
	c.replan(s, c.classify(s, e), l.book.learn(e.addrs, s.addr))
	after := c.pause(e)
	l.dueAt = c.now() + int64(after)
	if l.cur == nil {
		st := closedState(s, e)
		st.Retrying, st.After = true, after
		c.report(st)
	} else {
		c.log.Info("login elsewhere failed", "addr", s.addr.String(), "code", e.code, "text", e.text, "after", after)
	}
}

// closedState tells that s has ended.
func closedState(s *session, e *ending) State {
	return State{Kind: Closed, Addr: s.addr.String(), Code: e.code, Text: e.text, Peer: e.peer}
}

func (c *Client) untilLogin() time.Duration {
	if c.loop.next != nil {
		return 0
	}
	return sinceNanos(c.now(), c.loop.dueAt)
}

// classify says what to do about an ending. The code's class, except for what this end knows better.
func (c *Client) classify(s *session, e *ending) wire.Class {
	switch {
	case !e.told && e.final:
		return wire.Final
	case !e.told && e.here:
		return wire.RetryHere
	case !e.told:
		return wire.RetryElsewhere // this node did not serve us, whatever the reason
	case e.code == wire.Superseded:
		return wire.RetryHere // by an attempt of our own that we gave up: the next one has a higher number
	case e.code == wire.TokenExpired && !s.up && c.cfg.TokenSource == nil:
		return wire.Final // we have no other
	}
	return e.code.Class()
}

// replan orders the addresses to try after s ended.
func (c *Client) replan(s *session, class wire.Class, told []address) {
	l := &c.loop
	if s.up {
		l.tried, l.here = nil, 0
		if class == wire.RetryHere {
			l.here = 1
		}
		l.plan = l.book.plan(s.addr, class, told)
		return
	}
	if class == wire.RetryHere && l.here < maxHere {
		l.here++
		l.plan = slices.Insert(slices.Clone(l.plan), 0, s.addr)
		return
	}
	l.here = 0
	front := slices.DeleteFunc(told, func(a address) bool { return slices.Contains(l.tried, a) })
	rest := slices.DeleteFunc(slices.Clone(l.plan), func(a address) bool { return slices.Contains(front, a) })
	l.plan = slices.Concat(front, rest)
}

// pause is how long to wait before the login after e. A node that cannot register anybody names a time to wait for itself:
// as long as others are left to try, that is not waited for. One that is busy speaks for the cluster.
func (c *Client) pause(e *ending) time.Duration {
	after := c.backoff(c.loop.failures)
	c.loop.failures++
	if e.retry > 0 && (e.code != wire.NoQuorum || len(c.loop.plan) == 0) {
		retry := min(e.retry, maxAfter)
		after = max(after, retry+time.Duration(c.cfg.random()*float64(retry)/4)) // those told the same spread out
	}
	return after
}

// backoff before the login that follows n failures: up to BackoffMin at once, so that a node's clients do not come
// together; then half to all of a time that doubles.
func (c *Client) backoff(n int) time.Duration {
	if n == 0 {
		return time.Duration(c.cfg.random() * float64(c.cfg.BackoffMin))
	}
	d := c.cfg.BackoffMax
	if shift := n - 1; shift < 32 && c.cfg.BackoffMin<<shift>>shift == c.cfg.BackoffMin {
		d = min(d, c.cfg.BackoffMin<<shift)
	}
	return d/2 + time.Duration(c.cfg.random()*float64(d/2))
}
