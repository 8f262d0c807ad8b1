package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/raftfsm"
)

func TestClusterRoutes(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice, bob, carol := c.dial("alice", n1), c.dial("bob", n2), c.dial("carol", n1)

	t.Log("a recipient on the same node costs no hop, one on another exactly one")
	for _, ack := range []wire.AckMode{wire.AckNone, wire.AckOwner, wire.AckClient} {
		forwarded, delivered, arrived := n1.router.forwarded.Load(), n1.router.delivered.Load(), n2.router.arrived.Load()
		text, want := fmt.Sprintf("ack %d", ack), wire.Delivered
		if ack == wire.AckNone {
			want = wire.None
		}
		if ack == wire.AckClient { // acknowledged when it is received
			done := make(chan client.Result, 2)
			for _, to := range []string{"carol", "bob"} {
				if _, err := alice.SendAsync(to, []byte(text), ack, patience, func(r client.Result) { done <- r }); err != nil {
					t.Fatal(err)
				}
			}
			carol.hears(text)
			bob.hears(text)
			for range 2 {
				if r := <-done; r.Code != wire.Delivered {
					t.Errorf("ack client: %v %s", r.Code, r.Text)
				}
			}
		} else {
			local := alice.send("carol", text, ack, want, patience)
			remote := alice.send("bob", text, ack, want, patience)
			carol.hears(text)
			if m := bob.hears(text); m.From != "alice" || m.Epoch == 0 {
				t.Errorf("bob got %+v", m)
			}
			if ack == wire.AckOwner && (local.Owner != "n1" || remote.Owner != "n2") {
				t.Errorf("owners %q and %q", local.Owner, remote.Owner)
			}
		}
		if f, d, a := n1.router.forwarded.Load()-forwarded, n1.router.delivered.Load()-delivered, n2.router.arrived.Load()-arrived; f != 1 || d != 1 || a != 1 {
			t.Errorf("ack %d: %d forwarded, %d delivered here, %d arrived there, want one each", ack, f, d, a)
		}
	}
	if hops := n2.router.forwarded.Load() + n3.router.forwarded.Load(); hops != 0 {
		t.Errorf("%d messages were forwarded again", hops)
	}

	t.Log("nobody is told offline before a linearizable read")
	reads := n3.router.results[wire.Offline].Load()
	c.dial("dave", n3).send("nobody", "x", wire.AckOwner, wire.Offline, patience)
	if n3.router.results[wire.Offline].Load() != reads+1 {
		t.Error("the offline was not counted")
	}
	alice.send("nobody", "x", wire.AckNone, wire.None, patience)
	if r := <-alice.lost; r.Code != wire.Offline {
		t.Errorf("ack none to nobody: %v, want offline", r.Code)
	}

	t.Log("a route is seen alike by everybody, with who says so")
	for _, at := range []*Node{n1, n2, n3} {
		r := c.route(at, "bob")
		if !r.Found || r.Node != "n2" || r.OwnerCheck != admin.OwnerConfirmed || r.NodeState != "up" || r.Index == 0 || r.Leader == "" {
			t.Errorf("route of bob at %s: %+v", at.Name(), r)
		}
	}
	all, err := api{n3}.Route(c.ctx, admin.RouteQuery{Client: wire.ClientID{ID: "bob"}, Consistency: admin.Local, AllNodes: true})
	if err != nil || len(all.Nodes) != 3 || all.OwnerCheck != admin.OwnerSkipped {
		t.Errorf("views: %+v, %v", all, err)
	}
	for _, v := range all.Nodes {
		if !v.Found || v.Node != "n2" || v.Error != "" {
			t.Errorf("view %+v", v)
		}
	}
	page, err := api{n1}.Routes(c.ctx, admin.RouteListQuery{Limit: 10, Node: "n1"})
	if err != nil || len(page.Routes) != 2 {
		t.Errorf("routes of n1: %+v, %v", page, err)
	}
	stats, err := api{n1}.RouteStats(c.ctx)
	if err != nil || stats.Routes != 4 || stats.ByNode["n2"] != 1 {
		t.Errorf("stats: %+v, %v", stats, err)
	}

	t.Log("a send through the API")
	sent := make(chan admin.SendResult, 1)
	go func() {
		r, err := api{n3}.Send(c.ctx, admin.Message{From: "ops", To: wire.ClientID{ID: "bob"}, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}, Ack: wire.AckClient, Timeout: patience, Payload: []byte("from ops")})
		if err != nil {
			t.Error(err)
		}
		sent <- r
	}()
	bob.hears("from ops")
	if r := <-sent; r.Code != wire.Delivered || r.Owner != "n2" {
		t.Errorf("API send: %+v", r)
	}

	t.Log("a kick")
	k, err := api{n3}.Kick(c.ctx, wire.ClientID{ID: "bob"}, "enough")
	if err != nil || k.Node != "n2" {
		t.Errorf("kick: %+v, %v", k, err)
	}
	bob.sees("the kick", closedWith(wire.Kicked))
	c.routeGoes(n1, "bob")
	if _, err := (api{n1}).Kick(c.ctx, wire.ClientID{ID: "bob"}, ""); !admin.IsNotFound(err) {
		t.Errorf("kick of nobody: %v", err)
	}
	c.dial("gus/phone", n2)
	var e *admin.Error
	if _, err := (api{n1}).Kick(c.ctx, wire.ClientID{ID: "gus"}, ""); !admin.IsNotFound(err) || !errors.As(err, &e) || !strings.Contains(e.Hint, "`imctl route kick gus/phone`") {
		t.Errorf("kick of a user with one device: %v", err)
	}

	t.Log("a client that goes takes its route along")
	carol.hangUp()
	c.routeGoes(n2, "carol")
}

