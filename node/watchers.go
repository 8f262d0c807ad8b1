package node

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// watching is what presence needs of a session; *gateway.Session is one.
type watching interface {
	Client() wire.ClientID
	Presence(f *wire.Frame) bool
	Result(id uint64, code wire.Code, owner, text string)
}

// watcher is a session that watches others. What it asks for is done in order by a goroutine that exists only meanwhile.
type watcher struct {
	p *presence
	s watching
	// may says whether it may watch an id by itself.
	may func(id string) *wire.Error

	mu    sync.Mutex
	asks  []watchAsk
	busy  bool
	ended bool
	in    map[wire.ClientID]struct{}
	late  map[wire.ClientID]struct{} // changed, and to be told once there is room
}

type watchAsk struct {
	ids  []string
	list string
	id   uint64
	stop bool // unwatch
}

const (
	maxWatchAsks   = 64              // that wait
	friendsTimeout = 5 * time.Second // for the friend source
	watchTimeout   = time.Second     // for a linearizable read, and again for the ages of sessions
)

func (p *presence) newWatcher(s watching, may func(string) *wire.Error) *watcher {
	return &watcher{p: p, s: s, may: may, in: map[wire.ClientID]struct{}{}, late: map[wire.ClientID]struct{}{}}
}

// ask queues what the client wants.
func (w *watcher) ask(a watchAsk) {
	p := w.p
	p.mu.Lock()
	w.mu.Lock()
	if w.ended || len(w.asks) >= maxWatchAsks {
		full := !w.ended
		w.mu.Unlock()
		p.mu.Unlock()
		if full {
			w.s.Result(a.id, wire.Overloaded, "", "wait for the results of earlier watches")
		}
		return
	}
	w.asks = append(w.asks, a)
	start := !w.busy && !p.closed
	if start {
		w.busy = true
		p.wg.Add(1)
	}
	w.mu.Unlock()
	p.mu.Unlock()
	if start {
		go func() {
			defer p.wg.Done()
			w.run()
		}()
	}
}

func (w *watcher) run() {
	for {
		w.mu.Lock()
		if len(w.asks) == 0 || w.ended {
			w.busy, w.asks = false, nil
			w.mu.Unlock()
			return
		}
		a := w.asks[0]
		w.asks = w.asks[1:]
		w.mu.Unlock()
		if a.stop {
			w.unwatch(a)
			w.s.Result(a.id, wire.OK, "", "")
			continue
		}
		code, text := w.watch(a)
		w.s.Result(a.id, code, "", text)
	}
}

// watch begins to watch and tells the present states.
func (w *watcher) watch(a watchAsk) (wire.Code, string) {
	p := w.p
	if a.list != "" {
		if p.friends == nil {
			return wire.Refused, "this cluster has no friend source: name the ids to watch"
		}
		ctx, cancel := context.WithTimeout(p.ctx, friendsTimeout)
		ids, err := p.friends.Friends(ctx, w.s.Client())
		cancel()
		if err != nil {
			return wire.Unavailable, "the friend source: " + err.Error()
		}
		a.ids = ids[:min(len(ids), wire.MaxWatches)]
	}
	keys := make([]wire.ClientID, 0, len(a.ids))
	for _, id := range a.ids {
		if a.list == "" {
			if why := w.may(id); why != nil {
				return why.Code, why.Text
			}
		}
		key := wire.ClientID{Tenant: w.s.Client().Tenant, ID: id}
		if key.Validate() != nil {
			continue // of a friend source: those of a frame were checked
		}
		keys = append(keys, key)
	}
	if !w.reserve(keys) {
		return wire.Refused, fmt.Sprintf("a session may watch %d ids at most", wire.MaxWatches)
	}
	text := ""
	ctx, cancel := context.WithTimeout(p.ctx, watchTimeout)
	if err := p.refresh(ctx); err != nil {
		text = "without a quorum: as far as this node knows"
	}
	cancel()
	begun := p.begun(keys)
	for _, key := range keys {
		p.add(w, key, a.list, begun)
	}
	return wire.OK, text
}

// reserve notes the ids; false: they would be too many.
func (w *watcher) reserve(keys []wire.ClientID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh := 0
	for _, key := range keys {
		if _, in := w.in[key]; !in {
			fresh++
		}
	}
	if w.ended || len(w.in)+fresh > wire.MaxWatches {
		return false
	}
	for _, key := range keys {
		w.in[key] = struct{}{}
	}
	return true
}

// begun is when the sessions of those that nobody watched so far began, by epoch.
func (p *presence) begun(keys []wire.ClientID) map[wire.Epoch]int64 {
	var of []raftfsm.Route
	for _, key := range keys {
		r, online := p.read(key)
		if !online {
			continue
		}
		sh := p.shard(key)
		sh.mu.Lock()
		s := sh.by[key]
		known := s != nil && s.epoch == r.Epoch && s.since != 0
		sh.mu.Unlock()
		if !known {
			of = append(of, r)
		}
	}
	if len(of) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, watchTimeout)
	defer cancel()
	out := make(map[wire.Epoch]int64, len(of))
	for i, age := range p.ages(ctx, of) {
		if age > 0 {
			out[of[i].Epoch] = p.unix() - age.Milliseconds()
		}
	}
	return out
}

