package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/raftfsm"
)

// sightings is what a watcher is told.
type sightings struct {
	t      testing.TB
	mu     sync.Mutex
	all    []client.Presence
	last   map[string]client.Presence
	stop   context.CancelFunc
	result chan error
}

func (u *user) watch(ids ...string) *sightings {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sightings{t: u.t, last: map[string]client.Presence{}, stop: cancel, result: make(chan error, 1)}
	u.t.Cleanup(cancel)
	go func() {
		if len(ids) == 0 {
			s.result <- u.WatchFriends(ctx, s.saw)
			return
		}
		s.result <- u.Watch(ctx, ids, s.saw)
	}()
	return s
}

func (s *sightings) saw(p client.Presence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[p.Client]; ok && (p.Epoch < last.Epoch || p.Online && !last.Online && p.Epoch == last.Epoch || !p.Online && !last.Online) {
		s.t.Errorf("%+v after %+v", p, last)
	}
	s.all = append(s.all, p)
	s.last[p.Client] = p
}

func (s *sightings) sees(what string, want func(last map[string]client.Presence) bool) {
	s.t.Helper()
	untilOr(s.t, what, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !want(s.last) {
			return fmt.Errorf("%+v", s.last)
		}
		return nil
	})
}

func (s *sightings) seesOnline(id, node string) {
	s.t.Helper()
	s.sees(id+" on "+node, func(last map[string]client.Presence) bool { p := last[id]; return p.Online && p.Node == node })
}

func (s *sightings) seesOffline(id string) {
	s.t.Helper()
	s.sees(id+" offline", func(last map[string]client.Presence) bool { p, ok := last[id]; return ok && !p.Online })
}

func (s *sightings) epoch(id string) wire.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[id].Epoch
}

