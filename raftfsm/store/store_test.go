package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func TestThreeMembers(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	sum, index := mustPropose(t, lead, 5)
	if sum != 5 || index == 0 || lead.CommitIndex() < index || lead.LastIndex() < index {
		t.Fatalf("sum %d, index %d, commit %d, last %d", sum, index, lead.CommitIndex(), lead.LastIndex())
	}
	for _, n := range nodes {
		eventually(t, "every member applied it", func() bool { s, _ := n.fsm.read(); return s == 5 })
		members, at, err := n.Members()
		if want := []Member{{1, true}, {2, true}, {3, true}}; err != nil || at == 0 || !slices.Equal(members, want) {
			t.Fatalf("members of %v: %v at %d, %v", n.id, members, at, err)
		}
	}

	follower := others(nodes, lead)[0]
	if _, _, err := follower.Propose(within(t), num(1)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("proposed at a follower: %v", err)
	}
	for name, err := range map[string]error{
		"add": follower.AddNonvoter(within(t), 9), "promote": follower.Promote(within(t), 3), "demote": follower.Demote(within(t), 3),
		"remove": follower.Remove(within(t), 3), "transfer": follower.TransferLeadership(within(t), 0), // a follower may do none of them
	} {
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s at a follower: %v", name, err)
		}
	}

	// The leader dies; the others go on, with what was committed.
	term := lead.Term()
	if err := lead.Close(); err != nil {
		t.Fatal(err)
	}
	rest := others(nodes, lead)
	next := leaderOf(t, rest...)
	if next.Term() <= term {
		t.Fatalf("term %d after %d", next.Term(), term)
	}
	if sum, _ := mustPropose(t, next, 7); sum != 12 {
		t.Fatalf("sum %d, want 12", sum)
	}
	if st := next.Stats(); st.State != "Leader" || st.LastContact != 0 || st.StoreBytes == 0 || st.Fsync.Count == 0 || st.Fsync.Quantile(0.5) == 0 || st.FirstLog != 1 {
		t.Fatalf("stats: %+v", st)
	}
	if _, _, err := lead.Propose(within(t), num(1)); !errors.Is(err, ErrClosed) {
		t.Fatalf("proposed at a closed member: %v", err)
	}
}

func TestMembership(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	fourth := open(t, h, 4, t.TempDir())
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	role := func(id wire.NodeID) string {
		members, _, err := lead.Members()
		must("members", err)
		for _, m := range members {
			if m.ID == id {
				return map[bool]string{true: "voter", false: "nonvoter"}[m.Voter]
			}
		}
		return "none"
	}
	want := func(id wire.NodeID, r string) {
		t.Helper()
		if got := role(id); got != r {
			t.Fatalf("%v is %s, want %s", id, got, r)
		}
	}
	for _, f := range []func(context.Context, wire.NodeID) error{lead.Promote, lead.Demote} {
		if err := f(within(t), 4); !errors.Is(err, ErrNotMember) {
			t.Fatalf("changed a stranger: %v", err)
		}
	}
	must("remove a stranger", lead.Remove(within(t), 4))
	must("add", lead.AddNonvoter(within(t), 4))
	must("add again", lead.AddNonvoter(within(t), 4))
	want(4, "nonvoter")
	mustPropose(t, lead, 3)
	eventually(t, "the new member applied it", func() bool { s, _ := fourth.fsm.read(); return s == 3 })
	if _, ok := fourth.Leader(); !ok {
		t.Fatal("the new member knows no leader")
	}
	must("promote", lead.Promote(within(t), 4))
	must("promote again", lead.Promote(within(t), 4))
	must("add a voter", lead.AddNonvoter(within(t), 4))
	want(4, "voter")
	must("demote", lead.Demote(within(t), 4))
	must("demote again", lead.Demote(within(t), 4))
	want(4, "nonvoter")
	must("remove", lead.Remove(within(t), 4))
	want(4, "none")

	// The leader removes itself and another one takes over.
	must("remove the leader", lead.Remove(within(t), lead.id))
	rest := others(nodes, lead)
	next := leaderOf(t, rest...)
	eventually(t, "the removed leader has stepped down", func() bool { return !lead.Leadership().Leading })
	must("remove", next.Remove(within(t), others(rest, next)[0].id))
	for _, f := range []func(context.Context, wire.NodeID) error{next.Remove, next.Demote} {
		if err := f(within(t), next.id); !errors.Is(err, ErrLastVoter) {
			t.Fatalf("the last voter: %v", err)
		}
	}
	if err := next.TransferLeadership(within(t), 0); !errors.Is(err, ErrNoTarget) {
		t.Fatalf("transfer without a target: %v", err)
	}
	if sum, _ := mustPropose(t, next, 4); sum != 7 {
		t.Fatalf("sum %d, want 7", sum)
	}
}

