package node

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// presence tells sessions here who is online, from this node's own table, as that changes: wherever the watched clients are. One
// goroutine follows the table's events. An event only says where to look: what is told is what the table has at that moment, so
// falling behind, or losing events, costs states in between and never the last one.
//
// Lock order: shard, presence, watcher, session.
type presence struct {
	table presenceTable
	name  func(wire.NodeID) string
	// ages says for how long each of these sessions has been there; 0: not known.
	ages    func(ctx context.Context, of []raftfsm.Route) []time.Duration
	refresh func(ctx context.Context) error // returns once the table holds everything acknowledged before the call
	friends FriendSource
	unix    func() int64 // milliseconds since 1970

	shards [presenceShards]presenceShard

	mu      sync.Mutex
	lagging map[*watcher]struct{} // have states to be told and no room for them
	wake    chan struct{}         // capacity 1: the first in lagging
	closed  bool
	ctx     context.Context // of the goroutines of watchers
	wg      sync.WaitGroup  // them

	watched, told, behind atomic.Int64 // ids watched here, states told, states that had to wait
}

// presenceTable is what presence reads of the state machine.
type presenceTable interface {
	Lookup(wire.ClientID) (raftfsm.Route, bool)
	Devices(user wire.ClientID, buf []raftfsm.Device) []raftfsm.Device
}

const presenceShards = 64

type presenceShard struct {
	mu sync.Mutex
	by map[wire.ClientID]*sighting
}

// sighting is a watched id as it was last told. Guarded by its shard's mu.
type sighting struct {
	id     wire.ClientID
	online bool
	route  raftfsm.Route // with online: the newest session
	epoch  wire.Epoch    // the highest told
	since  int64         // when the session of that epoch began, in milliseconds since 1970; 0: not known
	by     map[*watcher]string
}

func newPresence(ctx context.Context) *presence {
	p := &presence{ctx: ctx, lagging: map[*watcher]struct{}{}, wake: make(chan struct{}, 1), unix: func() int64 { return time.Now().UnixMilli() }}
	for i := range p.shards {
		p.shards[i].by = map[wire.ClientID]*sighting{}
	}
	return p
}

func (p *presence) shard(id wire.ClientID) *presenceShard {
	return &p.shards[id.HashID()%presenceShards]
}

// read is who has id at the moment: of a user with several devices, or an id without one, the session that came last.
func (p *presence) read(id wire.ClientID) (r raftfsm.Route, online bool) {
	if strings.IndexByte(id.ID, '/') >= 0 {
		return p.table.Lookup(id)
	}
	for _, d := range p.table.Devices(id, nil) {
		if d.Epoch > r.Epoch {
			r, online = d.Route, true
		}
	}
	return r, online
}

// lookLocked compares a sighting with the table and says whether there is something to tell. fresh: it was watched all the
// time, so what is new began just now.
func (p *presence) lookLocked(s *sighting, fresh bool) bool {
	r, online := p.read(s.id)
	switch {
	case !online && !s.online:
		return false
	case !online:
		s.online, s.since, s.route = false, 0, raftfsm.Route{}
		return true
	case s.online && r.Epoch == s.route.Epoch:
		return false
	}
	moved := !s.online || r.Node != s.route.Node
	s.online, s.route = true, r
	if r.Epoch > s.epoch {
		s.epoch, s.since = r.Epoch, 0
		if fresh {
			s.since = p.unix()
		}
		return true
	}
	return moved // another device of that user went, and this one is older
}

func (s *sighting) frame(list, node string) wire.Frame {
	f := wire.Frame{Type: wire.TypePresence, Client: s.id.ID, To: list, Epoch: s.epoch}
	if s.online {
		f.Online, f.Node, f.Since = 1, node, uint64(s.since)
	}
	return f
}

// touch looks again at an id, if anybody watches it.
func (p *presence) touch(id wire.ClientID) {
	sh := p.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.by[id]; s != nil && p.lookLocked(s, true) {
		p.tellAllLocked(s)
	}
}

