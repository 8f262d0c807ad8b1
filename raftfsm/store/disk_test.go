package store

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// badDB is a disk that begins to fail, or to hang, when told.
type badDB struct {
	db
	failing atomic.Bool
	hanging atomic.Pointer[chan struct{}]
	writes  atomic.Int64 // tried after failing was set
}

var errDisk = errors.New("input/output error")

func (b *badDB) StoreLogs(logs []*raft.Log) error {
	if b.failing.Load() {
		b.writes.Add(1)
		return errDisk
	}
	if c := b.hanging.Load(); c != nil {
		<-*c
	}
	return b.db.StoreLogs(logs)
}

func (b *badDB) Set(k, v []byte) error {
	if b.failing.Load() {
		b.writes.Add(1)
		return errDisk
	}
	return b.db.Set(k, v)
}

func withBadDB(bad *badDB) option {
	return func(c *Config) {
		c.wrapDB = func(d db) db {
			bad.db = d
			return bad
		}
	}
}

func wantFatal(t *testing.T, n *node, want error, text string) {
	t.Helper()
	select {
	case err := <-n.fatal:
		if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Fatalf("Fatal was told: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Fatal was not called")
	}
	if n.IsLeader() {
		t.Fatal("it leads still")
	}
}

func TestFailingWriteStopsTheMember(t *testing.T) {
	var bad badDB
	dir := t.TempDir()
	n := single(t, dir, withBadDB(&bad))
	mustPropose(t, n, 1)
	bad.failing.Store(true)
	if _, _, err := n.Propose(within(t), num(1)); !errors.Is(err, ErrUnknown) {
		t.Fatalf("proposed to a failing disk: %v", err)
	}
	wantFatal(t, n, errDisk, "append to the Raft log")
	// The disk recovers; the member does not: nothing is retried.
	bad.failing.Store(false)
	if _, _, err := n.Propose(within(t), num(1)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("proposed after the failure: %v", err)
	}
	if sum, _ := n.fsm.read(); sum != 1 || bad.writes.Load() != 1 {
		t.Fatalf("sum %d, want 1; %d writes tried, want 1", sum, bad.writes.Load())
	}
	if l, err := n.WaitLeadership(within(t), Leadership{Leading: true, Term: n.Term(), Leader: n.id}); err != nil || l.Leading {
		t.Fatalf("leadership after the failure: %+v, %v", l, err)
	}
	select {
	case err := <-n.fatal:
		t.Fatalf("Fatal was called again: %v", err)
	default:
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(t, newHub(), 1, dir)
	waitLeads(t, n)
	if sum, _ := mustPropose(t, n, 1); sum != 2 {
		t.Fatalf("sum %d after a restart, want 2", sum)
	}
}

// A follower whose disk fails acknowledges nothing and stands for no election; the others go on without it.
func TestFollowerWithFailingDisk(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	var bad badDB
	old := others(nodes, lead)[0]
	dir := old.cfg.Dir
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	sick := open(t, h, old.id, dir, withBadDB(&bad))
	eventually(t, "it follows", func() bool { return sick.CommitIndex() >= lead.CommitIndex() && sick.CommitIndex() > 0 })
	last, err := sick.disk.db.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	bad.failing.Store(true)
	mustPropose(t, lead, 1)
	wantFatal(t, sick, errDisk, "disk")
	mustPropose(t, lead, 1)
	if now, err := sick.disk.db.LastIndex(); now != last || err != nil {
		t.Fatalf("last index %d, was %d: %v", now, last, err)
	}
	if bad.writes.Load() != 1 {
		t.Fatalf("%d writes were tried, want 1", bad.writes.Load())
	}
}

func TestHangingWriteStopsTheMember(t *testing.T) {
	var bad badDB
	n := single(t, t.TempDir(), withBadDB(&bad), func(c *Config) { c.StoreDeadline = 200 * time.Millisecond })
	release := make(chan struct{})
	bad.hanging.Store(&release)
	_, _, err := n.Propose(within(t), num(1))
	if !errors.Is(err, ErrUnknown) {
		t.Fatalf("proposed to a disk that hangs: %v", err)
	}
	wantFatal(t, n, nil, "did not answer within 200ms")
	// The write comes back after all: too late to be acknowledged.
	bad.hanging.Store(nil)
	close(release)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if sum, _ := n.fsm.read(); sum != 0 {
		t.Fatal("it was applied")
	}
}

// A leader whose disk hangs is succeeded although its process has not ended: nobody closes it here.
func TestHangingLeaderIsSucceeded(t *testing.T) {
	h := newHub()
	bad := map[wire.NodeID]*badDB{}
	var nodes []*node
	for _, n := range cluster(t, h) {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		bad[n.id] = new(badDB)
		nodes = append(nodes, open(t, h, n.id, n.cfg.Dir, withBadDB(bad[n.id]), func(c *Config) { c.StoreDeadline = 200 * time.Millisecond }))
	}
	lead := leaderOf(t, nodes...)
	release := make(chan struct{})
	defer close(release) // before the members are closed
	bad[lead.id].hanging.Store(&release)
	if _, _, err := lead.Propose(within(t), num(1)); !errors.Is(err, ErrUnknown) {
		t.Fatalf("proposed to a disk that hangs: %v", err)
	}
	wantFatal(t, lead, nil, "did not answer within")
	mustPropose(t, leaderOf(t, others(nodes, lead)...), 1)
}

func TestFailingDiskWithinOpen(t *testing.T) {
	var bad badDB
	bad.failing.Store(true)
	_, err := tryOpen(t, newHub(), 1, t.TempDir(), withBadDB(&bad))
	if !errors.Is(err, errDisk) {
		t.Fatalf("open on a failing disk: %v", err)
	}
}

// crashDB loses every write after the first n.
type crashDB struct {
	db
	left int
}

func (c *crashDB) Set(k, v []byte) error {
	if c.left--; c.left < 0 {
		return nil // written to memory that was lost
	}
	return c.db.Set(k, v)
}

// A crash between the two writes of a vote must leave the former vote or the new one, never the new term with the old candidate.
func TestVoteIsAtomic(t *testing.T) {
	for writes := range 3 {
		dir := t.TempDir()
		st := func(left int) (*stable, func()) {
			b, err := openBolt(dir)
			if err != nil {
				t.Fatal(err)
			}
			fail := newFailStop(Config{}.withDefaults().Logger, func(err error) { t.Error(err) })
			return &stable{disk: &disk{db: &crashDB{b, left}, fail: fail, deadline: patience}}, func() { _ = b.Close() }
		}
		vote := func(s *stable, term uint64, cand string) { // as raft.persistVote does it
			if err := errors.Join(s.SetUint64([]byte(keyVoteTerm), term), s.Set([]byte(keyVoteCand), []byte(cand))); err != nil {
				t.Fatal(err)
			}
		}
		s, closeIt := st(100)
		if _, err := s.GetUint64([]byte(keyVoteTerm)); err == nil || err.Error() != "not found" { // the text is what Raft compares
			t.Fatalf("no vote: %v", err)
		}
		vote(s, 4, "old")
		closeIt()
		s, closeIt = st(writes)
		vote(s, 5, "new")
		closeIt()
		s, closeIt = st(100)
		term, err1 := s.GetUint64([]byte(keyVoteTerm))
		cand, err2 := s.Get([]byte(keyVoteCand))
		closeIt()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		wantTerm, want := uint64(5), "new"
		if writes == 0 {
			wantTerm, want = 4, "old"
		}
		if term != wantTerm || string(cand) != want {
			t.Fatalf("crash after %d writes: vote of term %d for %q", writes, term, cand)
		}
	}
}

func TestDeleteRangeLeavesNoHole(t *testing.T) {
	b, err := openBolt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fail := newFailStop(Config{}.withDefaults().Logger, func(err error) { t.Error(err) })
	watched := &orderDB{db: b}
	d := &disk{db: watched, fail: fail, deadline: patience, configs: new(configTracker), writes: make(chan struct{}, 1)}
	var logs []*raft.Log
	for i := range uint64(5000) {
		logs = append(logs, &raft.Log{Index: i + 1, Term: 1, Data: []byte("x")})
	}
	if err := d.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	check := func(low, high, first, last uint64, rising bool) {
		t.Helper()
		watched.starts = nil
		if err := d.DeleteRange(low, high); err != nil {
			t.Fatal(err)
		}
		f, _ := d.FirstIndex()
		l, _ := d.LastIndex()
		if f != first || l != last || len(watched.starts) < 2 {
			t.Fatalf("log from %d to %d in %d steps, want %d to %d", f, l, len(watched.starts), first, last)
		}
		for i, s := range watched.starts[1:] {
			if s > watched.starts[i] != rising {
				t.Fatalf("deleted in the order %v", watched.starts)
			}
		}
	}
	check(1, 1500, 1501, 5000, true)     // compaction
	check(3501, 5000, 1501, 3500, false) // a new leader's log differs
	check(1501, 9000, 0, 0, false)
}

type orderDB struct {
	db
	starts []uint64
}

func (o *orderDB) DeleteRange(low, high uint64) error {
	o.starts = append(o.starts, low)
	if high-low >= deleteChunk {
		return errors.New("too many at once")
	}
	return o.db.DeleteRange(low, high)
}

func TestConfigTracker(t *testing.T) {
	conf := func(n int) (c raft.Configuration) {
		c.Servers = make([]raft.Server, n)
		return c
	}
	var tr configTracker
	want := func(index uint64, n int) {
		t.Helper()
		if c := tr.latest(); c.index != index || len(c.Servers) != n {
			t.Fatalf("%d servers at %d, want %d at %d", len(c.Servers), c.index, n, index)
		}
	}
	want(0, 0)
	for i := 1; i <= 10; i++ {
		tr.appended(uint64(10*i), conf(i))
	}
	want(100, 10)
	tr.truncated(100)
	want(90, 9)
	tr.appended(95, conf(5))
	tr.installed(&raft.SnapshotMeta{Index: 80, ConfigurationIndex: 80, Configuration: conf(8)})
	want(95, 5)
	tr.truncated(85)
	want(80, 8)
	tr.appended(99, conf(3)) // never committed
	tr.installed(&raft.SnapshotMeta{Index: 120, ConfigurationIndex: 80, Configuration: conf(8)})
	want(80, 8)
}
