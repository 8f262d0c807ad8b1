package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	retryMin = 25 * time.Millisecond
	// The higher node id leaves the lower one this head start, so that two dials rarely cross.
	headStart = 120 * time.Millisecond
	// How long the lower id keeps a peer's connection waiting for the outcome of its own dial. Longer would cost time when
	// our address for the peer is out of date.
	crossWait = 250 * time.Millisecond
)

// slot is the place of one kind of connection to one peer. It holds at most one, and run dials whenever it holds none.
//
// Which one of two survives is decided here, see install and offer; both sides come to the same answer because the one
// that accepts installs before it answers the hello.
type slot struct {
	// Fixed after construction.
	p    *peer
	kind connKind
	kick chan struct{} // asks run to dial now

	mu       sync.Mutex
	cur      *link
	twins    twins
	ended    error         // why there will be no more connections
	changed  chan struct{} // closed and replaced at each change of what is below or above
	started  uint64        // attempts begun
	finished uint64        // attempts ended; started - finished is 0 or 1
	giveWay  bool          // the attempt under way lost against the peer's dial
	dialling bool
	lastErr  error // of the last attempt
	lastLog  string
}

func newSlot(p *peer, k connKind) *slot {
	return &slot{p: p, kind: k, kick: make(chan struct{}, 1), changed: make(chan struct{})}
}

func (s *slot) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *slot) current() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

func (s *slot) currentOrErr() (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur, s.lastErr
}

