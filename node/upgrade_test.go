package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/raftfsm"
)

func TestPlanLevel(t *testing.T) {
	up := func(name string) raftfsm.Node { return raftfsm.Node{Name: name, State: raftfsm.Up} }
	down, drains := raftfsm.Node{Name: "d"}, raftfsm.Node{Name: "e", State: raftfsm.Draining}
	for _, c := range []struct {
		nodes []raftfsm.Node
		know  map[string]uint32 // none: not heard
		want  levelPlan
	}{
		{nil, nil, levelPlan{}},
		{[]raftfsm.Node{up("a")}, map[string]uint32{"a": 2}, levelPlan{possible: 2}},
		{[]raftfsm.Node{up("a"), up("b")}, map[string]uint32{"a": 2, "b": 3}, levelPlan{possible: 2, heldBack: []string{"a"}}},
		{[]raftfsm.Node{up("a"), down, drains}, map[string]uint32{"a": 3, "d": 1, "e": 2}, levelPlan{possible: 2, heldBack: []string{"e"}}},
		{[]raftfsm.Node{up("a"), up("b")}, map[string]uint32{"a": 2}, levelPlan{silent: []string{"b"}}},
		{[]raftfsm.Node{up("a"), up("old")}, map[string]uint32{"a": 2, "old": 0}, levelPlan{possible: 1, heldBack: []string{"old"}}},
	} {
		got := planLevel(c.nodes, func(n raftfsm.Node) (uint32, bool) { v, ok := c.know[n.Name]; return v, ok })
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v knowing %v: %+v, want %+v", c.nodes, c.know, got, c.want)
		}
	}
}

// A cluster is upgraded node by node; the level follows when it is told to, and whoever knows less stays out.
func TestFeatureLevel(t *testing.T) {
	c := newCluster(t)
	const base = raftfsm.MaxFeatureLevel // what this program knows is agreed from the start; the rest is make-believe
	knows := func(level uint32) func(*Config) { return func(cfg *Config) { cfg.FeatureLevel = level } }
	with := func(cfg Config, change func(*Config)) Config { change(&cfg); return cfg }
	n1 := c.found("n1", knows(base+2))
	n2 := c.start(with(c.joining("n2", n1), knows(base+2)))
	n3 := c.start(with(c.joining("n3", n1), knows(base+1)))
	c.voters(3, n1, n2, n3)
	status := func(at *Node, agreed, possible uint32, heldBack ...string) {
		t.Helper()
		c.until(fmt.Sprintf("level %d of %d, held back by %v", agreed, possible, heldBack), func() error {
			s, err := api{at}.ClusterStatus(c.ctx)
			if err != nil || s.FeatureLevel != agreed || s.PossibleLevel != possible || !slices.Equal(s.HeldBackBy, heldBack) {
				return fmt.Errorf("%d of %d, held back by %v, %w", s.FeatureLevel, s.PossibleLevel, s.HeldBackBy, err)
			}
			return nil
		})
	}
	for _, n := range []*Node{n1, n2, n3} {
		status(n, base, base+1, "n3")
	}
	if _, err := (api{n2}).propose(c.ctx, &raftfsm.Command{Kind: raftfsm.KindFeatureLevel, Level: base + 2}); isError(err, "n3") != nil {
		t.Errorf("more than all can do was agreed on: %v", err)
	}
	u, err := api{n2}.RaiseFeatureLevel(c.ctx)
	if err != nil || u.From != base || u.Level != base+1 || !slices.Equal(u.HeldBackBy, []string{"n3"}) {
		t.Errorf("%+v, %v", u, err)
	}
	status(n1, base+1, base+1, "n3")
	if _, err := (api{n1}).RaiseFeatureLevel(c.ctx); !admin.IsConflict(err) || isError(err, "n3") != nil {
		t.Errorf("nothing to raise: %v", err)
	}
	t.Log("who knows less may not join, nor come back")
	old := with(c.joining("n4", n2), knows(base))
	if _, err := c.open(old); isError(err, fmt.Sprint("feature level ", base), fmt.Sprint("agreed on ", base+1)) != nil {
		t.Errorf("an old joiner: %v", err)
	}
	if len(n1.fsm.Nodes()) != 3 {
		t.Error("it became a member")
	}
	c.stop(n3)
	n3, err = c.open(with(c.config("n3"), knows(base)))
	if err == nil {
		err = n3.Wait()
		c.stop2(n3)
	}
	if isError(err, "upgrade this node") != nil {
		t.Errorf("an old version came back: %v", err)
	}
	t.Log("a node that is down is not waited for")
	c.state(n1, n3.ID(), raftfsm.Down)
	status(n1, base+1, base+2)
	n3 = c.start(with(c.config("n3"), knows(base+3)))
	c.until("raised", func() error {
		u, err := api{n3}.RaiseFeatureLevel(c.ctx)
		if err != nil || u.Level != base+2 || !slices.Equal(u.HeldBackBy, []string{"n1", "n2"}) {
			return fmt.Errorf("%+v, %w", u, err)
		}
		return nil
	})
	status(n2, base+2, base+2, "n1", "n2")
	c.verify(n1)
}