func TestTakeover(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	first := c.dial("bob", n1)
	before := c.route(n3, "bob")
	second := c.dial("bob", n2)
	first.sees("that it was replaced", closedWith(wire.Replaced))
	if err := first.Err(); err == nil {
		t.Error("the replaced client goes on")
	}
	after := c.route(n3, "bob")
	if after.Node != "n2" || after.Epoch <= before.Epoch || after.OwnerCheck != admin.OwnerConfirmed {
		t.Errorf("route %+v after %+v", after, before)
	}
	alice := c.dial("alice", n1)
	alice.send("bob", "to the new one", wire.AckOwner, wire.Delivered, patience)
	second.hears("to the new one")

	t.Log("the same node, another instance")
	third := c.dial("bob", n2)
	second.sees("that it was replaced", closedWith(wire.Replaced))
	alice.send("bob", "third", wire.AckOwner, wire.Delivered, patience)
	third.hears("third")

	t.Log("the same instance on another node, and an older attempt of it")
	x := rawLogin(t, n1, "eve", 7, 1)
	x.want(wire.TypeWelcome)
	y := rawLogin(t, n3, "eve", 7, 2)
	y.want(wire.TypeWelcome)
	if f := x.want(wire.TypeKick); f.Code != wire.Superseded {
		t.Errorf("the older attempt was told %v", f.Code)
	}
	z := rawLogin(t, n2, "eve", 7, 1)
	if f := z.want(wire.TypeKick); f.Code != wire.Superseded {
		t.Errorf("a late older attempt was told %v", f.Code)
	}
	if r := c.route(n2, "eve"); r.Node != "n3" {
		t.Errorf("eve is at %+v", r)
	}

	t.Log("a chain of takeovers ends with one owner")
	last := c.dial("mallory", n1)
	for i := range 9 {
		last = c.dial("mallory", []*Node{n2, n3, n1}[i%3])
	}
	alice.send("mallory", "you", wire.AckOwner, wire.Delivered, patience)
	last.hears("you")
	if st, _ := (api{n1}).RouteStats(c.ctx); st.Routes != 4 {
		t.Errorf("%d routes, want alice, bob, eve, mallory", st.Routes)
	}
	c.verify(n1)
}

func (c *cluster) verify(at *Node) {
	c.t.Helper()
	v, err := api{at}.VerifyTables(c.ctx)
	if err != nil || !v.Agree {
		c.t.Errorf("tables: %+v, %v", v, err)
	}
}

