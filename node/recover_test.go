package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
	"imroute/node/datadir"
	"imroute/raftfsm"
)

func onlyVoter(names ...string) (peers []RecoverPeer) {
	for _, name := range names {
		peers = append(peers, RecoverPeer{Node: name, Voter: true})
	}
	return peers
}

// again is the config of a node that comes back as itself, where it was.
func (c *cluster) again(name string, at wire.Addrs) Config {
	cfg := c.config(name)
	cfg.Mesh.Bind, cfg.ClientTCP.Bind = at.Mesh, at.ClientTCP
	return cfg
}

// hasCAKey waits until a voter has its copy of the key: without it nobody could join once the others are lost.
func (c *cluster) hasCAKey(n *Node) {
	c.t.Helper()
	c.until("the CA key reaches "+n.Name(), func() error {
		if n.ca.Load() == nil {
			return errors.New("it is not there")
		}
		return nil
	})
}

func TestRecover(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	addrs := map[string]wire.Addrs{"n1": n1.Addrs(), "n2": n2.Addrs(), "n3": n3.Addrs()}
	alice, bob := c.dial("alice", n1, n3), c.dial("bob", n3)
	alice.send("bob", "before", wire.AckOwner, wire.Delivered, patience)
	bob.hears("before")
	before := c.route(n1, "bob").Epoch

	if _, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter("n3")}); !errors.Is(err, ErrRecoverRunning) || !errors.Is(err, datadir.ErrInUse) {
		t.Fatalf("recovering a running node: %v", err)
	}

	c.hasCAKey(n3)
	t.Log("n3 misses something that the others agree upon; then all are gone")
	c.stop(n3)
	late := c.dial("late", n1)
	late.hangUp()
	c.stop(n2)
	c.alone(n1)
	c.stop(n1)

	for want, peers := range map[string][]RecoverPeer{
		"no member \"n9\"": onlyVoter("n3", "n9"), "is not among them": onlyVoter("n1"), "none is named": nil, "twice": onlyVoter("n3", n3.ID().String()),
		"voter": {{Node: "n3"}},
	} {
		if _, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: peers}); !errors.Is(err, ErrRecoverPeers) || isError(err, want) != nil {
			t.Errorf("peers %v: %v, want %q", peers, err, want)
		}
	}
	nowhere := filepath.Join(t.TempDir(), "typo")
	if _, err := Recover(RecoverConfig{Data: nowhere, Peers: onlyVoter("n3")}); isError(err, "not the data folder") != nil {
		t.Errorf("a folder that does not exist: %v", err)
	}
	if _, err := os.Stat(nowhere); !os.IsNotExist(err) {
		t.Errorf("it was made: %v", err)
	}

	no := errors.New("no")
	if _, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter("n3"), Confirm: func(RecoverPlan) error { return no }}); !errors.Is(err, no) {
		t.Fatalf("refused: %v", err)
	}
	var shown RecoverPlan
	plan, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter("n3"), Confirm: func(p RecoverPlan) error { shown = p; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Generation != 1 || len(plan.Keep) != 1 || plan.Node.Name != "n3" || len(plan.Lose) != 2 || !plan.Lose[0].Voter || plan.Routes == 0 || !plan.CAKey || shown.Recovery != plan.Recovery {
		t.Errorf("plan: %+v", plan)
	}
	dir, err := datadir.Open(c.dir["n3"])
	if err != nil {
		t.Fatal(err)
	}
	half, err := dir.Recovered()
	if half.Pending || err != nil {
		t.Errorf("finished: %+v, %v", half, err)
	}
	half.Pending = true // as if the last step had been cut off
	if err := errors.Join(dir.SetRecovered(half), dir.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(c.again("n3", addrs["n3"])); isError(err, "was interrupted", "again") != nil {
		t.Fatalf("started in between: %v", err)
	}
	rerun, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter(n3.ID().String())})
	if err != nil || rerun.Generation != 1 || rerun.Recovery != plan.Recovery {
		t.Fatalf("run again: %+v, %v", rerun, err)
	}

	t.Log("one is a cluster")
	n3 = c.start(c.again("n3", addrs["n3"]))
	if g := n3.fsm.Generation(); g != 1 {
		t.Errorf("generation %d, want 1", g)
	}
	for _, u := range []*user{alice, bob} {
		c.until(u.ID().ID+" has logged in again", func() error {
			r, err := c.routeErr(n3, u.ID().ID)
			if err == nil && (!r.Found || u.State().Kind != client.Connected) {
				err = fmt.Errorf("%+v, %v", r, u.State())
			}
			return err
		})
	}
	if after := c.route(n3, "bob"); after.Epoch <= before || wire.Epoch(after.Epoch).Generation() != 1 {
		t.Errorf("epoch %d after %d", after.Epoch, before)
	}
	alice.send("bob", "after", wire.AckOwner, wire.Delivered, patience)
	bob.hears("after")
	alice.send("late", "x", wire.AckOwner, wire.Offline, patience)

	t.Log("members that never come back stop nothing: others join, under their names as well")
	c.state(n3, n1.ID(), raftfsm.Down)
	old2 := c.dir["n2"]
	delete(c.dir, "n2")
	n4, n2new := c.join("n4", n3), c.join("n2", n3)
	c.voters(3, n3, n4, n2new)
	if err := (api{n4}).RemoveNode(c.ctx, n1.ID().String(), false); err != nil {
		t.Errorf("removing a lost one: %v", err)
	}
	if l := n4.lineage.lineage(); l.Generation != 1 || l != n3.lineage.lineage() {
		t.Errorf("n4 is of %+v, n3 of %+v", l, n3.lineage.lineage())
	}
	c.verify(n3)

	t.Log("restarted, they are still one cluster")
	at4 := n4.Addrs()
	c.stop(n4)
	n4 = c.start(c.again("n4", at4))
	dave := c.dial("dave", n4)
	alice.send("dave", "hello", wire.AckOwner, wire.Delivered, patience)
	dave.hears("hello")

	t.Log("the lost n2 comes back with its old folder: its id was replaced, it is told")
	cfg := c.again("n2", addrs["n2"])
	cfg.Data = old2
	ghost, err := New(cfg, testLog("ghost"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ghost.Open(c.ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeNode(ghost) }()
	select {
	case <-ghost.Ready():
		t.Error("a node that was given up is ready")
	case <-time.After(2 * fast.Lease):
	}
	alice.send("dave", "undisturbed", wire.AckOwner, wire.Delivered, patience)
	c.verify(n3)
}

// givenUp waits until n has ended because the cluster was recovered without it.
func (c *cluster) givenUp(n *Node) {
	c.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	select {
	case err := <-ended:
		if !errors.Is(err, errGivenUp) || isError(err, "empty its data folder", "--generation") != nil {
			c.t.Errorf("%s ended with %v", n.Name(), err)
		}
	case <-time.After(patience):
		c.t.Errorf("%s, which was given up, goes on", n.Name())
	}
	c.stop(n)
}

// The lost majority comes back as a majority, with entries of its own, in every order.
func TestGivenUpMajorityReturns(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	addrs := map[string]wire.Addrs{"n1": n1.Addrs(), "n2": n2.Addrs(), "n3": n3.Addrs()}
	c.hasCAKey(n3)
	c.stop(n3)
	for i := range 20 { // n1 and n2 go on in the old cluster: same indexes, other entries
		c.dial(fmt.Sprint("old", i), n1).hangUp()
	}
	c.stop(n2)
	c.alone(n1)
	c.stop(n1)
	if _, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter("n3")}); err != nil {
		t.Fatal(err)
	}
	n3 = c.start(c.again("n3", addrs["n3"]))
	alice := c.dial("alice", n3)
	epoch := c.route(n3, "alice").Epoch
	term := n3.store.Term()

	var old []*Node
	for _, name := range []string{"n1", "n2"} {
		n, err := c.open(c.again(name, addrs[name]))
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, n)
	}
	c.givenUp(old[0])
	c.givenUp(old[1])
	if now := n3.store.Term(); now != term {
		t.Errorf("they moved the term from %d to %d", term, now)
	}
	if r := c.route(n3, "alice"); !r.Found || r.Epoch != epoch {
		t.Errorf("they moved a route: %+v, epoch was %d", r, epoch)
	}
	if alice.State().Kind != client.Connected {
		t.Errorf("alice: %v", alice.State())
	}

	t.Log("they meet while n3 is away, and are a cluster of the past until it is back")
	c.stop(n3)
	for i, name := range []string{"n1", "n2"} {
		var err error
		if old[i], err = c.open(c.again(name, addrs[name])); err != nil {
			t.Fatal(err)
		}
	}
	c.ready(old[0])
	c.ready(old[1])
	c.dial("past", old[0]).hangUp()
	n3 = c.start(c.again("n3", addrs["n3"]))
	c.givenUp(old[0])
	c.givenUp(old[1])
	if r := c.route(n3, "past"); r.Found {
		t.Errorf("a route of the past: %+v", r)
	}

	t.Log("wiped, they join again under their names")
	delete(c.dir, "n1")
	delete(c.dir, "n2")
	n1, n2 = c.join("n1", n3), c.join("n2", n3)
	c.voters(3, n1, n2, n3)
	c.verify(n1)
}

