package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// routerRig is a router between a table, sessions, reads and lanes that do what a test says.
type routerRig struct {
	t *testing.T
	*router
	stop  context.CancelCauseFunc
	ended chan struct{}

	mu      sync.Mutex
	routes  map[string]raftfsm.Route // the local table
	applied uint64
	truth   func(id string) (located, error) // the linearizable read
	reads   int
	noLease bool
	lanes   map[wire.NodeID]*lane.Session
	present *life
	over    map[wire.NodeID]bool // nodes whose incarnation has ended
}

const (
	rigSelf wire.NodeID      = 1
	rigInc  wire.Incarnation = 4
)

func newRouterRig(t *testing.T) *routerRig {
	g := &routerRig{t: t, routes: map[string]raftfsm.Route{}, lanes: map[wire.NodeID]*lane.Session{}, ended: make(chan struct{})}
	g.truth = func(id string) (located, error) {
		r, ok := g.routes[id]
		return located{route: r, found: ok, index: g.applied}, nil
	}
	ctx, stop := context.WithCancelCause(t.Context())
	g.stop = stop
	g.present = &life{incarnation: rigInc, claims: newClaims[session]()}
	r := &router{
		self: rigSelf, table: g, ctx: ctx, pendings: newPendings(1 << 20), flows: flows{by: map[flowKey]*flow{}},
		nameOf: func(id wire.NodeID) string { return fmt.Sprintf("n%d", id) }, nacked: func(wire.Code) {},
		life: func() *life { return g.present },
		lease: func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return !g.noLease
		},
		lane: func(owner wire.NodeID, _ wire.ClientID) *lane.Session {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.lanes[owner]
		},
	}
	r.read = func(ctx context.Context, c wire.ClientID) (located, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.reads++
		if err := ctx.Err(); err != nil {
			return located{}, err
		}
		return g.truth(c.ID)
	}
	r.local.r = r
	g.router = r
	go func() {
		defer close(g.ended)
		r.run(ctx)
	}()
	t.Cleanup(func() {
		g.close()
		for _, l := range g.lanes {
			_ = l.Close()
		}
	})
	return g
}

func (g *routerRig) close() {
	g.stop(errClosed)
	<-g.ended
}

func (g *routerRig) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func (g *routerRig) Lookup(c wire.ClientID) (raftfsm.Route, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.routes[c.ID]
	return r, ok
}

func (g *routerRig) Applied() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.applied
}

func (g *routerRig) WaitApplied(context.Context, uint64) error { return nil }

// Devices makes devices of the routes whose ids begin with user/.
func (g *routerRig) Devices(user wire.ClientID, buf []raftfsm.Device) []raftfsm.Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, r := range g.routes {
		if id == user.ID || strings.HasPrefix(id, user.ID+"/") {
			buf = append(buf, raftfsm.Device{ID: strings.TrimPrefix(id, user.ID), Route: r})
		}
	}
	return buf
}

func (g *routerRig) Incarnation(id wire.NodeID) (wire.Incarnation, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return rigInc, !g.over[id]
}

func route(id string, node wire.NodeID, epoch wire.Epoch) raftfsm.Route {
	return raftfsm.Route{Client: wire.ClientID{ID: id}, Node: node, Incarnation: rigInc, Epoch: epoch}
}

// peer gives the rig a lane to a node, which nobody empties.
func (g *routerRig) peer(id wire.NodeID, queue int) *lane.Session {
	l, err := lane.New(lane.Config{Peer: id, Process: 1, Handler: g.router, QueueBytes: queue, ChunkBytes: 1 << 10})
	if err != nil {
		g.t.Fatal(err)
	}
	g.set(func() { g.lanes[id] = l })
	return l
}

// open puts a session of a client under an epoch, here.
func (g *routerRig) open(id string, epoch wire.Epoch) *fakeSession {
	s := &fakeSession{client: wire.ClientID{ID: id}, id: wire.SessionID{Instance: uint64(epoch), Attempt: 1}, results: make(chan string, 100), fenced: make(chan struct{})}
	c := s.client
	g.present.claims.begin(c, s)
	for _, old := range g.present.claims.learn(c, s, epoch).close {
		old.Close(wire.Replaced, "")
	}
	return s
}