func TestRejectPolicyAndSettings(t *testing.T) {
	c := newCluster(t)
	n1 := c.found("n1", func(cfg *Config) { cfg.Duplicate = "reject"; cfg.Voters = 1 })
	n2 := c.join("n2", n1)
	bob := c.dial("bob", n1)
	cfg, u := dialConfig("bob", n2)
	err := c.dialErr(cfg, u)
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.AlreadyOnline {
		t.Errorf("second login under reject: %v", err)
	}
	c.dial("alice", n2).send("bob", "still there", wire.AckOwner, wire.Delivered, patience)
	bob.hears("still there")
	bob.hangUp()
	c.routeGoes(n2, "bob")
	c.dial("bob", n2)

	if got := (api{n2}).voters(); countTrue(got) != 1 {
		t.Errorf("%v voters with a target of one", got)
	}
	replace, three := "replace", uint32(3)
	s, err := api{n2}.ChangeSettings(c.ctx, admin.SettingsChange{DuplicateLogin: &replace, TargetVoters: &three})
	if err != nil || s.DuplicateLogin != "replace" || s.TargetVoters != 3 {
		t.Errorf("settings: %+v, %v", s, err)
	}
	c.dial("bob", n1)
	if r := c.route(n2, "bob"); r.Node != "n1" {
		t.Errorf("bob is at %+v", r)
	}
	even := uint32(4)
	if _, err := (api{n1}).ChangeSettings(c.ctx, admin.SettingsChange{TargetVoters: &even}); err == nil {
		t.Error("four voters were agreed on")
	}
	t.Log("two voters are not made of one, three are")
	n3 := c.join("n3", n2)
	c.voters(3, n1, n2, n3)
	if _, err := (api{n2}).DemoteNode(c.ctx, "n3"); err != nil {
		t.Errorf("demote: %v", err)
	}
	c.voters(2, n1, n2)
	if _, err := (api{n3}).PromoteNode(c.ctx, "n3"); err != nil {
		t.Errorf("promote: %v", err)
	}
	c.voters(3, n1, n2)
	for _, n := range []*Node{n2, n3} { // a leader hands over first
		c.until(n.Name()+" leads", func() error { // on a busy machine another one may win, or win it back
			if _, err := (api{n1}).TransferLeadership(c.ctx, n.Name()); err != nil {
				return err
			}
			if l := c.leader(n1, n2, n3); l != n {
				return fmt.Errorf("%s leads", l.Name())
			}
			return nil
		})
	}
	if _, err := (api{n1}).DemoteNode(c.ctx, "n3"); err != nil {
		t.Errorf("demoting the leader: %v", err)
	}
	c.voters(2, n1, n2)
}

func TestLostMajority(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	addrs := map[string]wire.Addrs{"n2": n2.Addrs(), "n3": n3.Addrs()}
	alice, carol := c.dial("alice", n1), c.dial("carol", n1)
	bobCfg, bob := dialConfig("bob", n3)
	bobCfg.DisableReconnect = true
	if err := c.dialErr(bobCfg, bob); err != nil {
		t.Fatal(err)
	}
	bob2 := c.dial("bob2", n1)
	id2 := n2.ID()
	c.stop(n3)
	t.Log("two of three go on; what n3 had is gone with its lease")
	c.state(n1, n3.ID(), raftfsm.Down)
	alice.send("bob", "x", wire.AckOwner, wire.Offline, patience)
	c.stop(n2)

	t.Log("one of three knows nothing for certain")
	c.alone(n1)
	unavailable := func(to string) {
		t.Helper()
		r, err := api{n1}.Send(c.ctx, admin.Message{
			From: "ops", To: wire.ClientID{ID: to}, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}, Ack: wire.AckOwner, Timeout: 300 * time.Millisecond, Payload: []byte("x"),
		})
		if err != nil || r.Code != wire.Unavailable {
			t.Errorf("to %s without a quorum: %+v, %v", to, r, err)
		}
	}
	unavailable("nobody")
	if _, err := c.routeErr(n1, "bob"); !admin.IsUnavailable(err) {
		t.Errorf("linearizable read: %v", err)
	}
	if st, err := (api{n1}).ClusterStatus(c.ctx); err != nil || st.Health != admin.HealthNoQuorum {
		t.Errorf("status: %+v, %v", st, err)
	}
	ends := n1.lease.ends.Swap(int64(now() + patience)) // as if a leader had been heard just now
	if st, err := (api{n1}).ClusterStatus(c.ctx); err != nil || st.Health != admin.HealthElecting || len(st.Problems) == 0 {
		t.Errorf("status while there may be an election: %+v, %v", st, err)
	}
	if r := (api{n1}).Ready(); r.Ready || !slices.ContainsFunc(r.Reasons, func(why string) bool { return strings.HasPrefix(why, "electing") }) {
		t.Errorf("while there may be an election: %+v", r)
	}
	n1.lease.ends.Store(ends)
	c.until("the lease is lost", func() error {
		if n1.lease.holds(now()) {
			return errors.New("it holds")
		}
		return nil
	})
	if r := (api{n1}).Ready(); r.Ready {
		t.Error("ready without a lease")
	}
	unavailable("carol")
	alice.sees("that n1 lost its lease for long", closedWith(wire.LeaseLost))

	t.Log("started again from the same folders, one of them on new ports: everything is as it was")
	cfg2, cfg3 := c.config("n2"), c.config("n3")
	cfg2.Name, cfg3.Name = "", ""
	cfg2.Mesh.Bind = addrs["n2"].Mesh
	cfg3.Join = []string{n1.Addrs().Mesh}
	n2, n3 = c.start(cfg2), c.start(cfg3)
	if n2.ID() != id2 || n2.Name() != "n2" || n3.Addrs().Mesh == addrs["n3"].Mesh {
		t.Errorf("n2 came back as %s %v, n3 at %s", n2.Name(), n2.ID(), n3.Addrs().Mesh)
	}
	c.leader(n1, n2, n3)
	for _, u := range []*user{alice, carol, bob2} {
		u.sees("a session again", func(s client.State) bool { return s.Kind == client.Connected })
	}
	dave := c.dial("dave", n3)
	alice.send("dave", "again", wire.AckOwner, wire.Delivered, patience)
	dave.hears("again")
	alice.send("nobody", "x", wire.AckOwner, wire.Offline, patience)
	c.verify(n2)
}