func TestTransferLeadership(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	mustPropose(t, lead, 1)
	to := others(nodes, lead)[1]
	if err := lead.TransferLeadership(within(t), lead.id); !errors.Is(err, ErrNoTarget) {
		t.Fatalf("transfer to itself: %v", err)
	}
	if err := lead.TransferLeadership(within(t), 77); !errors.Is(err, ErrNoTarget) {
		t.Fatalf("transfer to a stranger: %v", err)
	}
	if err := lead.TransferLeadership(within(t), to.id); err != nil {
		t.Fatal(err)
	}
	if lead.IsLeader() {
		t.Fatal("it leads still")
	}
	waitLeads(t, to)
	if next := leaderOf(t, nodes...); next != to {
		t.Fatalf("%v leads, want %v", next.id, to.id)
	}
	if err := to.TransferLeadership(within(t), 0); err != nil {
		t.Fatal(err)
	}
	next := leaderOf(t, nodes...)
	if sum, _ := mustPropose(t, next, 1); sum != 2 {
		t.Fatalf("sum %d", sum)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	n := open(t, newHub(), 1, dir)
	if has, err := n.HasState(); has || err != nil {
		t.Fatalf("a new folder has state: %v, %v", has, err)
	}
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, n)
	if err := n.Bootstrap(); !errors.Is(err, ErrHasState) {
		t.Fatalf("bootstrapped twice: %v", err)
	}
	if err := n.Snapshot(within(t)); err != nil { // nothing but a configuration yet
		t.Fatal(err)
	}
	for i := range uint64(10) {
		mustPropose(t, n, i)
	}
	if err := n.Snapshot(within(t)); err != nil {
		t.Fatal(err)
	}
	mustPropose(t, n, 100)
	st := n.Stats()
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	if st.SnapshotIndex == 0 || st.SnapshotBytes != 16 || st.LogBytes == 0 {
		t.Fatalf("stats: %+v", st)
	}

	n = open(t, newHub(), 1, dir, func(c *Config) { c.RequireState = true })
	if has, err := n.HasState(); !has || err != nil {
		t.Fatalf("no state after a restart: %v, %v", has, err)
	}
	waitLeads(t, n)
	if n.Term() <= st.Term {
		t.Fatalf("term %d after %d", n.Term(), st.Term)
	}
	if sum, _ := mustPropose(t, n, 0); sum != 145 {
		t.Fatalf("sum %d, want 145", sum)
	}
	if _, c := n.fsm.read(); c != 12 {
		t.Fatalf("%d commands applied, want 12: the snapshot was not used or entries were applied twice", c)
	}
	if err := n.Bootstrap(); !errors.Is(err, ErrHasState) {
		t.Fatalf("bootstrapped a restarted member: %v", err)
	}
}

func TestRequireState(t *testing.T) {
	_, err := tryOpen(t, newHub(), 1, t.TempDir(), func(c *Config) { c.RequireState = true })
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("an empty folder of a former member: %v", err)
	}
}

// A member that was away for longer than the log reaches back gets a snapshot.
func TestSnapshotsByBytesAndInstall(t *testing.T) {
	h := newHub()
	small := func(c *Config) { c.SnapshotBytes, c.TrailingLogs = 64, 1 }
	nodes := cluster(t, h, small)
	lead := leaderOf(t, nodes...)
	away := others(nodes, lead)[0]
	dir := away.cfg.Dir
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	seen := away.LastIndex()
	var first uint64
	eventually(t, "the log no longer reaches back", func() bool {
		mustPropose(t, lead, 1)
		// The largest distance kept only grows, so it does not catch up by itself: give it a fixed one.
		first = lead.Stats().FirstLog
		return first > seen+1 || lead.Stats().SnapshotIndex > seen && forceCompact(t, lead)
	})
	sum, _ := mustPropose(t, lead, 1)
	back := open(t, h, away.id, dir, small)
	eventually(t, "the member that was away has caught up", func() bool { s, _ := back.fsm.read(); return s >= sum })
	if back.Stats().SnapshotIndex == 0 {
		t.Fatal("it has no snapshot")
	}
	m1, i1, _ := lead.Members()
	eventually(t, "it knows the members", func() bool { m2, i2, _ := back.Members(); return slices.Equal(m1, m2) && i1 == i2 })
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	back = open(t, h, away.id, dir, small)
	eventually(t, "and after one more start", func() bool { s, _ := back.fsm.read(); return s >= sum })
	for _, n := range append(nodes, back) {
		if err := n.fail.hasFailed(); err != nil {
			t.Fatal(err)
		}
	}
}

func forceCompact(t testing.TB, n *node) bool {
	t.Helper()
	m := n.snaps.last()
	first, err := n.disk.db.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	if m == nil || first > m.Index {
		return false
	}
	if err := n.disk.DeleteRange(first, m.Index); err != nil {
		t.Fatal(err)
	}
	return true
}