func (g *routerRig) sendMsg(s *fakeSession, to string, counter uint64, ack wire.AckMode, timeout time.Duration) {
	g.send(s, s.order, &wire.Forward{To: to, From: s.client.ID, Instance: wire.Sender(s.client, s.id.Instance), Counter: counter, Ack: ack, Payload: []byte("x")}, timeout)
}

// fakeSession takes messages as it is told to, and keeps what a sender is told.
type fakeSession struct {
	client  wire.ClientID
	id      wire.SessionID
	results chan string
	fenced  chan struct{}

	mu      sync.Mutex
	got     []uint64
	refuse  []wire.Code // for the next deliveries; then they are taken
	receipt wire.Code   // given at once; 0: Delivered
	epoch   wire.Epoch
	closed  wire.Code
	order   *tracker // nil: its messages have no order
}

func (s *fakeSession) Result(counter uint64, code wire.Code, owner, _ string) {
	s.results <- strings.TrimSpace(fmt.Sprintf("%d %v %s", counter, code, owner))
}
func (s *fakeSession) Client() wire.ClientID   { return s.client }
func (s *fakeSession) ID() wire.SessionID      { return s.id }
func (s *fakeSession) Fenced() <-chan struct{} { return s.fenced }

func (s *fakeSession) Open(e wire.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = e
}

func (s *fakeSession) Close(code wire.Code, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == 0 {
		s.closed = code
		close(s.fenced)
	}
}

func (s *fakeSession) DeliverHeld(m *wire.Forward, to gateway.Receipt, _ *gateway.Held) wire.Code {
	s.mu.Lock()
	if len(s.refuse) > 0 {
		code := s.refuse[0]
		s.refuse = s.refuse[1:]
		s.mu.Unlock()
		return code
	}
	s.got = append(s.got, m.Counter)
	code := s.receipt
	s.mu.Unlock()
	if code == 0 {
		code = wire.Delivered
	}
	if m.Ack != wire.AckNone {
		to.Receipt(m.Ref, code)
	}
	return 0
}

func (s *fakeSession) took() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func (s *fakeSession) wants(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.results:
		if got != want {
			t.Errorf("%s was told %q, want %q", s.client, got, want)
		}
	case <-time.After(patience):
		t.Fatalf("%s was not told %q", s.client, want)
	}
}

func TestRouterLocal(t *testing.T) {
	g := newRouterRig(t)
	alice, bob := g.open("alice", 10), g.open("bob", 11)
	g.routes["bob"] = route("bob", rigSelf, 11)
	g.sendMsg(alice, "bob", 1, wire.AckOwner, time.Second)
	alice.wants(t, "1 delivered n1")
	g.sendMsg(alice, "bob", 2, wire.AckNone, time.Second)
	if got := bob.took(); !slices.Equal(got, []uint64{1, 2}) || g.delivered.Load() != 2 || g.forwarded.Load() != 0 || g.reads != 0 {
		t.Errorf("took %v, %d delivered, %d forwarded, %d reads", got, g.delivered.Load(), g.forwarded.Load(), g.reads)
	}
	for i, code := range []wire.Code{wire.Overloaded, wire.TooLarge, wire.OutOfOrder} { // ends, with any ack
		bob.refuse = []wire.Code{code, code}
		for ack := range wire.AckClient {
			n := uint64(10 + 2*i + int(ack))
			g.sendMsg(alice, "bob", n, ack, time.Second)
			owner := " n1"
			if ack == wire.AckNone {
				owner = ""
			}
			alice.wants(t, fmt.Sprintf("%d %v%s", n, code, owner))
		}
	}
	bob.receipt = wire.Unknown
	g.sendMsg(alice, "bob", 20, wire.AckClient, time.Second)
	alice.wants(t, "20 unknown n1")
	if g.pendings.count.Load() != 0 || !g.flows.empty() {
		t.Error("something is left")
	}
}