func TestNewPorts(t *testing.T) {
	c := newCluster(t)
	n1, _, _ := c.three()
	old := n1.Addrs().Mesh
	c.closeAll()
	t.Log("all nodes come back on other ports; two of them are told where the third is")
	c1 := c.config("n1")
	n1, err := c.open(c1)
	if err != nil {
		t.Fatal(err)
	}
	if n1.Addrs().Mesh == old {
		t.Skip("the kernel gave the same port again")
	}
	c2, c3 := c.config("n2"), c.config("n3")
	c2.Join, c3.Join = []string{n1.Addrs().Mesh}, []string{n1.Addrs().Mesh}
	n2, n3 := c.start(c2), c.start(c3)
	c.ready(n1)
	c.leader(n1, n2, n3)
	c.until("everybody knows the new addresses", func() error {
		for _, at := range []*Node{n1, n2, n3} {
			for _, of := range []*Node{n1, n2, n3} {
				if v, _ := at.fsm.Node(of.id); v.Addrs != of.Addrs() {
					return fmt.Errorf("%s has %+v of %s", at.Name(), v.Addrs, of.Name())
				}
			}
		}
		return nil
	})
	bob := c.dial("bob", n3)
	c.dial("alice", n2).send("bob", "hello", wire.AckOwner, wire.Delivered, patience)
	bob.hears("hello")
}

func TestLeave(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	n4 := c.join("n4", n2)
	bob := c.dial("bob", n3, n1, n2, n4)
	leave := func(n, at *Node, rest ...*Node) {
		t.Helper()
		ctx, cancel := context.WithTimeout(c.ctx, patience)
		defer cancel()
		if _, err := (api{at}).LeaveNode(ctx, n.Name()); err != nil {
			t.Fatalf("%s: %v", n.Name(), err)
		}
		ended := make(chan error, 1)
		go func() { ended <- n.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s ended with %v", n.Name(), err)
			}
		case <-time.After(patience):
			t.Fatalf("%s did not leave: %+v", n.Name(), api{n}.Ready())
		}
		c.stop(n)
		c.until(n.Name()+" is out", func() error {
			for _, m := range rest {
				members, _, err := m.store.Members()
				if nodes := m.fsm.Nodes(); err != nil || len(nodes) != len(rest) || len(members) != len(rest) {
					return fmt.Errorf("%s sees %d nodes and %v, %v", m.Name(), len(nodes), members, err)
				}
			}
			return nil
		})
		// What is left is a cluster that works.
		u := c.dial("probe", rest...)
		c.dial("prober", rest[len(rest)-1]).send("probe", "after "+n.Name(), wire.AckOwner, wire.Delivered, patience)
		u.hears("after " + n.Name())
	}
	t.Log("a node that is no voter's loss, with a client on it")
	follower, leads := n3, c.leader(n1, n2, n3)
	rest := []*Node{n1, n2, n4}
	if leads == n3 {
		follower, rest = n2, []*Node{n1, n3, n4}
	}
	leave(follower, leads, rest...)
	bob.sees("another node", connectedElsewhere(follower))
	c.voters(3, rest...)
	t.Log("the leader, asked through another node")
	for len(rest) > 1 {
		leads := c.leader(rest...)
		var others []*Node
		for _, n := range rest {
			if n != leads {
				others = append(others, n)
			}
		}
		leave(leads, others[0], others...)
		rest = others
	}
	if _, err := (api{rest[0]}).LeaveNode(c.ctx, rest[0].Name()); !admin.IsConflict(err) {
		t.Errorf("the last one: %v", err)
	}
	t.Log("who left cannot come back as itself")
	cfg := c.config("n1")
	if rest[0].Name() == "n1" {
		cfg = c.config("n2")
	}
	if _, err := c.open(cfg); !errors.Is(err, errRemoved) {
		t.Errorf("started again after leaving: %v", err)
	}
}

