package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/raftfsm"
)

// kinds lists the differences of a check, by client.
func kinds(r admin.CheckResult) map[string]string {
	out := map[string]string{}
	for _, n := range r.Nodes {
		for _, d := range n.Differences {
			out[d.Client] = fmt.Sprintf("%s %s %v", n.Name, d.Kind, d.Repaired)
		}
	}
	return out
}

// A difference that should never be is forced both ways: found, left alone, repaired on demand and by itself.
func TestRouteCheck(t *testing.T) {
	c := newCluster(t)
	// No lease is lost: a node compares by itself when it has it back.
	n1, n2, _ := c.three(func(cfg *Config) { cfg.Timings.Lease, cfg.Timings.Quiet = time.Minute, time.Minute })
	alice, bob := c.dial("alice", n2), c.dial("bob", n1, n2)
	check := func(at *Node, fix bool) admin.CheckResult {
		t.Helper()
		r, err := api{at}.CheckRoutes(c.ctx, fix)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(n2, true); !r.Clean || len(r.Nodes) != 3 || len(kinds(r)) != 0 {
		t.Fatalf("a sound cluster: %+v", r)
	}
	l := n1.present.Load()
	ghostRow := func(id string) {
		t.Helper()
		ghost := &fakeSession{client: wire.ClientID{ID: id}, id: wire.SessionID{Instance: 77, Attempt: 1}, fenced: make(chan struct{})}
		l.claims.begin(ghost.client, ghost)
		if a, err := l.register(c.ctx, ghost, 0); err != nil || a.Code != raftfsm.OpOK {
			t.Fatalf("%+v, %v", a, err)
		}
		l.claims.ended(ghost.client, ghost) // and nobody unregisters
	}
	ghostRow("ghost")
	lost := c.route(n2, "bob").Epoch
	l.unregister(wire.ClientID{ID: "bob"}, lost) // the row goes, the session stays
	c.routeGoes(n2, "bob")

	t.Log("found, and left alone")
	for range 2 {
		r := check(n2, false)
		if k := kinds(r); r.Clean || len(k) != 2 || k["ghost"] != "n1 row_without_session false" || k["bob"] != "n1 session_without_row false" {
			t.Fatalf("%v in %+v", k, r)
		}
	}
	t.Log("repaired on demand")
	r := check(n2, true)
	if k := kinds(r); !r.Clean || k["ghost"] != "n1 row_without_session true" || k["bob"] != "n1 session_without_row true" {
		t.Fatalf("%v in %+v", k, r)
	}
	c.routeGoes(n2, "ghost")
	bob.sees("why it was closed", closedWith(wire.LeaseLost))
	c.until("bob is back", func() error {
		if r := c.route(n2, "bob"); !r.Found || r.Epoch <= lost || r.OwnerCheck != admin.OwnerConfirmed {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	alice.send("bob", "again", wire.AckOwner, wire.Delivered, patience)
	bob.hears("again")
	if r := check(n1, false); !r.Clean || len(kinds(r)) != 0 {
		t.Errorf("after the repair: %+v", r)
	}
	if rows, sessions := n1.metrics.repairs.rows.Load(), n1.metrics.repairs.sessions.Load(); rows != 1 || sessions != 1 {
		t.Errorf("counted %d and %d", rows, sessions)
	}

	t.Log("repaired by itself, as after a restored snapshot")
	ghostRow("spirit")
	before := n1.metrics.checks.Load()
	n1.checkSoon()
	c.routeGoes(n2, "spirit")
	if n1.metrics.checks.Load() == before {
		t.Error("not counted")
	}
}

// What is on its way is no difference: clients come, go and move while the nodes compare.
func TestRouteCheckUnderChurn(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.TakeoverBurst = 1 << 20 })
	nodes := []*Node{n1, n2, n3}
	ctx, stop := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := i; ctx.Err() == nil; k++ {
				cfg, u := dialConfig(fmt.Sprintf("u%d", i/2), nodes[k%3]) // two devices an id
				if c.dialErr(cfg, u) != nil {
					continue // the other one was faster
				}
				if k%2 == 0 {
					u.hangUp()
				} else {
					defer u.hangUp()
				}
			}
		})
	}
	for _, n := range nodes { // as after coming up, before anybody asks
		c.until("a first comparison", func() error {
			if n.metrics.checks.Load() == 0 {
				return errors.New("none")
			}
			return nil
		})
	}
	for range 15 {
		r, err := api{n1}.CheckRoutes(c.ctx, false)
		if err != nil || !r.Clean || len(kinds(r)) != 0 {
			t.Errorf("%+v, %v", r, err)
			break
		}
	}
	stop()
	wg.Wait()
}

