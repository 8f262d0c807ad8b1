package gateway

import (
	"strings"
	"time"

	"imroute/mesh/wire"
)

// enterTenant counts a session that is logging in among those of its tenant.
func (s *Session) enterTenant() *wire.Error {
	t, why, err := s.g.tenants.enter(s.client.Tenant, int64(s.g.coarseNow()))
	if err != nil {
		s.g.st.drop(why, 1)
		return wire.Errorf(wire.Busy, "%v", err)
	}
	if s.tenant = t; t != nil && t.limits.send() {
		s.meter = &meter{}
	}
	return nil
}

// send says whether what clients send is limited at all.
func (l *Limits) send() bool {
	return l.ClientRate > 0 || l.ClientBytes > 0 || l.TenantRate > 0 || l.TenantBytes > 0
}

func (s *Session) leaveTenant() { s.g.tenants.leave(s.tenant, int64(s.g.coarseNow())) }

// withinLimits says whether the session may send f now. If not, its client has been told.
func (s *Session) withinLimits(f *wire.Frame) bool {
	wait, why := s.g.tenants.charge(s.tenant, s.meter, len(f.Payload), int64(s.g.coarseNow()))
	if wait == 0 {
		return true
	}
	s.g.st.drop(why, 1)
	// The clock that limits go by moves once a tick.
	retry := max(1, (time.Duration(wait)+tick-1)/tick) * tick
	r := wire.Frame{Type: wire.TypeResult, ID: f.ID, Code: wire.RateLimited, RetryMS: uint32(retry.Milliseconds()), Text: why.told()}
	if !s.control(&r) {
		s.g.st.drop(DropResult, 1)
	}
	return false
}

// told is what a client is told that was refused for it.
func (d Drop) told() string {
	who, what := "this client sends", "messages"
	if d == DropTenantRate || d == DropTenantBytes {
		who = "this tenant sends"
	}
	if d == DropClientBytes || d == DropTenantBytes {
		what = "bytes"
	}
	return who + " more " + what + " a second than it may"
}

// pace holds up a client that joins or watches more often than it may send: both are answered with what became of them, and a
// program that comes back with many groups is to get into all of them.
func (s *Session) pace() {
	for {
		wait, _ := s.g.tenants.charge(s.tenant, s.meter, 0, int64(s.g.coarseNow()))
		if wait == 0 {
			return
		}
		timer := time.NewTimer(min(time.Duration(wait)+tick, time.Second))
		select {
		case <-timer.C:
		case <-s.fenced.wait():
			timer.Stop()
			return
		}
	}
}

// answersAtMost is how many times QueueBytes answers may take before their session closes. Reading ends at half of one, see
// awaitRoom; what follows are the answers to what had been read before, of which the node holds a bounded number.
const answersAtMost = 8

// awaitRoom holds up a client that sends faster than it reads its answers: nothing more is read from it until most of them are
// written, or until it is found out to be reading nothing at all.
func (s *Session) awaitRoom() {
	s.mu.Lock()
	if s.closing || !s.crowded.Load() {
		s.mu.Unlock()
		return
	}
	room := make(chan struct{})
	s.room = room
	s.mu.Unlock()
	s.g.st.heldUp.Add(1)
	timer := time.NewTimer(s.g.cfg.WriteTimeout)
	defer timer.Stop()
	select {
	case <-room:
	case <-timer.C: // the writer has had its time as well; if it has not, control closes the session
	case <-s.fenced.wait():
	}
}

// crowdedLocked looks at how many answers wait to be written.
func (s *Session) crowdedLocked() {
	switch {
	case s.ctl.cost > s.g.cfg.QueueBytes/2:
		s.crowded.Store(true)
	case s.ctl.cost <= s.g.cfg.QueueBytes/4 && s.crowded.Load():
		s.crowded.Store(false)
		if s.room != nil {
			close(s.room)
			s.room = nil
		}
	}
}

// oversized answers a message that was read past because its payload was over the limit; head is its header.
func (s *Session) oversized(head *wire.Frame, err error) *wire.Error {
	if head.Type != wire.TypeSend || head.ID == 0 {
		return wire.Errorf(wire.ProtocolError, "%v", err)
	}
	s.g.st.msgsIn.Add(1)
	s.g.st.drop(DropTooLarge, 1)
	s.Result(head.ID, wire.TooLarge, "", strings.TrimPrefix(err.Error(), wire.ErrTooLarge.Error()+": "))
	return nil
}