// add has a watcher hear of an id from now on, and tells it the present state.
func (p *presence) add(w *watcher, id wire.ClientID, list string, begun map[wire.Epoch]int64) {
	sh := p.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w.mu.Lock()
	_, in := w.in[id]
	w.mu.Unlock()
	if !in {
		return // the session has ended
	}
	s := sh.by[id]
	if s == nil {
		s = &sighting{id: id, by: map[*watcher]string{}}
		sh.by[id] = s
		p.watched.Add(1)
		p.lookLocked(s, false)
	} else if p.lookLocked(s, true) { // before its event came here
		p.tellAllLocked(s)
	}
	if s.online && s.since == 0 {
		s.since = begun[s.epoch]
	}
	if _, again := s.by[w]; !again || list != "" {
		s.by[w] = list
	}
	p.tellLocked(w, s, s.by[w])
}

// drop ends what add began.
func (p *presence) drop(w *watcher, id wire.ClientID) {
	sh := p.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.by[id]
	if s == nil {
		return
	}
	delete(s.by, w)
	if len(s.by) == 0 {
		delete(sh.by, id)
		p.watched.Add(-1)
	}
}

// unwatch ends watching ids, a list, or everything.
func (w *watcher) unwatch(a watchAsk) {
	var gone []wire.ClientID
	if len(a.ids) > 0 {
		for _, id := range a.ids {
			gone = append(gone, wire.ClientID{Tenant: w.s.Client().Tenant, ID: id})
		}
	} else {
		w.mu.Lock()
		for id := range w.in {
			gone = append(gone, id)
		}
		w.mu.Unlock()
	}
	for _, id := range gone {
		if a.list != "" && !w.p.onList(w, id, a.list) {
			continue
		}
		w.p.drop(w, id)
		w.mu.Lock()
		delete(w.in, id)
		delete(w.late, id)
		w.mu.Unlock()
	}
}

func (p *presence) onList(w *watcher, id wire.ClientID, list string) bool {
	sh := p.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.by[id]
	return s != nil && s.by[w] == list
}

// end is for the session's end: nothing is told any more.
func (w *watcher) end() {
	w.mu.Lock()
	in := w.in
	w.in, w.late, w.ended = map[wire.ClientID]struct{}{}, map[wire.ClientID]struct{}{}, true
	w.mu.Unlock()
	for id := range in {
		w.p.drop(w, id)
	}
	w.p.mu.Lock()
	delete(w.p.lagging, w)
	w.p.mu.Unlock()
}

// nextLate takes one of the ids that are to be told.
func (w *watcher) nextLate() (wire.ClientID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.late {
		delete(w.late, id)
		return id, true
	}
	return wire.ClientID{}, false
}

func (c clients) Watch(s *gateway.Session, ids []string, list string, id uint64) {
	c.watcher(s).ask(watchAsk{ids: ids, list: list, id: id})
}

func (c clients) Unwatch(s *gateway.Session, ids []string, list string, id uint64) {
	c.watcher(s).ask(watchAsk{ids: ids, list: list, id: id, stop: true})
}

// watcher is the session's. Only its read goroutine comes here.
func (c clients) watcher(s *gateway.Session) *watcher {
	a := s.Attachment().(*attached)
	if a.watcher == nil {
		a.watcher = c.n.presence.newWatcher(s, func(id string) *wire.Error { return c.n.mayWatch(s, id) })
	}
	return a.watcher
}

// openPresence completes the node.
func (n *Node) openPresence() {
	p := newPresence(n.ctx)
	p.table, p.name, p.ages, p.refresh = n.fsm, n.nameOf, n.ages, n.refresh
	if n.cfg.Friends != nil {
		p.friends = &friendsTold{source: n.cfg.Friends, log: n.log}
	}
	n.presence, n.online = p, newOnlineCount()
}

// opAges asks another node for how long sessions have been there.
const opAges = "session-ages"

// maxAges bounds one such question.
const maxAges = wire.MaxWatches

type agesAsk struct {
	Clients []wire.ClientID `json:"clients"`
	Epochs  []wire.Epoch    `json:"epochs"`
}

// ages asks the owners, all at once.
func (n *Node) ages(ctx context.Context, of []raftfsm.Route) []time.Duration {
	out := make([]time.Duration, len(of))
	byNode := map[wire.NodeID][]int{}
	for i, r := range of {
		byNode[r.Node] = append(byNode[r.Node], i)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node, at := range byNode {
		wg.Go(func() {
			q := agesAsk{}
			for _, i := range at[:min(len(at), maxAges)] {
				q.Clients, q.Epochs = append(q.Clients, of[i].Client), append(q.Epochs, of[i].Epoch)
			}
			var ms []int64
			if err := n.askAdmin(ctx, node, opAges, q, &ms); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for j, v := range ms[:min(len(ms), len(q.Clients))] {
				out[at[j]] = time.Duration(v) * time.Millisecond
			}
		})
	}
	wg.Wait()
	return out
}

// handleAges answers for the sessions here: milliseconds, at least 1; 0: no such session.
func (n *Node) handleAges(arg []byte) ([]int64, error) {
	var q agesAsk
	if err := json.Unmarshal(arg, &q); err != nil || len(q.Clients) != len(q.Epochs) || len(q.Clients) > maxAges {
		return nil, wire.Errorf(wire.BadRequest, "%s: malformed", opAges)
	}
	out := make([]int64, len(q.Clients))
	for i, c := range q.Clients {
		out[i] = n.age(c, q.Epochs[i]).Milliseconds()
	}
	return out, nil
}

// age is for how long a session here has been there, at least a millisecond; 0: it is not here.
func (n *Node) age(client wire.ClientID, epoch wire.Epoch) time.Duration {
	l := n.present.Load()
	if l == nil {
		return 0
	}
	found, ok := l.claims.find(client, epoch)
	if !ok {
		return 0
	}
	if s, ok := found.(*gateway.Session); ok {
		return max(s.Age(), time.Millisecond)
	}
	return 0
}
