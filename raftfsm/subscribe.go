package raftfsm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrClosed is what Next returns after Close.
var ErrClosed = errors.New("subscription is closed")

// hub spreads events to subscriptions. It never waits for any of them.
type hub struct {
	n    atomic.Int64 // subscriptions
	mu   sync.Mutex
	subs []*Subscription // guarded by mu
}

func (h *hub) listening() bool { return h.n.Load() > 0 }

func (h *hub) emit(e Event) {
	if !h.listening() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs {
		if s.kinds == nil || slices.Contains(s.kinds, e.Kind) {
			s.put(e)
		}
	}
}

func (h *hub) resync(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs {
		s.lose(index)
	}
}

// Subscription is an ordered stream of the table's changes. A reader that falls behind by more than its buffer loses what is
// buffered and gets one Resync instead: it reads the table, for instance by Grab, and goes on with Next. Events that the table
// it read had seen already may still come; their Index tells.
//
// Next and TryNext are for one goroutine at a time; Close may be called from any.
type Subscription struct {
	hub   *hub
	kinds []EventKind   // nil: all
	wake  chan struct{} // holds a token if there may be something to read
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex
	ring   []Event // guarded by mu, as all below
	size   int     // at most; the ring grows up to it as needed
	first  int
	count  int
	resync bool // to be told before anything else; until then nothing is kept
	lost   uint64
}

// Subscribe begins a stream with the next change; buffer is how many events it holds (0: FSMConfig.EventBuffer). With kinds it
// holds only events of these, and Resync: who wants to know of nodes only does not fall behind in a storm of logins. Close it.
func (f *FSM) Subscribe(buffer int, kinds ...EventKind) *Subscription {
	if buffer <= 0 {
		buffer = f.config.EventBuffer
	}
	s := &Subscription{hub: &f.hub, kinds: kinds, size: buffer, wake: make(chan struct{}, 1), done: make(chan struct{})}
	f.hub.mu.Lock()
	f.hub.subs = append(f.hub.subs, s)
	f.hub.n.Add(1)
	f.hub.mu.Unlock()
	return s
}

func (s *Subscription) put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.resync:
		s.lost = e.Index
		return
	case s.count == s.size:
		s.loseLocked(e.Index)
	default:
		if s.count == len(s.ring) {
			s.growLocked()
		}
		s.ring[(s.first+s.count)%len(s.ring)] = e
		s.count++
	}
	s.signal()
}

func (s *Subscription) growLocked() {
	ring := make([]Event, min(max(2*len(s.ring), 16), s.size))
	for i := range s.count {
		ring[i] = s.ring[(s.first+i)%len(s.ring)]
	}
	s.ring, s.first = ring, 0
}

func (s *Subscription) lose(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseLocked(index)
	s.signal()
}

func (s *Subscription) loseLocked(index uint64) {
	s.ring, s.first, s.count = nil, 0, 0
	s.resync, s.lost = true, index
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// C gets a token when there may be something for TryNext. A reader that took the token calls TryNext until it says no.
func (s *Subscription) C() <-chan struct{} { return s.wake }

// TryNext returns the next event if there is one.
func (s *Subscription) TryNext() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resync {
		s.resync = false
		return Event{Kind: Resync, Index: s.lost}, true
	}
	if s.count == 0 {
		return Event{}, false
	}
	e := s.ring[s.first]
	s.ring[s.first] = Event{}
	s.first = (s.first + 1) % len(s.ring)
	s.count--
	return e, true
}

// Next waits for the next event. The error is ctx's cause, or ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := s.TryNext(); ok {
			return e, nil
		}
		select {
		case <-s.wake:
		case <-s.done:
			return Event{}, ErrClosed
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// Close ends the stream. It may be called more than once.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.hub.mu.Lock()
		s.hub.subs = slices.DeleteFunc(s.hub.subs, func(x *Subscription) bool { return x == s })
		s.hub.n.Add(-1)
		s.hub.mu.Unlock()
		close(s.done)
	})
}