// E4: who watches hears of others' comings and goings, whichever nodes they are on.
func TestPresence(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	bob := c.dial("bob", n2)
	alice := c.dial("alice", n1)
	started := time.Now()
	w := alice.watch("bob", "carol", "dave")
	w.seesOnline("bob", "n2")
	w.seesOffline("carol")
	w.seesOffline("dave")
	var we *wire.Error
	if err := <-alice.watch().result; !errors.As(err, &we) || we.Code != wire.Refused {
		t.Errorf("friends without a friend source: %v", err)
	}
	w.mu.Lock()
	if p := w.last["bob"]; p.Since.IsZero() || p.Since.After(started.Add(time.Second)) || started.Sub(p.Since) > time.Minute {
		t.Errorf("bob since %v, now %v", p.Since, started)
	}
	w.mu.Unlock()

	t.Log("coming and going")
	carol := c.dial("carol", n3)
	w.seesOnline("carol", "n3")
	carol.hangUp()
	w.seesOffline("carol")

	t.Log("a takeover is an online state with a higher epoch")
	before := w.epoch("bob")
	c.dial("bob", n3)
	w.seesOnline("bob", "n3")
	if got := w.epoch("bob"); got <= before {
		t.Errorf("epoch %d after %d", got, before)
	}
	bob.ended(wire.Replaced)

	t.Log("a user is online if any device is")
	phone, web := c.dial("dave/phone", n1), c.dial("dave/web", n2)
	w.seesOnline("dave", "n2")
	web.hangUp()
	w.seesOnline("dave", "n1")
	phone.hangUp()
	w.seesOffline("dave")

	t.Log("a second watch of the same ids has their present states, and the end of one leaves the other")
	v := alice.watch("bob", "carol")
	v.seesOnline("bob", "n3")
	v.seesOffline("carol")
	v.stop()
	if err := <-v.result; !errors.Is(err, context.Canceled) {
		t.Errorf("the second watch ended with %v", err)
	}
	c.dial("carol", n1)
	w.seesOnline("carol", "n1")

	t.Log("a watcher that moves goes on watching")
	cfg, mover := dialConfig("mover", n2, n3)
	if err := c.dialErr(cfg, mover); err != nil {
		t.Fatal(err)
	}
	m := mover.watch("bob", "eve")
	m.seesOnline("bob", "n3")
	m.seesOffline("eve")

	t.Log("a node ends, and all that were on it with it")
	var ids []string
	for i := range 40 {
		id := fmt.Sprintf("many-%d", i)
		ids = append(ids, id)
		cfg, u := dialConfig(id, n2)
		cfg.DisableReconnect = true
		if err := c.dialErr(cfg, u); err != nil {
			t.Fatal(err)
		}
	}
	crowd := alice.watch(ids...)
	for _, id := range ids {
		crowd.seesOnline(id, "n2")
	}
	c.stop(n2)
	for _, id := range ids {
		crowd.seesOffline(id)
	}
	c.until("the mover is elsewhere", func() error {
		if r, ok := n3.fsm.Lookup(wire.ClientID{ID: "mover"}); !ok || r.Node == n2.id {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.dial("eve", n1)
	m.seesOnline("eve", "n1")

	t.Log("nothing is left of watchers that have gone")
	for _, s := range []*sightings{w, crowd, m} {
		s.stop()
		<-s.result
	}
	c.until("nobody is watched", func() error {
		if a, b := n1.presence.watched.Load(), n3.presence.watched.Load(); a != 0 || b != 0 {
			return fmt.Errorf("%d, %d", a, b)
		}
		return nil
	})

	t.Log("the count")
	counted := func(what string, clients, users uint32, on1, on3 admin.PresenceNode) {
		t.Helper()
		c.until(what, func() error {
			got, err := api{n3}.PresenceCount(c.ctx, nil)
			if err != nil || len(got.Nodes) != 3 || got.Clients != clients || got.Users != users || got.Nodes[0] != on1 || got.Nodes[1] != (admin.PresenceNode{Node: "n2"}) || got.Nodes[2] != on3 {
				return fmt.Errorf("%+v, %v", got, err)
			}
			return nil
		})
	}
	var had admin.PresenceCount
	c.until("those who left are not counted any more", func() (err error) {
		had, err = api{n3}.PresenceCount(c.ctx, nil)
		if err != nil || had.Clients != 5 || had.Users != 5 || len(had.Nodes) != 3 || had.Nodes[0].Users+had.Nodes[2].Users != 5 {
			return fmt.Errorf("%+v, %v", had, err)
		}
		return nil
	})
	at := func(old admin.PresenceNode, clients, users uint32) admin.PresenceNode {
		return admin.PresenceNode{Node: old.Node, Clients: old.Clients + clients, Users: old.Users + users}
	}
	c.dial("frank/a", n1)
	c.dial("frank/b", n1)
	counted("two devices on one node are one user", had.Clients+2, had.Users+1, at(had.Nodes[0], 2, 1), had.Nodes[2])
	away := c.dial("frank/c", n3)
	counted("a third one on another node: one user still", had.Clients+3, had.Users+1, at(had.Nodes[0], 2, 1), at(had.Nodes[2], 1, 1))
	away.hangUp()
	counted("and gone again", had.Clients+2, had.Users+1, at(had.Nodes[0], 2, 1), had.Nodes[2])
	for tenant, want := range map[string]uint32{"": had.Clients + 2, "acme": 0} {
		got, err := api{n3}.PresenceCount(c.ctx, &tenant)
		if err != nil || got.Clients != want || len(got.Nodes) != 3 || got.Tenant == nil || *got.Tenant != tenant {
			t.Errorf("tenant %q: %+v, %v", tenant, got, err)
		}
	}
}

// ended waits until the client's session ended for good with code.
func (u *user) ended(code wire.Code) {
	u.t.Helper()
	for {
		select {
		case s := <-u.states:
			if s.Kind == client.Closed && s.Code == code {
				return
			}
		case <-time.After(patience):
			u.t.Fatalf("%v did not end with %v", u.ID(), code)
		}
	}
}

// E4: an own friend source.
func TestFriends(t *testing.T) {
	c := newCluster(t)
	source := FriendFunc(func(_ context.Context, of wire.ClientID) ([]string, error) {
		switch of.ID {
		case "alice":
			return []string{"bob", "carol", "not*valid"}, nil
		case "hermit":
			return nil, nil
		}
		return nil, errors.New("no such person")
	})
	n := c.found("n1", func(cfg *Config) { cfg.Friends = source })
	alice := c.dial("alice", n)
	w := alice.watch()
	w.seesOffline("bob")
	w.seesOffline("carol")
	bob := c.dial("bob", n)
	w.seesOnline("bob", "n1")
	bob.hangUp()
	w.seesOffline("bob")

	t.Log("a friend watched by name as well stays watched when the list does not")
	v := alice.watch("bob")
	v.seesOffline("bob")
	w.stop()
	<-w.result
	c.dial("bob", n)
	v.seesOnline("bob", "n1")

	c.dial("hermit", n).watch()
	var we *wire.Error
	if err := <-c.dial("mallory", n).watch().result; !errors.As(err, &we) || we.Code != wire.Unavailable {
		t.Errorf("mallory: %v", err)
	}
}

// fakeTable is a table that the test changes at will.
type fakeTable struct {
	mu sync.Mutex
	by map[wire.ClientID]raftfsm.Route
}

func (f *fakeTable) Lookup(id wire.ClientID) (raftfsm.Route, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.by[id]
	return r, ok
}

func (f *fakeTable) Devices(user wire.ClientID, buf []raftfsm.Device) []raftfsm.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, r := range f.by {
		if id.Tenant == user.Tenant && id.User() == user.ID {
			buf = append(buf, raftfsm.Device{Route: r})
		}
	}
	return buf
}

func (f *fakeTable) set(id string, node wire.NodeID, epoch wire.Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := wire.ClientID{ID: id}
	if epoch == 0 {
		delete(f.by, c)
		return
	}
	f.by[c] = raftfsm.Route{Client: c, Node: node, Incarnation: 1, Epoch: epoch}
}

// fakeWatcher is a session with room for so many states.
type fakeWatcher struct {
	mu      sync.Mutex
	room    int
	got     []wire.Frame
	results []wire.Code
}

func (*fakeWatcher) Client() wire.ClientID { return wire.ClientID{ID: "w"} }

func (f *fakeWatcher) Presence(fr *wire.Frame) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room == 0 {
		return false
	}
	f.room--
	f.got = append(f.got, *fr)
	return true
}

func (f *fakeWatcher) Result(_ uint64, code wire.Code, _, _ string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results = append(f.results, code)
}

func (f *fakeWatcher) take(room int) []wire.Frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got, f.room = nil, room
	return got
}