func TestProposeErrors(t *testing.T) {
	n := single(t, t.TempDir(), func(c *Config) {
		c.MaxAppendEntries, c.EnqueueTimeout = 1, 50*time.Millisecond
	})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := n.Propose(ended, num(1)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknown) {
		t.Fatalf("context ended before: %v", err)
	}

	// The state machine stands still: what was handed over is unknown when the caller gives up.
	gate := make(chan struct{})
	defer func() {
		if gate != nil {
			close(gate)
		}
	}()
	n.fsm.mu.Lock() // the FSM's goroutine is idle: nothing is being applied
	n.fsm.gate = gate
	n.fsm.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := n.Propose(ctx, num(1)); !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("context ended after: %v", err)
	}

	// Raft's queues fill up.
	results := make(chan error, 1000)
	run, stop := context.WithCancel(context.Background())
	for range cap(results) {
		go func() {
			_, _, err := n.Propose(run, num(1))
			results <- err
		}()
	}
	overloaded := false
	for !overloaded {
		select {
		case err := <-results:
			if overloaded = errors.Is(err, ErrOverloaded); !overloaded {
				t.Fatalf("with full queues: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a thousand proposals and none is refused")
		}
	}
	stop()
	close(gate)
	gate = nil
}

func TestProposeIsUnknownWithoutQuorum(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	for _, n := range others(nodes, lead) {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := lead.Propose(within(t), num(1))
	for err != nil && errors.Is(err, ErrNotLeader) && lead.IsLeader() {
		_, _, err = lead.Propose(within(t), num(1))
	}
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotLeader) {
		t.Fatalf("without a quorum: %v", err)
	}
	eventually(t, "it steps down", func() bool { return !lead.Leadership().Leading })
	if _, _, err := lead.Propose(within(t), num(1)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("after it stepped down: %v", err)
	}
}

// Raft leaves what is in its queues unanswered when it shuts down; our callers and goroutines must not wait for it.
func TestCloseAnswersWhatIsUnderWay(t *testing.T) {
	n := single(t, t.TempDir(), func(c *Config) { c.StoreDeadline = time.Second })
	gate := make(chan struct{})
	n.fsm.mu.Lock()
	n.fsm.gate = gate
	n.fsm.mu.Unlock()
	results := make(chan error, 500)
	for range cap(results) {
		go func() {
			_, _, err := n.Propose(within(t), num(1))
			results <- err
		}()
	}
	eventually(t, "proposals are under way", func() bool { return n.LastIndex() > 10 })
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	<-n.ctx.Done()
	close(gate)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	for range cap(results) {
		select {
		case err := <-results:
			if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrOverloaded) {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("a caller waits still")
		}
	}
}

func TestStuckTransferIsFatal(t *testing.T) {
	n := single(t, t.TempDir(), func(c *Config) { c.RPCTimeout = time.Millisecond })
	limit := n.transferLimit()
	n.transferRefused()
	n.transfer.over() // a proposal went through: it was a transfer like any other
	n.transferRefused()
	n.transfer.mu.Lock()
	n.transfer.since = n.transfer.since.Add(-limit - time.Second)
	n.transfer.mu.Unlock()
	n.transferRefused()
	select {
	case err := <-n.fatal:
		if !strings.Contains(err.Error(), "stuck") {
			t.Fatal(err)
		}
	default:
		t.Fatal("nobody was told")
	}
	if n.IsLeader() || n.Stats().State != "Failed" {
		t.Fatal("a member that failed leads")
	}
}

func TestConfigNamesTheField(t *testing.T) {
	good := Config{Dir: "d", Local: 1, FSM: new(sumFSM), Layer: newHub().layer(1), Fatal: func(error) {}}
	for field, bad := range map[string]func(*Config){
		"Dir": func(c *Config) { c.Dir = "" }, "Local": func(c *Config) { c.Local = 0 }, "FSM": func(c *Config) { c.FSM = nil },
		"Layer": func(c *Config) { c.Layer = nil }, "Fatal": func(c *Config) { c.Fatal = nil }, "Heartbeat": func(c *Config) { c.Heartbeat = 1 },
		"Election": func(c *Config) { c.Heartbeat, c.Election = time.Second, time.Millisecond }, "MaxAppendEntries": func(c *Config) { c.MaxAppendEntries = 5000 },
		"CommitInterval": func(c *Config) { c.CommitInterval = 1 }, "StoreDeadline": func(c *Config) { c.StoreDeadline = -1 },
	} {
		c := good
		bad(&c)
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func BenchmarkPropose(b *testing.B) {
	n := single(b, b.TempDir())
	cmd := make([]byte, 64)
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := n.Propose(context.Background(), cmd); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("three", func(b *testing.B) {
		lead := leaderOf(b, cluster(b, newHub())...)
		for b.Loop() {
			if _, _, err := lead.Propose(context.Background(), cmd); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel256", func(b *testing.B) {
		b.SetParallelism(128)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, _, err := n.Propose(context.Background(), cmd); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