// Of five, two are left; both are recovered, and one of them had not heard of everything.
func TestRecoverTwo(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	at2, at3 := n2.Addrs(), n3.Addrs()
	c.hasCAKey(n3)
	c.stop(n3)
	c.dial("late", n1).hangUp()
	c.stop(n2)
	c.alone(n1)
	c.stop(n1)
	both := onlyVoter("n2", "n3")
	one, err := Recover(RecoverConfig{Data: c.dir["n2"], Peers: both})
	if err != nil {
		t.Fatal(err)
	}

	t.Log("n3 was forgotten: n2 waits for it, and n3 is told what to do")
	if n2, err = c.open(c.again("n2", at2)); err != nil {
		t.Fatal(err)
	}
	if n3, err = c.open(c.again("n3", at3)); err != nil {
		t.Fatal(err)
	}
	c.givenUp(n3)
	two, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: both, Generation: one.Generation})
	if err != nil || two.Recovery != one.Recovery {
		t.Fatalf("%+v and %+v: %v", one, two, err)
	}
	n3 = c.start(c.again("n3", at3))
	c.ready(n2)
	c.voters(2, n2, n3)
	if n2.fsm.Generation() != 1 || n3.fsm.Generation() != 1 {
		t.Errorf("generations %d and %d", n2.fsm.Generation(), n3.fsm.Generation())
	}
	if err := (api{n3}).RemoveNode(c.ctx, "n1", false); err != nil {
		t.Errorf("removing the lost one: %v", err)
	}
	c.verify(n2)

	t.Log("a second disaster gets a generation of its own")
	c.stop(n2)
	c.alone(n3)
	c.stop(n3)
	again, err := Recover(RecoverConfig{Data: c.dir["n3"], Peers: onlyVoter("n3")})
	if err != nil || again.Generation != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
	n3 = c.start(c.again("n3", at3))
	c.join("n9", n3)
}

// A data folder that was put back from a backup has forgotten what its node promised since: it must not take part.
func TestOldBackup(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	c.stop(n3)
	cfg := c.config("n3")
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(cfg.Data)); err != nil {
		t.Fatal(err)
	}
	n3 = c.start(cfg)
	c.stop(n3)
	if err := errors.Join(os.RemoveAll(cfg.Data), os.CopyFS(cfg.Data, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	old, err := c.open(cfg)
	if err == nil {
		err = old.Wait()
		c.stop(old)
	}
	if why := isError(err, "older copy", "imctl node remove n3"); why != nil {
		t.Error(why)
	}
	c.leader(n1, n2)
}