func fakePresence(t *testing.T) (*presence, *fakeTable) {
	p := newPresence(t.Context())
	table := &fakeTable{by: map[wire.ClientID]raftfsm.Route{}}
	p.table, p.name = table, func(id wire.NodeID) string { return fmt.Sprintf("n%d", id) }
	p.refresh = func(context.Context) error { return nil }
	p.ages = func(_ context.Context, of []raftfsm.Route) []time.Duration {
		out := make([]time.Duration, len(of))
		for i := range out {
			out[i] = 5 * time.Second
		}
		return out
	}
	p.unix = func() int64 { return 100_000 }
	return p, table
}

// A watcher that takes nothing costs one note for each id, and is told the latest states once it does.
func TestPresenceSlowWatcher(t *testing.T) {
	p, table := fakePresence(t)
	s := &fakeWatcher{room: 3}
	w := p.newWatcher(s, func(string) *wire.Error { return nil })
	ids := []string{"a", "b", "c", "d", "e"}
	table.set("a", 1, 7)
	if code, text := w.watch(watchAsk{ids: ids, id: 1}); code != wire.OK {
		t.Fatal(code, text)
	}
	got := s.take(0)
	if len(got) != 3 || got[0].Client != "a" || got[0].Online != 1 || got[0].Epoch != 7 || got[0].Since != 95_000 || got[1].Online != 0 {
		t.Fatalf("%+v", got)
	}
	for e := wire.Epoch(10); e < 500; e++ {
		for _, id := range ids {
			table.set(id, 2, e)
			p.saw(&raftfsm.Event{Kind: raftfsm.RouteSet, Route: raftfsm.Route{Client: wire.ClientID{ID: id}}})
		}
	}
	table.set("e", 0, 0)
	p.saw(&raftfsm.Event{Kind: raftfsm.RouteGone, Route: raftfsm.Route{Client: wire.ClientID{ID: "e"}}})
	if !p.catchUp() {
		t.Error("there is no room, so something is left")
	}
	s.take(2)
	if !p.catchUp() {
		t.Error("there was room for two of five")
	}
	got = append(got[:0], s.take(100)...)
	if p.catchUp() {
		t.Error("there was room for all")
	}
	got = append(got, s.take(100)...)
	slices.SortFunc(got, func(a, b wire.Frame) int { return int(a.Client[0]) - int(b.Client[0]) })
	if len(got) != 5 {
		t.Fatalf("%d states, want the latest of each: %+v", len(got), got)
	}
	for i, f := range got {
		want := wire.Frame{Type: wire.TypePresence, Client: ids[i], Online: 1, Node: "n2", Epoch: 499, Since: 100_000}
		if ids[i] == "e" {
			want.Online, want.Node, want.Since = 0, "", 0
		}
		if fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", f, want)
		}
	}

	t.Log("lost events: everything is looked at again")
	table.set("b", 3, 600)
	p.saw(&raftfsm.Event{Kind: raftfsm.Resync})
	if got := s.take(100); len(got) != 1 || got[0].Client != "b" || got[0].Epoch != 600 {
		t.Errorf("%+v", got)
	}

	t.Log("the end of an incarnation is seen for those it owned")
	for _, id := range []string{"a", "c"} {
		table.set(id, 0, 0)
	}
	p.saw(&raftfsm.Event{Kind: raftfsm.IncarnationEnded, Route: raftfsm.Route{Node: 2, Incarnation: 1}})
	if got := s.take(100); len(got) != 2 {
		t.Errorf("%+v", got)
	}

	t.Log("limits")
	many := make([]string, wire.MaxWatches-4)
	for i := range many {
		many[i] = fmt.Sprintf("x%d", i)
	}
	if code, _ := w.watch(watchAsk{ids: many, id: 2}); code != wire.Refused {
		t.Errorf("%d more: %v", len(many), code)
	}
	if code, _ := w.watch(watchAsk{ids: many[1:], id: 2}); code != wire.OK {
		t.Errorf("%d in all: %v", wire.MaxWatches, code)
	}
	w.unwatch(watchAsk{ids: []string{"a"}, stop: true})
	if n := p.watched.Load(); n != wire.MaxWatches-1 {
		t.Errorf("%d are watched", n)
	}
	w.end()
	if n := p.watched.Load(); n != 0 {
		t.Errorf("%d are watched by nobody", n)
	}
	w.ask(watchAsk{ids: ids, id: 3})
	p.wg.Wait()
	if n := p.watched.Load(); n != 0 || len(s.results) != 0 {
		t.Errorf("a watch after the end: %d watched, %v", n, s.results)
	}
}
