package client

import (
	"fmt"
	"slices"
	"time"

	"imroute/mesh/wire"
)

const (
	defaultIdle = 30 * time.Second
	minIdle     = 100 * time.Millisecond
	stableAfter = 10 * time.Second // a session this old starts the backoff anew
	maxAfter    = 10 * time.Minute // no node makes a Client wait longer
	drainOld    = 2 * time.Second  // for what a superseded session still has to be read
	lingerBye   = time.Second      // for the node's answer to bye
	maxHere     = 3                // logins in a row at one node that says "here"
)

// loop decides: which address is next, when, what a session's end means. It alone starts sessions.
type loop struct {
	book     addressBook
	plan     []address // what is left of this round
	tried    []address // in this round
	attempt  uint64
	failures int // since the last stable session
	here     int // logins in a row at the same address
	dueAt    int64
	live     []*session // every session whose end was not yet told
	next     *session   // logging in
	leaving  wire.Code  // why the current session's node asked to go elsewhere, while that is tried; None: it did not
	cur      *session   // current or arriving
	stopping bool
	bye      bool // said, and to be written
	byeBy    int64
	welcomed bool // there was a session
}

type eventKind uint8

const (
	evWaiting eventKind = iota
	evWelcome
	evGoaway
	evEnded
)

type event struct {
	s     *session
	kind  eventKind
	code  wire.Code
	addrs []string
	after time.Duration
	end   *ending
}

func (c *Client) run() {
	l := &c.loop
	closing := c.closing
	abandon := c.abandon
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.act()
		if l.stopping && len(l.live) == 0 {
			break
		}
		if at := c.nextWake(); at == never {
			timer.Stop()
		} else {
			timer.Reset(sinceNanos(c.now(), at))
		}
		select {
		case ev := <-c.events:
			c.handle(ev)
		case <-timer.C:
		case <-c.wake:
		case <-closing:
			closing = nil
			c.sayBye()
		case <-abandon:
			abandon = nil
			c.stop(&ending{code: wire.Bye, text: errAbandoned.Error()})
		}
	}
	c.mu.Lock()
	err := c.ended
	c.mu.Unlock()
	c.failAll(err)
	if c.State().Kind != Closed || c.State().Retrying {
		c.report(State{Kind: Closed, Code: wire.Bye, Text: err.Error()})
	}
	close(c.done)
	c.in.end()
}

// act does what is due.
func (c *Client) act() {
	l := &c.loop
	now := c.now()
	c.expire()
	if l.dueAt <= now && l.next == nil && !l.stopping {
		c.login()
	}
	for _, s := range l.live {
		if (s.state == loggingIn || s.state == superseded) && s.deadline <= now {
			s.deadline = never
			if s.state == superseded {
				s.abort(&ending{code: wire.Superseded, text: "not closed by its node"})
				continue
			}
			s.abort(&ending{code: wire.LoginTimeout, text: "no answer to login in time"})
		}
	}
	if l.cur != nil {
		c.heartbeat(l.cur, now)
	}
	if l.bye && c.flushed() {
		l.bye = false
		l.byeBy = now + int64(lingerBye)
		l.cur.t.closeWrite()
	}
	if l.byeBy <= now {
		l.byeBy = never
		c.abortAll(&ending{code: wire.Bye})
	}
}

func (c *Client) nextWake() int64 {
	l := &c.loop
	at := l.byeBy
	if l.next == nil && !l.stopping {
		at = min(at, l.dueAt)
	}
	for _, s := range l.live {
		if s.state == loggingIn || s.state == superseded {
			at = min(at, s.deadline)
		}
	}
	c.mu.Lock()
	at = min(at, c.pend.soonest)
	c.askLocked(len(c.pend.byID) > 0) // before the times are read that go by it
	c.mu.Unlock()
	if l.cur != nil {
		ping, dead := c.heartbeatTimes(l.cur)
		at = min(at, ping, dead)
	}
	return at
}

// heartbeatTimes says when to ping s and when to give it up. A ping is due when for a third of the idle time nothing was
// sent, or nothing heard; a session is dead when for another third nothing at all is heard after it, and longer by what a slow
// line needs for what was written before. What the network still takes from a long queue counts as life, and so does not
// reading.
//
// Who waits for an answer notices sooner, see answerTimesLocked.
func (c *Client) heartbeatTimes(s *session) (ping, dead int64) {
	third := int64(s.idle / 3)
	heard, wrote, paused := s.heard.Load(), s.wrote.Load(), s.paused.Load()
	dead = never
	quiet := wrote
	if !paused {
		quiet = min(wrote, heard)
	}
	ping = max(s.pinged, quiet) + third
	if paused {
		return ping, never
	}
	alive := s.pinged
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.out.bytes > 0 {
		alive = max(alive, wrote)
	}
	if s.pinged > heard {
		dead = alive + max(third, s.onTheWay()+min(third, int64(answerWithin)))
	}
	ask, silent := c.answerTimesLocked(s, heard)
	return min(ping, ask), min(dead, silent)
}

func (c *Client) heartbeat(s *session, now int64) {
	ping, dead := c.heartbeatTimes(s)
	if dead <= now {
		s.abort(&ending{code: wire.IdleTimeout, text: "the node was not heard for too long"})
		s.pinged = never / 2
		return
	}
	if ping > now {
		return
	}
	s.pinged = now
	c.mu.Lock()
	if !s.dead {
		s.wroteLocked(0)
		s.ahead = s.unheard + int64(s.out.bytes)
		s.out.append(&wire.Frame{Type: wire.TypePing})
		s.kickLocked()
	}
	c.mu.Unlock()
}