// stop2 closes a node that has failed.
func (c *cluster) stop2(n *Node) {
	c.mu.Lock()
	delete(c.up, n.Name())
	c.mu.Unlock()
	_ = closeNode(n)
}

// A certificate is renewed before it ends, by a voter itself and by others' help, and the cluster outlives the first ones.
func TestCertificateRenewal(t *testing.T) {
	c := newCluster(t)
	short := func(cfg *Config) { cfg.CertValidity = 4 * time.Second }
	n1 := c.found("n1", short)
	cfg := c.joining("n2", n1)
	short(&cfg)
	cfg.NonVoter = true // never holds the CA key
	n2 := c.start(cfg)
	first1, first2 := n1.identity.Load(), n2.identity.Load()
	if n2.ca.Load() != nil {
		t.Fatal("n2 holds the CA key")
	}
	c.until("the first certificates end", func() error {
		if now := time.Now(); !first1.Expired(now) || !first2.Expired(now) {
			return errors.New("they hold")
		}
		return nil
	})
	for n, first := range map[*Node]*mesh.Identity{n1: first1, n2: first2} {
		id := n.identity.Load()
		if id.Expired(time.Now()) || !id.NotAfter().After(first.NotAfter()) {
			t.Errorf("%s was not renewed: it ends at %v, the first at %v", n.Name(), id.NotAfter(), first.NotAfter())
		}
	}
	t.Log("new connections use the new ones, which were kept")
	c.stop(n2)
	again := c.config("n2")
	short(&again)
	n2 = c.start(again)
	if id := n2.identity.Load(); !id.NotAfter().After(first2.NotAfter()) {
		t.Errorf("n2 came back with its first certificate, of %v", id.NotAfter())
	}
	bob := c.dial("bob", n1)
	c.dial("alice", n2).send("bob", "still trusted", wire.AckOwner, wire.Delivered, patience)
	bob.hears("still trusted")
}

// A peer that is no member any more is cut off at once, and whoever shows its certificate later is refused.
func TestRemovedPeerIsCutOff(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	was, addr := n3.identity.Load(), n1.Addrs().Mesh
	watch := n1.fsm.Subscribe(64)
	defer watch.Close()
	removed := make(chan time.Duration, 1)
	go func() {
		for {
			e, err := watch.Next(c.ctx)
			if err != nil {
				return
			}
			if e.Kind == raftfsm.NodeRemoved {
				began := time.Now()
				for n1.mesh.Connected(n3.id) && time.Since(began) < patience {
					<-time.After(time.Millisecond)
				}
				removed <- time.Since(began)
				return
			}
		}
	}()
	if err := (api{n2}).RemoveNode(c.ctx, "n3", true); err != nil {
		t.Fatal(err)
	}
	select {
	case took := <-removed:
		if took > time.Second {
			t.Errorf("it took %v from its removal to the end of its connections", took)
		}
	case <-time.After(patience):
		t.Fatal("n1 did not hear of the removal")
	}
	for _, n := range []*Node{n1, n2} {
		c.until("the peer is forgotten", func() error {
			for _, p := range n.mesh.Peers() {
				if p.ID == n3.id {
					return fmt.Errorf("%s keeps %+v", n.Name(), p)
				}
			}
			return nil
		})
		if _, err := n.mesh.Call(c.ctx, n3.id, wire.CallHash, nil); !errors.Is(err, mesh.ErrNotMember) {
			t.Errorf("%s calls it: %v", n.Name(), err)
		}
	}
	if _, err := mesh.Probe(c.ctx, addr, was); !errors.Is(err, mesh.ErrNotMember) {
		t.Errorf("its certificate still opens the door: %v", err)
	}
}