// The leader, asked to remove itself, hands over, loses its lease and is told by the others that it is out.
func TestRemoveLeader(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	l := c.leader(n1, n2, n3)
	if err := (api{l}).RemoveNode(c.ctx, l.Name(), true); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{n1, n2, n3} {
		if n != l {
			c.until(n.Name()+" knows it", func() error {
				if !n.fsm.Removed(l.ID()) {
					return errors.New("it does not")
				}
				return nil
			})
		}
	}
	if err := l.Wait(); isError(err, "was removed") != nil {
		t.Errorf("it ended with %v", err)
	}
	c.stop(l)
}

func TestRemoveAndRejoin(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	if err := (api{n1}).RemoveNode(c.ctx, "n3", false); !admin.IsConflict(err) {
		t.Errorf("removing a live node: %v", err)
	}
	id := n3.ID()
	c.stop(n3)
	c.state(n1, id, raftfsm.Down)
	if err := (api{n2}).RemoveNode(c.ctx, "n3", false); err != nil {
		t.Fatalf("remove: %v", err)
	}
	c.voters(2, n1, n2)
	if err := (api{n2}).RemoveNode(c.ctx, "n3", false); !admin.IsNotFound(err) {
		t.Errorf("removing it again: %v", err)
	}
	t.Log("a wiped node takes its old name, as another node, while the old one is down")
	c.stop(n2)
	c.alone(n1) // no quorum: n2 must come back as itself
	if _, err := (api{n1}).Presence(c.ctx, []wire.ClientID{{ID: "bob"}}); !admin.IsUnavailable(err) {
		t.Errorf("who is online, without a quorum: %v", err)
	}
	n2 = c.start(c.config("n2"))
	delete(c.dir, "n3")
	n3 = c.join("n3", n1)
	if n3.ID() == id {
		t.Error("the same id again")
	}
	c.voters(3, n1, n2, n3)
	c.stop(n3)
	c.state(n1, n3.ID(), raftfsm.Down)
	delete(c.dir, "n3")
	again := c.join("n3", n2)
	if _, there := n1.fsm.Node(n3.ID()); there {
		t.Error("the former n3 is still a member")
	}
	c.voters(3, n1, n2, again)

	t.Log("a live node removed by force, once its lease ran out")
	ended := make(chan error, 1)
	go func() { ended <- again.Wait() }()
	if err := (api{n1}).RemoveNode(c.ctx, "n3", true); err != nil {
		t.Fatalf("force: %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, errRemoved) {
			t.Errorf("the removed node ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the removed node goes on")
	}
	c.voters(2, n1, n2)
	c.stop(again)
	delete(c.dir, "n3")
	t.Log("one that was removed while it was down is told when it starts")
	n3 = c.join("n3", n2)
	c.stop(n3)
	if err := (api{n2}).RemoveNode(c.ctx, "n3", true); err != nil {
		t.Fatal(err)
	}
	ghost, err := c.open(c.config("n3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ghost.Wait(); !errors.Is(err, errRemoved) {
		t.Errorf("the removed node ended with %v", err)
	}
}