// While a client's operation is queued or in flight, nothing is judged; afterwards what is decided is queued in one step.
func TestWhenIdle(t *testing.T) {
	p := newProposer(3, 8)
	proposed, answer := make(chan *raftfsm.Command), make(chan error)
	p.propose = func(_ context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) {
		proposed <- cmd
		return okFor(cmd, 9), <-answer
	}
	p.answered = func([]operation, raftfsm.Result) {}
	a, b := wire.ClientID{ID: "a"}, wire.ClientID{ID: "b"}
	gone := func(c wire.ClientID) operation {
		return operation{Op: raftfsm.Op{Kind: raftfsm.Unregister, Client: c, Epoch: 5}}
	}
	idle := func(c wire.ClientID) bool { return p.whenIdle(c, 9, func() *operation { return nil }) }
	p.add(gone(a))
	if idle(a) || !idle(b) {
		t.Error("queued")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, func(uint64, []wire.ClientID) {}) }()
	<-proposed
	if idle(a) || !idle(b) {
		t.Error("in flight")
	}
	if !p.whenIdle(b, 9, func() *operation { op := gone(b); return &op }) || idle(b) {
		t.Error("what was decided is not queued")
	}
	answer <- nil
	if cmd := <-proposed; len(cmd.Ops) != 1 || cmd.Ops[0].Client != b {
		t.Errorf("%+v", cmd)
	}
	if !idle(a) || p.whenIdle(a, 8, func() *operation { return nil }) {
		t.Error("answered, and still in flight, or judged by a table that does not have the answer")
	}
	over := errors.New("over")
	cancel(over)
	answer <- over
	if err := <-ended; !errors.Is(err, over) {
		t.Error(err)
	}
	if !idle(b) {
		t.Error("after the end")
	}
}

func TestFights(t *testing.T) {
	f := newFights(3, time.Second)
	f.max = 2
	a, b, c := wire.ClientID{ID: "a"}, wire.ClientID{ID: "b"}, wire.ClientID{ID: "c"}
	at := 100 * time.Second
	count := func(id wire.ClientID, at time.Duration) (n int) {
		for f.allow(id, at) {
			n++
		}
		return n
	}
	for i, x := range []struct {
		id   wire.ClientID
		at   time.Duration
		want int
	}{
		{a, at, 3},
		{a, at + 999*time.Millisecond, 0},
		{a, at + time.Second, 1},
		{b, at + time.Second, 3},
		{a, at + 3*time.Second, 2},
		{a, at + time.Hour, 3},
		{c, at + time.Hour, 3},
		{a, at + time.Hour, 0},
		{b, at + time.Hour, 3}, // b was forgotten, and all of it is back anyway
	} {
		if got := count(x.id, x.at); got != x.want {
			t.Errorf("%d: %d takeovers, want %d", i, got, x.want)
		}
	}
	if f.exhausted(a, at+2*time.Hour) || f.exhausted(wire.ClientID{ID: "d"}, at) || !f.exhausted(b, at+time.Hour) {
		t.Error("exhausted")
	}
	for range 10 {
		f.charge(a, at+2*time.Hour)
	}
	if !f.exhausted(a, at+2*time.Hour) || f.exhausted(a, at+2*time.Hour+time.Second) {
		t.Error("charged to more or less than nothing")
	}
	if len(f.ids) != 2 || f.old.Len() != 2 {
		t.Errorf("%d ids kept, %d in the list", len(f.ids), f.old.Len())
	}
}