// login starts a session at the next address of the plan.
func (c *Client) login() {
	l := &c.loop
	if len(l.plan) == 0 {
		l.tried = nil
		l.plan = l.book.all()
		if l.welcomed { // from then on those who lost the same node come at the same time
			l.plan = l.book.spread()
		}
		if l.cur != nil && len(l.plan) > 1 { // it sent us away
			l.plan = slices.DeleteFunc(l.plan, func(a address) bool { return a == l.cur.addr })
		}
	}
	a := l.plan[0]
	l.plan = l.plan[1:]
	l.tried = append(l.tried, a)
	l.attempt++
	l.dueAt = never
	s := newSession(c, a, l.attempt)
	patience := c.cfg.LoginTimeout
	if len(l.plan) > 0 { // a process that hangs is still connected to by its kernel: the others must get their turn
		patience /= 2
	}
	s.deadline = c.now() + int64(patience)
	l.next = s
	l.live = append(l.live, s)
	c.log.Debug("logging in", "addr", a.String(), "attempt", s.attempt)
	go s.run()
}

func (c *Client) handle(ev event) {
	switch ev.kind {
	case evWaiting:
		c.waiting(ev.s, min(ev.after, maxAfter))
	case evWelcome:
		c.welcome(ev.s, ev.addrs)
	case evGoaway:
		c.goaway(ev)
	case evEnded:
		c.sessionEnded(ev.s, ev.end)
	}
}

func (c *Client) waiting(s *session, left time.Duration) {
	s.deadline = c.now() + int64(left+c.cfg.LoginTimeout)
	if c.loop.cur == nil && !c.loop.stopping {
		c.report(State{Kind: Waiting, Addr: s.addr.String(), Left: left})
	}
}

func (c *Client) welcome(s *session, addrs []string) {
	l := &c.loop
	if l.stopping || s.ctx.Err() != nil {
		return // it was aborted; its end follows
	}
	if high := c.in.highest(); s.epoch < high {
		s.abort(protocolError("welcomed with epoch %d although %d was seen: another cluster, or one set back to old data; "+
			"if that is meant, start this client anew", s.epoch, high))
		return
	}
	l.next, l.dueAt, l.leaving = nil, never, wire.None
	l.plan, l.tried, l.here = nil, nil, 0
	l.book.learn(addrs, s.addr)
	s.up, s.since, l.welcomed = true, c.now(), true
	s.state = arriving
	if old := l.cur; old != nil {
		old.state = superseded
		old.deadline = c.now() + int64(drainOld)
	}
	l.cur = s
	c.activate(s)
	c.arrive()
	c.report(State{Kind: Connected, Addr: s.addr.String(), Node: s.node, Epoch: s.epoch})
	select {
	case <-c.up:
	default:
		close(c.up)
	}
}

// arrive lets the new session deliver once the former one was read to its end: what the cluster delivered over that one
// would fall behind the fence of the new epoch.
func (c *Client) arrive() {
	l := &c.loop
	if l.cur == nil || l.cur.state != arriving || slices.ContainsFunc(l.live, func(s *session) bool { return s.state == superseded }) {
		return
	}
	l.cur.state = current
	c.in.raise(l.cur.epoch)
	close(l.cur.goAhead)
}

// goaway looks for another node while the session goes on.
func (c *Client) goaway(ev event) {
	l := &c.loop
	if ev.s != l.cur || l.stopping || c.cfg.DisableReconnect {
		return
	}
	told := l.book.learn(ev.addrs, ev.s.addr)
	class := ev.code.Class()
	if class == wire.Final || l.next != nil || l.dueAt != never {
		return // a kick will follow, or we are at it
	}
	plan := l.book.plan(ev.s.addr, class, told)
	if class == wire.RetryElsewhere {
		plan = plan[:len(plan)-1]
	}
	if len(plan) == 0 {
		return // nowhere else to go: stay until the kick
	}
	l.plan, l.tried, l.leaving = plan, nil, ev.code
	after := c.backoff(0)
	l.dueAt = c.now() + int64(after)
	c.log.Info("asked to go elsewhere", "node", ev.s.node, "code", ev.code, "after", after)
}

// abortAll ends every session.
func (c *Client) abortAll(e *ending) {
	for _, s := range c.loop.live {
		s.abort(e)
	}
}

// stop ends the Client for good.
func (c *Client) stop(e *ending) {
	c.setEnded(endError(e))
	c.loop.stopping = true
	c.abortAll(e)
}

// sayBye begins a Close.
func (c *Client) sayBye() {
	l := &c.loop
	if l.stopping {
		return
	}
	l.stopping = true
	for _, s := range l.live {
		if s != l.cur {
			s.abort(&ending{code: wire.Bye})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.cur; s != nil {
		s.out.append(&wire.Frame{Type: wire.TypeBye})
		s.kickLocked()
		l.bye = true
	} else if l.cur != nil {
		l.byeBy = c.now()
	}
}

// flushed reports whether everything queued was written.
func (c *Client) flushed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur != nil && !c.cur.writing && len(c.cur.out.chunks) == 0
}

func (c *Client) report(st State) {
	c.mu.Lock()
	c.state = st
	c.mu.Unlock()
	c.log.Info(fmt.Sprint(st.Kind), "state", st)
	if c.cfg.OnState != nil {
		c.cfg.OnState(st)
	}
}