func (p *presence) tellAllLocked(s *sighting) {
	for w, list := range s.by {
		p.tellLocked(w, s, list)
	}
}

// tellLocked tells a watcher, now or when there is room.
func (p *presence) tellLocked(w *watcher, s *sighting, list string) {
	w.mu.Lock()
	late := len(w.late) > 0
	w.mu.Unlock()
	if !late && p.tellNowLocked(w, s, list) {
		return
	}
	p.behind.Add(1)
	w.mu.Lock()
	w.late[s.id] = struct{}{}
	w.mu.Unlock()
	p.mu.Lock()
	p.lagging[w] = struct{}{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *presence) tellNowLocked(w *watcher, s *sighting, list string) bool {
	node := ""
	if s.online {
		node = p.name(s.route.Node)
	}
	f := s.frame(list, node)
	if !w.s.Presence(&f) {
		return false
	}
	p.told.Add(1)
	return true
}

// sweep looks again at all that is watched and of which that is so, a shard at a time.
func (p *presence) sweep(is func(*sighting) bool) {
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		for _, s := range sh.by {
			if is(s) && p.lookLocked(s, true) {
				p.tellAllLocked(s)
			}
		}
		sh.mu.Unlock()
	}
}

// laggingEvery is how often those are tried again who had no room.
const laggingEvery = 20 * time.Millisecond

// run follows the table until ctx ends; then it waits for the goroutines of watchers.
func (p *presence) run(ctx context.Context, events *raftfsm.Subscription) {
	defer p.wg.Wait()
	defer func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
	}()
	var again <-chan time.Time
	for {
		for e, ok := events.TryNext(); ok; e, ok = events.TryNext() {
			if p.watched.Load() > 0 {
				p.saw(&e)
			}
			if ctx.Err() != nil {
				return
			}
		}
		select {
		case <-events.C():
		case <-p.wake:
			if again == nil { // not put off by those who come in later
				again = time.After(laggingEvery)
			}
		case <-again:
			again = nil
			if p.catchUp() {
				again = time.After(laggingEvery)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (p *presence) saw(e *raftfsm.Event) {
	switch e.Kind {
	case raftfsm.RouteSet, raftfsm.RouteGone:
		p.touch(e.Route.Client)
		if user := e.Route.Client.User(); user != e.Route.Client.ID {
			p.touch(wire.ClientID{Tenant: e.Route.Client.Tenant, ID: user})
		}
	case raftfsm.IncarnationEnded:
		p.sweep(func(s *sighting) bool {
			return s.online && s.route.Node == e.Route.Node && s.route.Incarnation <= e.Route.Incarnation
		})
	case raftfsm.Resync:
		p.sweep(func(*sighting) bool { return true })
	}
}

// catchUp tells those that had no room the latest states; true: some have none still.
func (p *presence) catchUp() bool {
	p.mu.Lock()
	all := make([]*watcher, 0, len(p.lagging))
	for w := range p.lagging {
		all = append(all, w)
	}
	p.mu.Unlock()
	left := false
	for _, w := range all {
		if !p.catchUpWith(w) {
			left = true
		}
	}
	return left
}

func (p *presence) catchUpWith(w *watcher) bool {
	for {
		id, ok := w.nextLate()
		if !ok {
			// Under p.mu: whoever is late next comes in again behind this.
			p.mu.Lock()
			w.mu.Lock()
			done := len(w.late) == 0
			if done {
				delete(p.lagging, w)
			}
			w.mu.Unlock()
			p.mu.Unlock()
			if done {
				return true
			}
			continue
		}
		sh := p.shard(id)
		sh.mu.Lock()
		s := sh.by[id]
		told := true
		if s != nil {
			if list, in := s.by[w]; in {
				told = p.tellNowLocked(w, s, list)
			}
		}
		if !told {
			w.mu.Lock()
			w.late[id] = struct{}{}
			w.mu.Unlock()
		}
		sh.mu.Unlock()
		if !told {
			return false
		}
	}
}