// get returns the connection, making one if there is none. It fails with the reason of the first attempt that began after
// the question, or earlier with the context's.
func (s *slot) get(ctx context.Context) (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := s.started + 1
	for {
		if s.ended != nil {
			return nil, s.ended
		}
		if s.cur != nil {
			return s.cur, nil
		}
		if s.finished >= need {
			if !errors.Is(s.lastErr, errCrossed) {
				return nil, s.lastErr
			}
			need = s.started + 1 // it failed in favour of a connection that is gone again
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case s.kick <- struct{}{}:
		default: // asked already
		}
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		s.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
}

// run keeps the slot filled until the peer ends.
func (s *slot) run() {
	pause := time.Duration(0) // until the next attempt
	for {
		s.mu.Lock()
		filled, changed, ended := s.cur != nil, s.changed, s.ended != nil
		s.mu.Unlock()
		if ended {
			return
		}
		if filled {
			pause = 0
			select {
			case <-s.kick: // whoever asked has it
			default:
			}
			select {
			case <-changed:
			case <-s.p.ctx.Done():
				return
			}
			continue
		}
		wait := jitter(pause, rand.Float64)
		if pause == 0 && s.p.m.self > s.p.id {
			wait = jitter(headStart, rand.Float64)
		}
		timer := time.NewTimer(wait)
		// Even when it is asked for, a failed attempt is not repeated in a tight loop.
		floor := time.NewTimer(min(wait, pause, retryMin))
		select {
		case <-timer.C:
		case <-s.kick:
			select {
			case <-floor.C:
			case <-s.p.ctx.Done():
			}
		case <-changed:
			timer.Stop()
			floor.Stop()
			continue
		case <-s.p.ctx.Done():
		}
		timer.Stop()
		floor.Stop()
		if s.p.ctx.Err() != nil {
			return
		}
		s.attempt()
		pause = min(max(2*pause, retryMin), s.p.m.cfg.RetryMax)
	}
}

// attempt dials once.
func (s *slot) attempt() {
	m := s.p.m
	s.mu.Lock()
	if s.cur != nil || s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.started++
	s.giveWay, s.dialling = false, true
	s.mu.Unlock()

	var l *link
	addr, member := m.cfg.Members(s.p.id)
	err := fmt.Errorf("node %v: %w", s.p.id, ErrNotMember)
	if member {
		dctx, cancel := context.WithTimeoutCause(s.p.ctx, m.cfg.DialTimeout, errNoAnswer)
		l, err = m.dial(dctx, s.kind, s.p.id, addr)
		cancel()
	}

	s.mu.Lock()
	var old *link
	installed, refused := false, false
	switch {
	case err != nil:
	case s.giveWay:
		err = errCrossed
	case s.twins.refuses(l.process):
		err, refused = twinError(s.p.id), true
	default:
		old, installed = s.installLocked(l)
	}
	s.finished++
	s.lastErr = err
	s.dialling = false
	text := ""
	if err != nil && !errors.Is(err, errCrossed) && s.ended == nil && s.cur == nil {
		text = err.Error()
	}
	worthALine := text != "" && text != s.lastLog
	s.lastLog = text
	s.changedLocked()
	s.mu.Unlock()

	if worthALine { // once per reason: attempts go on for as long as the member is away
		m.log.Warn("cannot connect, trying on", "peer", s.p.id, "conn", s.kind.String(), "addr", addr, "err", err)
	}
	if refused {
		_ = l.conn.CloseWithError(closeTwin, closeText(err))
		return
	}
	if l == nil {
		m.refusedAsTwin(err)
		if member && errors.Is(err, ErrNotMember) && s.p.ctx.Err() == nil && m.cfg.Refused != nil {
			m.cfg.Refused(s.p.id)
		}
	} else if !installed {
		s.bypass(l)
		return
	}
	s.installed(l, old, installed)
}

var errNoAnswer = errors.New("no answer in time: is that node running, and is its UDP port reachable?")

// offer decides about a connection that the peer dialled and installs it, or says why not.
//
// Overlapping means that our own dial was under way when theirs arrived, or ended only since. Then ours stays if our id is
// the lower one, and ours gives way if it is the higher one.
func (s *slot) offer(l *link) error {
	ours := s.p.m.self < s.p.id
	s.mu.Lock()
	if ours {
		s.awaitDialLocked(crossWait)
		if c := s.cur; c != nil && c.dialled && c.installed.After(l.arrived) && c.process == l.process && c.conn.Context().Err() == nil {
			s.mu.Unlock()
			return errCrossed
		}
	} else if s.dialling {
		s.giveWay = true // the dial goes on: if the peer has accepted it by now, it may be using it, see bypass
	}
	if s.ended == nil && l.conn.Context().Err() != nil {
		s.mu.Unlock() // gone while it waited: it must not push a living one out
		return context.Cause(l.conn.Context())
	}
	if s.twins.refuses(l.process) {
		s.mu.Unlock()
		return twinError(s.p.id)
	}
	old, ok := s.installLocked(l)
	ended := s.ended
	s.changedLocked()
	s.mu.Unlock()
	s.installed(l, old, ok)
	return ended
}

func (s *slot) awaitDialLocked(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for s.dialling && s.ended == nil {
		changed := s.changed
		s.mu.Unlock()
		expired := false
		select {
		case <-changed:
		case <-timer.C:
			expired = true
		}
		s.mu.Lock()
		if expired {
			return
		}
	}
}

// installLocked makes l the connection; what it replaces is returned for installed to close.
func (s *slot) installLocked(l *link) (old *link, ok bool) {
	if s.ended != nil {
		return nil, false
	}
	old = s.cur
	s.cur = l
	s.twins.took(l.process)
	l.installed = time.Now()
	l.laneCtx, l.endLanes = context.WithCancel(l.conn.Context())
	return old, true
}

// installed does what follows installLocked and needs no lock.
func (s *slot) installed(l, old *link, ok bool) {
	m := s.p.m
	if old != nil {
		// Two dials crossed if the old one is young and with the same process; otherwise the peer gave it up.
		crossed := old.process == l.process && l.installed.Sub(old.installed) < 2*m.cfg.DialTimeout
		if !crossed || !m.spawn(func() { old.retire(s.p) }) {
			_ = old.conn.CloseWithError(closeReplaced, "replaced by a newer connection")
		}
	}
	if !ok {
		return
	}
	if !m.spawn(func() { l.serve(s) }) {
		_ = l.conn.CloseWithError(closeBye, "shutting down")
		return
	}
	m.log.Info("connected", "peer", s.p.id, "conn", s.kind.String(), "addr", l.conn.RemoteAddr().String(), "dialled", l.dialled)
	// The peer's other connection, if it is with a former process, is dead and does not know it yet.
	other := s.p.slots[kinds-1-s.kind]
	if c := other.current(); c != nil && c.process != l.process && c.installed.Before(l.installed) {
		_ = c.conn.CloseWithError(closeReplaced, "the peer restarted")
	}
	m.notify.changed(s.p.id)
}

// bypass serves a connection that the peer accepted but that lost against one it dialled. The peer may have used it for a
// call already, and will retire it as soon as it knows; so does this side.
func (s *slot) bypass(l *link) {
	l.laneCtx, l.endLanes = context.WithCancel(l.conn.Context())
	l.endLanes()
	m := s.p.m
	if s.p.ctx.Err() != nil || !m.spawn(func() { l.serve(s) }) || !m.spawn(func() { l.retire(s.p) }) {
		_ = l.conn.CloseWithError(closeCrossed, "another connection was chosen")
	}
}

// lost empties the slot if it holds l.
func (s *slot) lost(l *link) {
	s.mu.Lock()
	was := s.cur == l
	if was {
		s.cur = nil
		s.changedLocked()
	}
	s.mu.Unlock()
	s.p.m.refusedAsTwin(context.Cause(l.conn.Context()))
	if was {
		s.p.m.log.Info("disconnected", "peer", s.p.id, "conn", s.kind.String(), "reason", context.Cause(l.conn.Context()))
		s.p.m.notify.changed(s.p.id)
	}
}

// end empties the slot for good.
func (s *slot) end(code quic.ApplicationErrorCode, reason string) {
	s.mu.Lock()
	l := s.cur
	s.cur = nil
	if s.ended == nil {
		s.ended = context.Cause(s.p.ctx)
	}
	s.changedLocked()
	s.mu.Unlock()
	if l != nil {
		_ = l.conn.CloseWithError(code, reason)
	}
}