// Two devices with one id, each with somebody who starts it again: they settle, and one of them is there all the time.
func TestFightingDevices(t *testing.T) {
	c := newCluster(t)
	const burst, every = 2, 500 * time.Millisecond
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.TakeoverBurst, cfg.TakeoverEvery = burst, every })
	alice := c.dial("alice", n3)
	c.dial("bob", n1).hangUp()
	began := time.Now()
	ctx, stop := context.WithTimeout(c.ctx, 4*time.Second)
	defer stop()
	logins := make(chan struct{}, 10_000)
	var wg sync.WaitGroup
	for _, at := range []*Node{n1, n2, n2} { // also two at the same node
		wg.Go(func() {
			for ctx.Err() == nil {
				cfg, u := dialConfig("bob", at)
				dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
				err := c.dialIn(dialing, cfg, u)
				cancel()
				if err != nil {
					if u.Client != nil {
						u.hangUp()
					}
					continue
				}
				logins <- struct{}{}
				for {
					if _, err := u.Receive(ctx); err != nil {
						break
					}
				}
				u.hangUp()
			}
		})
	}
	c.until("bob is there", func() error {
		if !c.route(n3, "bob").Found {
			return errors.New("not yet")
		}
		return nil
	})
	served, between := 0, 0
	for ctx.Err() == nil {
		r, err := alice.Send(c.ctx, "bob", []byte("who is it?"), client.WithAck(wire.AckOwner), client.WithTimeout(3*time.Second))
		switch r.Code {
		case wire.Delivered:
			served++
		case wire.Offline: // between one and the other
			between++
		default:
			t.Errorf("%v, %v", r, err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	wg.Wait()
	took := time.Since(began)
	refused := n1.metrics.refusedFights.Load() + n2.metrics.refusedFights.Load() + n3.metrics.refusedFights.Load()
	most := 1 + 3*(burst+int(took/every)+1) // the first login is no takeover; a refused device may try the third node
	if got := len(logins); got > most || got < burst {
		t.Errorf("%d logins in %v: want at most %d", got, took, most)
	}
	if between > len(logins) || served < 10*between {
		t.Errorf("%d messages delivered, %d found nobody", served, between)
	}
	if refused == 0 {
		t.Error("nobody was refused")
	}
	t.Logf("%d logins, %d refused, %d messages delivered, %d found nobody in %v", len(logins), refused, served, between, took)
}

// A client id that is given up keeps its row until the login elsewhere replaces it; if that never comes, the row goes by
// itself, and nobody takes it for a difference meanwhile.
func TestAbandonedTakeover(t *testing.T) {
	c := newCluster(t)
	n1 := c.found("n1")
	n2 := c.join("n2", n1)
	alice := c.dial("alice", n2)
	cfg, bob := dialConfig("bob", n1)
	cfg.DisableReconnect = true
	if err := c.dialErr(cfg, bob); err != nil {
		t.Fatal(err)
	}
	was := c.route(n2, "bob")
	began := now()
	var reply wire.RevokeReply
	q := wire.RevokeRequest{Client: wire.ClientID{ID: "bob"}, Incarnation: was.Incarnation, Epoch: was.Epoch, By: wire.SessionID{Instance: 1, Attempt: 1}}
	if err := n2.ask(c.ctx, n1.id, wire.CallRevoke, q, &reply); err != nil || reply.Code != wire.OK {
		t.Fatalf("%v, %v", reply, err)
	}
	bob.sees("that it was replaced", closedWith(wire.Replaced))
	if r := c.route(n2, "bob"); !r.Found || r.Epoch != was.Epoch || r.OwnerCheck != admin.OwnerDenied {
		t.Errorf("right after: %+v", r)
	}
	if r, err := (api{n2}).CheckRoutes(c.ctx, false); err != nil || !r.Clean {
		t.Errorf("%+v, %v", r, err)
	}
	alice.send("bob", "nobody", wire.AckOwner, wire.Offline, patience) // once that is true
	c.routeGoes(n2, "bob")
	if took := now() - began; took < fast.Lease {
		t.Errorf("the row went after %v, before the lease's length of %v", took, fast.Lease)
	}
	if due, all := n1.present.Load().vacated.over(now()); len(due) != 0 || all != 0 {
		t.Errorf("%d vacancies are kept", all)
	}
}