func TestRouterMiss(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	g.sendMsg(alice, "bob", 1, wire.AckOwner, time.Second)
	alice.wants(t, "1 offline")
	g.sendMsg(alice, "bob", 2, wire.AckNone, time.Second) // a refusal is told whatever the ack
	alice.wants(t, "2 offline")
	if g.reads < 2 {
		t.Errorf("offline after %d reads", g.reads)
	}
	bob := g.open("bob", 11)
	g.set(func() { // somebody else's login, not applied here yet
		g.truth = func(string) (located, error) { return located{route: route("bob", rigSelf, 11), found: true}, nil }
	})
	g.sendMsg(alice, "bob", 3, wire.AckOwner, time.Second)
	alice.wants(t, "3 delivered n1")
	if got := bob.took(); !slices.Equal(got, []uint64{3}) {
		t.Errorf("took %v", got)
	}
	g.set(func() {
		g.truth = func(string) (located, error) { return located{}, &wire.Error{Code: wire.Unavailable} }
	})
	g.sendMsg(alice, "bob", 4, wire.AckOwner, 100*time.Millisecond)
	alice.wants(t, "4 unavailable") // never offline
	g.set(func() { g.noLease, g.routes["bob"] = true, route("bob", rigSelf, 11) })
	g.sendMsg(alice, "bob", 5, wire.AckOwner, 100*time.Millisecond)
	alice.wants(t, "5 unavailable") // refused: certainly not delivered
}

