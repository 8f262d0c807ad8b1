package node

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// book holds which requests an instance of a service was given and has not answered. Who never answers is forgiven when the
// requester's time is over.
type book struct {
	limit int
	open  atomic.Int32 // len(by), for whoever compares instances

	mu   sync.Mutex
	by   map[wire.MessageID]asked
	next time.Duration // not before that is anything over
}

// asked is one open request.
type asked struct {
	from  string        // whose it is
	until time.Duration // how long that one waits
}

// defaultServing is how many requests an instance gets at a time if it does not say.
const defaultServing = 64

// take notes a request; false: there are as many as the instance takes.
func (b *book) take(id wire.MessageID, from string, until time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := now(); len(b.by) > 0 && at >= b.next {
		b.next = until
		for id, r := range b.by {
			if r.until <= at {
				delete(b.by, id)
			} else {
				b.next = min(b.next, r.until)
			}
		}
	}
	if len(b.by) >= b.limit {
		b.open.Store(int32(len(b.by)))
		return false
	}
	if len(b.by) == 0 || until < b.next {
		b.next = until
	}
	if b.by == nil {
		b.by = map[wire.MessageID]asked{}
	}
	b.by[id] = asked{strings.Clone(from), until}
	b.open.Store(int32(len(b.by)))
	return true
}

// done ends a request of from; false: there is no such one open here.
func (b *book) done(id wire.MessageID, from string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, ok := b.by[id]; !ok || r.from != from {
		return false
	}
	delete(b.by, id)
	b.open.Store(int32(len(b.by)))
	return true
}

// book is what a session has open of a service; nil if it does not serve that.
func (ms *memberships) book(t wire.Topic) *book {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.serving[t]
}

// answered notes that the session answers a request of that client; false: it was given no such one, or too long ago.
func (ms *memberships) answered(id wire.MessageID, to string) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, b := range ms.serving {
		if b.done(id, to) {
			return true
		}
	}
	return false
}

// serves notes that the session is, or is about to be, an instance; false takes that back.
func (ms *memberships) serves(t wire.Topic, limit int) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.closed {
		return
	}
	if ms.serving == nil {
		ms.serving = map[wire.Topic]*book{}
	}
	if limit <= 0 {
		limit = defaultServing
	}
	limit = min(limit, wire.MaxServiceLoad)
	if ms.serving[t] == nil || ms.serving[t].limit != limit {
		ms.serving[t] = &book{limit: limit}
	}
}

// Serve makes a session an instance of a service.
func (c clients) Serve(s *gateway.Session, service string, limit int, id uint64) {
	if why := c.n.mayServe(s, service); why != nil {
		s.Result(id, why.Code, "", why.Text)
		return
	}
	a := s.Attachment().(*attached)
	t := serviceOf(s.Client().Tenant, service)
	a.memberships.serves(t, limit)
	a.life.joinTopic(&a.memberships, t, func(why *wire.Error) {
		if why != nil {
			s.Result(id, why.Code, "", strings.ReplaceAll(why.Text, "groups", "groups and services"))
			return
		}
		s.Result(id, wire.Joined, "", "")
	})
}

// Unserve ends that. Requests that the instance has may still be answered.
func (c clients) Unserve(s *gateway.Session, service string, id uint64) {
	a := s.Attachment().(*attached)
	t := serviceOf(s.Client().Tenant, service)
	a.life.topics.leave(t, &a.memberships)
	a.memberships.forget(t)
	s.Result(id, wire.Left, "", "")
}