// A node is drained while messages flow to its clients: each of them is delivered within its time-out.
func TestDrainUnderLoad(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	const clients, senders = 200, 4
	ctx, stop := context.WithCancel(c.ctx)
	defer stop()
	var readers, writers sync.WaitGroup
	var heard atomic.Int64
	users := make([]*user, clients)
	for i := range users {
		users[i] = c.dial(fmt.Sprintf("u%03d", i), n1, n2, n3)
		readers.Go(func() {
			for {
				if _, err := users[i].Receive(ctx); err != nil {
					return
				}
				heard.Add(1)
			}
		})
	}
	if got := n1.gateway.Count(); got != clients {
		t.Fatalf("%d clients on n1", got)
	}
	var sent, retried atomic.Int64
	var failed, why sync.Map
	done := make(chan struct{})
	for i := range senders {
		from := c.dial(fmt.Sprintf("s%d", i), []*Node{n2, n3}[i%2])
		writers.Go(func() {
			for k := i; ; k += senders {
				select {
				case <-done:
					return
				default:
				}
				to := fmt.Sprintf("u%03d", k%clients)
				const timeout = 5 * time.Second
				deadline := time.Now().Add(timeout)
				r, err := from.Send(ctx, to, []byte("m"), client.WithAck(wire.AckClient), client.WithTimeout(timeout))
				for r.Code != wire.Delivered && time.Until(deadline) > 0 { // again, as a caller might
					retried.Add(1)
					why.Store(r.Code.String(), true)
					r, err = from.Send(ctx, to, []byte("m"), client.WithAck(wire.AckClient), client.WithTimeout(time.Until(deadline)))
				}
				if sent.Add(1); r.Code != wire.Delivered {
					failed.Store(fmt.Sprintf("%s: %v, %v", to, r, err), true)
				}
			}
		})
	}
	c.until("messages flow", func() error {
		if sent.Load() < clients {
			return errors.New("too few")
		}
		return nil
	})
	for range 2 { // twice is once
		if _, err := (api{n2}).DrainNode(c.ctx, "n1", false); err != nil {
			t.Fatal(err)
		}
	}
	c.until("not ready", func() error {
		if r := (api{n1}).Ready(); r.Ready {
			return errors.New("ready")
		}
		return nil
	})
	began := time.Now()
	c.until("n1 is empty", func() error {
		d, err := api{n3}.Node(c.ctx, "n1") // what --wait watches
		if err != nil || !d.Reachable || d.Clients != 0 || d.State != admin.StateDraining {
			return fmt.Errorf("%+v, %w", d.Node, err)
		}
		return nil
	})
	emptied, before := time.Since(began), sent.Load()
	c.until("messages flow afterwards", func() error {
		if sent.Load() < before+clients {
			return errors.New("too few")
		}
		return nil
	})
	close(done)
	writers.Wait()
	stop()
	readers.Wait()
	for i, u := range users {
		if r := u.State(); r.Kind != client.Connected || r.Node == "n1" {
			t.Errorf("u%03d is %v", i, r)
		}
	}
	failed.Range(func(what, _ any) bool { t.Error(what); return true })
	var codes []any
	why.Range(func(code, _ any) bool { codes = append(codes, code); return true })
	t.Logf("%d messages, %d heard, %d sent again for %v; empty after %v", sent.Load(), heard.Load(), retried.Load(), codes, emptied)
}