// What was refused is located again, and later messages of the same sender wait behind it.
func TestRouterOrder(t *testing.T) {
	g := newRouterRig(t)
	alice, bob, carol := g.open("alice", 10), g.open("bob", 11), g.open("carol", 12)
	g.routes["bob"], g.routes["carol"] = route("bob", rigSelf, 11), route("carol", rigSelf, 12)
	free := make(chan struct{})
	g.set(func() {
		g.truth = func(id string) (located, error) {
			g.mu.Unlock()
			<-free
			g.mu.Lock()
			return located{route: g.routes[id], found: true}, nil
		}
	})
	delete(g.routes, "bob") // a miss: the read takes its time
	g.sendMsg(alice, "bob", 1, wire.AckOwner, patience)
	untilOr(t, "the read", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.reads == 0 {
			return errors.New("nobody reads")
		}
		return nil
	})
	g.set(func() { g.routes["bob"] = route("bob", rigSelf, 11) })
	for n := uint64(2); n < 30; n++ {
		g.sendMsg(alice, "bob", n, wire.AckMode(n%3), patience)
	}
	g.sendMsg(alice, "carol", 30, wire.AckOwner, patience)
	alice.wants(t, "30 delivered n1") // others do not wait
	if len(carol.took()) != 1 {
		t.Error("carol did not get hers")
	}
	close(free)
	untilOr(t, "all are there", func() error {
		if got := bob.took(); len(got) != 29 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if got := bob.took(); !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
	untilOr(t, "the flow ends", func() error {
		if !g.flows.empty() {
			return errors.New("not yet")
		}
		return nil
	})
	for n := 1; n < 30; n++ {
		if n%3 != int(wire.AckNone) {
			alice.wants(t, fmt.Sprintf("%d delivered n1", n))
		}
	}
}

func TestRouterNack(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	l2 := g.peer(2, 64<<10)
	g.routes["bob"] = route("bob", 2, 11)
	for n := uint64(1); n < 4; n++ {
		g.sendMsg(alice, "bob", n, wire.AckOwner, patience)
	}
	g.sendMsg(alice, "bob", 4, wire.AckNone, patience)
	if g.forwarded.Load() != 4 || l2.Stats().Sent != 4 || g.reads != 0 {
		t.Fatalf("%d forwarded", g.forwarded.Load())
	}
	refs := map[uint64]uint64{}
	for _, p := range g.pendings.all() {
		refs[p.m.Counter] = p.ref
	}
	g.Status(l2, wire.Status{Ref: refs[1], Code: wire.Delivered}, nil)
	alice.wants(t, "1 delivered n2")
	g.Status(l2, wire.Status{Ref: refs[1], Code: wire.Unknown}, nil) // a second answer changes nothing

	// bob moved here; this table is behind what the refusing node has applied, so it is not asked
	bob := g.open("bob", 12)
	g.set(func() {
		g.applied = 5
		g.truth = func(string) (located, error) { return located{route: route("bob", rigSelf, 12), found: true}, nil }
	})
	g.Status(l2, wire.Status{Seq: 4, Code: wire.NotOwner, Index: 9}, &wire.Forward{
		To: "bob", From: "alice", Instance: alice.id.Instance, Counter: 4, LeftMS: 9000, Payload: []byte("x"),
	})
	untilOr(t, "4 arrives", func() error {
		if len(bob.took()) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if g.reads == 0 {
		t.Error("a table that is behind was believed")
	}
	g.set(func() { g.applied, g.routes["bob"] = 9, route("bob", rigSelf, 12) })
	g.Status(l2, wire.Status{Seq: 2, Ref: refs[2], Code: wire.NotOwner, Index: 9}, nil)
	alice.wants(t, "2 delivered n1")

	// node 2 ends without a word about 3
	before := g.forwarded.Load()
	g.abandoned(2, rigInc-1)
	g.abandoned(2, rigInc)
	alice.wants(t, "3 delivered n1")
	if g.forwarded.Load() != before {
		t.Error("sent to the node that ended")
	}
	if got := bob.took(); !slices.Equal(got, []uint64{4, 2, 3}) {
		t.Errorf("bob took %v", got)
	}
}

// A message that may have been delivered is never called offline.
func TestRouterDoubt(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	g.peer(2, 64<<10)
	l3 := g.peer(3, 64<<10)
	g.routes["bob"], g.routes["carol"] = route("bob", 2, 11), route("carol", 3, 12)
	g.sendMsg(alice, "bob", 1, wire.AckOwner, patience)
	g.sendMsg(alice, "carol", 2, wire.AckOwner, patience)
	g.sendMsg(alice, "carol", 3, wire.AckNone, patience)
	g.set(func() { clear(g.routes) })
	g.abandoned(2, rigInc)
	alice.wants(t, "1 unknown")
	_ = l3.Close() // gives back what it had
	got := []string{<-alice.results, <-alice.results}
	slices.Sort(got)
	if !slices.Equal(got, []string{"2 unknown", "3 unknown"}) {
		t.Errorf("told %v", got)
	}
	// With an answer there is no doubt.
	l2 := g.lanes[2]
	g.set(func() { g.routes["bob"] = route("bob", 2, 11) })
	g.sendMsg(alice, "bob", 4, wire.AckOwner, patience)
	ref := g.pendings.all()[0].ref
	g.set(func() { clear(g.routes) })
	g.Status(l2, wire.Status{Ref: ref, Code: wire.NotOwner}, nil)
	alice.wants(t, "4 offline")
	// Nor is one that nobody answers anything but a time-out.
	g.set(func() { g.routes["bob"] = route("bob", 2, 11) })
	g.sendMsg(alice, "bob", 5, wire.AckOwner, 50*time.Millisecond)
	alice.wants(t, "5 timeout")
}

func TestRouterLimits(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	g.routes["far"] = route("far", 9, 20) // a node there is no lane to
	g.set(func() { g.truth = func(string) (located, error) { return located{}, errors.New("no quorum") } })
	g.sendMsg(alice, "far", 1, wire.AckOwner, 50*time.Millisecond)
	alice.wants(t, "1 unavailable")

	g.peer(2, 1<<10)
	g.routes["bob"] = route("bob", 2, 11)
	n := uint64(1)
	for ; len(alice.results) == 0; n++ {
		g.sendMsg(alice, "bob", n, wire.AckNone, patience)
	}
	alice.wants(t, fmt.Sprintf("%d overloaded", n-1))
	g.sendMsg(alice, "bob", n, wire.AckOwner, patience)
	alice.wants(t, fmt.Sprintf("%d overloaded n2", n))

	g.pendings.limit = 10 * pendingCost
	for i := uint64(100); i < 120; i++ {
		g.sendMsg(alice, "nobody", i, wire.AckOwner, patience)
	}
	over := 0
	for len(alice.results) > 0 {
		if strings.HasSuffix(<-alice.results, "overloaded") {
			over++
		}
	}
	if over < 10 || over > 11 {
		t.Errorf("%d of 20 refused with room for about ten", over)
	}
	// The end of the node answers everything that waits, and starts nothing new.
	g.close()
	ended := 0
	for len(alice.results) > 0 {
		if strings.HasSuffix(<-alice.results, "unknown") {
			ended++
		}
	}
	if ended+over != 20 {
		t.Errorf("%d ended, %d refused, of 20", ended, over)
	}
	g.sendMsg(alice, "nobody", 200, wire.AckOwner, patience)
	alice.wants(t, "200 unknown")
	if g.pendings.count.Load() != 0 || !g.flows.empty() {
		t.Errorf("%d pendings are left", g.pendings.count.Load())
	}
}

// A pending that runs out just before it joins its flow must not stay in there.
func TestRouterLateFlow(t *testing.T) {
	g := newRouterRig(t)
	alice := g.open("alice", 10)
	p := g.newPending(alice, &wire.Forward{To: "bob", From: "alice", Instance: 10, Counter: 1, Ack: wire.AckOwner}, patience)
	g.finish(p.ref, wire.Timeout, 0, "")
	alice.wants(t, "1 timeout")
	g.flows.add(g.router, p, 0, nil)
	untilOr(t, "the flow ends", func() error {
		if !g.flows.empty() {
			return errors.New("not yet")
		}
		return nil
	})
	if len(alice.results) != 0 {
		t.Errorf("told twice: %s", <-alice.results)
	}
}

// The owner's side checks lease, incarnation, session and epoch.
func TestRouterOwner(t *testing.T) {
	g := newRouterRig(t)
	bob := g.open("bob", 11)
	l := g.peer(2, 64<<10)
	m := func(change func(*wire.Forward)) *wire.Forward {
		f := &wire.Forward{To: "bob", From: "alice", Instance: 5, Counter: 1, Incarnation: rigInc, Epoch: 11, Ack: wire.AckOwner, Ref: 77, Again: 1}
		change(f)
		return f
	}
	g.applied = 42
	for name, c := range map[string]struct {
		change func(*wire.Forward)
		want   wire.Code
	}{
		"another incarnation": {func(f *wire.Forward) { f.Incarnation++ }, wire.NotOwner},
		"an older epoch":      {func(f *wire.Forward) { f.Epoch-- }, wire.NotOwner},
		"a newer epoch":       {func(f *wire.Forward) { f.Epoch++ }, wire.NotOwner},
		"another client":      {func(f *wire.Forward) { f.To = "carol" }, wire.NotOwner},
		"another tenant":      {func(f *wire.Forward) { f.Tenant = "t" }, wire.NotOwner},
	} {
		if code, index := g.Message(l, 1, m(c.change)); code != c.want || index != 42 {
			t.Errorf("%s: %v at %d", name, code, index)
		}
	}
	g.noLease = true
	if code, _ := g.Message(l, 1, m(func(*wire.Forward) {})); code != wire.NotReady {
		t.Errorf("without a lease: %v", code)
	}
	g.set(func() { g.noLease = false })
	if code, _ := g.Message(l, 1, m(func(*wire.Forward) {})); code != 0 {
		t.Errorf("all right: %v", code)
	}
	if len(bob.took()) != 1 || l.Stats().StatusesOut != 1 || g.arrived.Load() != 1 {
		t.Errorf("took %v, %d statuses", bob.took(), l.Stats().StatusesOut)
	}
}

// A session may open between two messages that were on their way together: the second one is not taken before the first,
// which was refused, has come again. Other senders are not concerned.
func TestRouterRefusesUntilAgain(t *testing.T) {
	g := newRouterRig(t)
	l := g.peer(2, 64<<10)
	m := func(instance, counter uint64, again uint8) *wire.Forward {
		return &wire.Forward{To: "bob", From: "alice", Instance: instance, Counter: counter, Incarnation: rigInc, Epoch: 11, Again: again}
	}
	if code, _ := g.Message(l, 1, m(5, 1, 0)); code != wire.NotOwner {
		t.Fatalf("before the session is open: %v", code)
	}
	bob := g.open("bob", 11)
	for _, step := range []struct {
		m    *wire.Forward
		want wire.Code
	}{
		{m(5, 2, 0), wire.NotOwner}, // it was sent before the refusal came back
		{m(6, 1, 0), 0},             // somebody else
		{m(5, 1, 1), 0},             // now the first comes again
		{m(5, 2, 0), 0},
	} {
		if code, _ := g.Message(l, 1, step.m); code != step.want {
			t.Errorf("message %d of %d, again %d: %v, want %v", step.m.Counter, step.m.Instance, step.m.Again, code, step.want)
		}
	}
	if got := bob.took(); len(got) != 3 {
		t.Errorf("bob took %v", got)
	}
}
