package node

import (
	"context"
	"sync"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// memberships are the topics that one session is in. It belongs to what the node keeps with the session; as a member of a topic
// it stands for the session.
type memberships struct {
	s *gateway.Session

	mu     sync.Mutex
	in     map[wire.Topic]struct{}
	closed bool

	serving map[wire.Topic]*book // of the services in `in`
}

func (ms *memberships) Client() wire.ClientID { return ms.s.Client() }

func (ms *memberships) DeliverCast(c *gateway.Cast) wire.Code { return ms.s.DeliverCast(c) }

// Awaits is that of gateway.Session.
func (ms *memberships) Awaits(id wire.MessageID) bool { return ms.s.Awaits(id) }

func (ms *memberships) removed(t wire.Topic, code wire.Code, text string) {
	ms.forget(t)
	switch t.Kind {
	case wire.TopicGroup:
		ms.s.Left(t.Name, code, text)
	case wire.TopicService:
		ms.s.NoInstance(t.Name, code, text)
	}
}

func (ms *memberships) forget(t wire.Topic) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	delete(ms.in, t)
	delete(ms.serving, t)
}

// has says that the session is in t, or on its way in.
func (ms *memberships) has(t wire.Topic) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	_, in := ms.in[t]
	return in
}

// outsider is a client that sends to a group it is not in: how many were not reached is its business, who they are is not.
type outsider struct{ *gateway.Session }

func (o outsider) Reached(counter uint64, code wire.Code, count uint32, missed wire.Missed, text string) {
	o.Session.Reached(counter, code, count, wire.Missed{Count: missed.Count}, text)
}

// note says whether t may be joined; it is noted then.
func (ms *memberships) note(t wire.Topic) *wire.Error {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if _, in := ms.in[t]; in {
		return nil
	}
	switch {
	case ms.closed:
		return &wire.Error{Code: wire.Left}
	case len(ms.in) >= wire.MaxGroups:
		return wire.Errorf(wire.Refused, "a session may be in %d groups at most", wire.MaxGroups)
	}
	if ms.in == nil {
		ms.in = map[wire.Topic]struct{}{}
	}
	ms.in[t] = struct{}{}
	return nil
}

// end empties the list for good and returns what was in it.
func (ms *memberships) end() map[wire.Topic]struct{} {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	in := ms.in
	ms.in, ms.closed = nil, true
	return in
}

// joinTopic makes a session a member; told as in topics.join.
func (l *life) joinTopic(ms *memberships, t wire.Topic, told func(*wire.Error)) (queued bool) {
	if why := ms.note(t); why != nil {
		told(why)
		return true
	}
	return l.topics.join(t, ms, func(why *wire.Error) {
		if why != nil {
			ms.forget(t)
		}
		told(why)
	})
}

// leaveTopics takes a session that has ended out of everything.
func (l *life) leaveTopics(ms *memberships) {
	for t := range ms.end() {
		l.topics.leave(t, ms)
	}
}

// joinAtLogin makes a session that is about to be registered a member of the groups that its login named. When the registration
// is answered the memberships are agreed; those that came to nothing are told to the client behind the welcome.
func (c clients) joinAtLogin(ctx context.Context, s *gateway.Session, a *attached) (refused func()) {
	var mu sync.Mutex
	failed := map[string]*wire.Error{}
	var late []chan struct{} // closed as those are answered that would be so after the registration
	for _, g := range s.LoginGroups() {
		answered := make(chan struct{})
		told := func(why *wire.Error) {
			if why != nil {
				mu.Lock()
				failed[g] = why
				mu.Unlock()
			}
			close(answered)
		}
		if why := c.n.mayJoin(s, g); why != nil {
			told(why)
		} else if !a.life.joinTopic(&a.memberships, groupOf(s, g), told) {
			late = append(late, answered)
		}
	}
	for _, answered := range late {
		select {
		case <-answered:
		case <-ctx.Done():
		}
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		for g, why := range failed {
			s.Left(g, why.Code, why.Text)
		}
	}
}

// groupOf is a group as a session names it.
func groupOf(s *gateway.Session, name string) wire.Topic {
	return wire.Topic{Tenant: s.Client().Tenant, Kind: wire.TopicGroup, Name: name}
}

func (c clients) Join(s *gateway.Session, group string, id uint64) {
	if why := c.n.mayJoin(s, group); why != nil {
		s.Result(id, why.Code, "", why.Text)
		return
	}
	a := s.Attachment().(*attached)
	a.life.joinTopic(&a.memberships, groupOf(s, group), func(why *wire.Error) {
		if why != nil {
			s.Result(id, why.Code, "", why.Text)
			return
		}
		s.Result(id, wire.Joined, "", "")
	})
}

func (c clients) Leave(s *gateway.Session, group string, id uint64) {
	a := s.Attachment().(*attached)
	t := groupOf(s, group)
	a.memberships.forget(t)
	a.life.topics.leave(t, &a.memberships)
	s.Result(id, wire.Left, "", "")
}
