package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"imroute/mesh/wire"
)

// Store is one member of the Raft group. Its methods may be called from several goroutines.
//
// Lock order: none, since no two of the package's locks are ever held at once.
type Store struct {
	// Fixed after Open.
	cfg    Config
	fail   *failStop
	disk   *disk
	stable *stable
	snaps  *snapStore
	fsm    *fsm
	trans  *transport
	raft   *raft.Raft

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	past   context.Context // ended already: to ask without waiting
	done   chan struct{}   // closed once Raft has ended: whoever still waits for it waits in vain
	calls  sync.WaitGroup  // what begin counted
	loops  sync.WaitGroup  // the store's own goroutines

	leader   leaderState
	transfer transferWatch
	trailing sync.Mutex // one change of Raft's reloadable settings at a time

	closing  sync.Once
	closeErr error // set within closing

	mu     sync.Mutex
	closed bool // guarded by mu
}

// Open opens the folder, restores the FSM from the newest snapshot and starts Raft. A folder without state makes a member
// that waits: for Bootstrap, or until a leader adds it. Whatever is damaged or missing is an error (ErrDamaged) that says
// what to do; Fatal is not called within Open. An Open that fails has closed cfg.Layer.
func Open(cfg Config) (_ *Store, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		if cfg.Layer != nil {
			err = errors.Join(err, cfg.Layer.Close())
		}
		return nil, err
	}
	s := &Store{cfg: cfg, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	past, ended := context.WithCancel(context.Background())
	ended()
	s.past = past
	s.leader.init()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.abort())
		}
	}()

	s.fail = newFailStop(cfg.Logger, func(err error) {
		s.hush()
		cfg.Fatal(err)
	})
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder for the Raft log: %w", err)
	}
	if err := s.openDisk(); err != nil {
		return nil, err
	}
	if err := s.checkFolder(); err != nil {
		return nil, err
	}
	s.trans = newTransport(cfg)
	s.trans.reach = s.reach
	if err := s.startRaft(); err != nil {
		return nil, err
	}
	s.loops.Go(s.watchLeader)
	s.loops.Go(s.takeSnapshots)
	return s, nil
}

func (s *Store) openDisk() error {
	b, err := openBolt(s.cfg.Dir)
	if err != nil {
		return err
	}
	if s.cfg.wrapDB != nil {
		b = s.cfg.wrapDB(b)
	}
	s.disk = &disk{db: b, fail: s.fail, deadline: s.cfg.StoreDeadline, configs: new(configTracker), writes: make(chan struct{}, 1)}
	s.stable = &stable{disk: s.disk}
	s.fsm = &fsm{BatchingFSM: s.cfg.FSM, fail: s.fail}
	if s.snaps, err = openSnapshots(s.cfg.Dir, s.cfg.Logger, s.fail); err != nil {
		return err
	}
	if m := s.snaps.last(); m != nil {
		s.disk.configs.installed(m)
	}
	s.snaps.installed = s.snapshotInstalled
	return nil
}

// checkFolder refuses a folder whose parts do not fit together: log entries that follow no snapshot, a snapshot older than
// one that was finished here, a term (and so a vote) that was lost. Raft would panic over the first and start anew over
// the others.
func (s *Store) checkFolder() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %s; %s", s.cfg.Dir, ErrDamaged, fmt.Sprintf(format, args...), wipe)
	}
	var snap, snapTerm uint64
	if m := s.snaps.last(); m != nil {
		snap, snapTerm = m.Index, m.Term
	}
	first, err := guardIndex(s.disk.db.FirstIndex)
	if err != nil {
		return bad("the first entry of the Raft log: %v", err)
	}
	last, err := guardIndex(s.disk.db.LastIndex)
	if err != nil {
		return bad("the last entry of the Raft log: %v", err)
	}
	for _, key := range []string{keyTerm, keyVoteTerm, keySnapshot} {
		v, err := s.stable.getUint64(key)
		if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return bad("%s: %v", key, err)
		}
		switch {
		case key == keySnapshot && v > snap:
			return bad("the snapshot at index %d is missing", v)
		case key == keyTerm && v < snapTerm:
			return bad("a snapshot is of term %d, the log knows of term %d only: its terms and votes are lost", snapTerm, v)
		}
	}
	if last > snap && first > snap+1 {
		return bad("the log begins at index %d, the newest snapshot ends at %d: what lies between is missing", first, snap)
	}
	has, err := s.HasState()
	if err != nil {
		return err
	}
	if s.cfg.RequireState && !has {
		return bad("this node was a member of a cluster, but its Raft log is empty")
	}
	return nil
}

func (s *Store) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.ProtocolVersion = 3
	c.LocalID = raft.ServerID(s.cfg.Local.String())
	c.HeartbeatTimeout = s.cfg.Heartbeat
	c.ElectionTimeout = s.cfg.Election
	c.LeaderLeaseTimeout = s.cfg.Heartbeat
	c.CommitTimeout = s.cfg.CommitInterval
	c.MaxAppendEntries = s.cfg.MaxAppendEntries
	c.BatchApplyCh = true
	// A removed node is to keep answering (Issue 524: it may never hear of its removal); who runs it decides when it ends.
	c.ShutdownOnRemove = false
	// Snapshots are taken by takeSnapshots, which thinks in bytes.
	c.SnapshotThreshold = math.MaxUint64
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = s.cfg.TrailingLogs
	c.Logger = hclogAdapter{log: s.cfg.Logger}
	// The metrics of go-metrics go to its global sink, which drops them unless somebody sets one up; no goroutine is
	// started for them. Ours are in Stats.
	c.NoLegacyTelemetry = true
	return c
}

// startRaft calls NewRaft on a goroutine of its own, since the stores below end the goroutine that meets a failure.
func (s *Store) startRaft() error {
	logs, err := raft.NewLogCache(2*s.cfg.MaxAppendEntries, s.disk)
	if err != nil {
		return err
	}
	s.fail.quiet.Store(true) // until Raft runs, failures are returned
	s.disk.counting.Store(true)
	type started struct {
		raft *raft.Raft
		err  error
	}
	result := make(chan started, 1)
	go func() {
		var r started
		defer func() { result <- r }()
		r.err = guard(func() (err error) {
			r.raft, err = raft.NewRaft(s.raftConfig(), s.fsm, logs, s.stable, s.snaps, s.trans)
			return err
		})
	}()
	var r started
	select {
	case r = <-result:
	case <-s.fail.failed:
		select {
		case r = <-result:
			s.raft = r.raft
		case <-time.After(closeGrace): // it hangs in a write that may never end
		}
		return s.fail.err
	}
	s.raft = r.raft
	s.disk.counting.Store(false)
	s.nextSnapshotAt()
	switch {
	case s.fsm.restoreErr() != nil:
		return s.fsm.restoreErr()
	case r.err != nil:
		return fmt.Errorf("start Raft: %w", r.err)
	}
	s.fsm.running.Store(true)
	s.snaps.running.Store(true)
	s.fail.quiet.Store(false)
	return s.fail.hasFailed() // of the moment before: nobody was told
}

// HasState tells whether this folder belongs to a cluster already: it has entries, a snapshot, or has heard of a term.
func (s *Store) HasState() (bool, error) {
	if err := s.begin(); err != nil {
		return false, err
	}
	defer s.end()
	if s.snaps.last() != nil {
		return true, nil
	}
	last, err := guardIndex(s.disk.db.LastIndex)
	if err != nil {
		return false, fmt.Errorf("read the Raft log: %w; %s", err, wipe)
	}
	term, err := s.stable.getUint64(keyTerm)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return false, fmt.Errorf("read the Raft term: %w; %s", err, wipe)
	}
	return last > 0 || term > 0, nil
}

// Bootstrap founds a cluster with this node as its only voter. It is refused with ErrHasState when there is state.
func (s *Store) Bootstrap() error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	id := raft.ServerID(s.cfg.Local.String())
	c := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(id)}}}
	err := s.await(context.Background(), func() raft.Future { return s.raft.BootstrapCluster(c) })
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrHasState
	}
	return err
}

// Close ends Raft and closes the folder and the layer. It returns when every goroutine of the store has ended; calls that
// are under way return first, with ErrUnknown if their outcome is not known. It waits for StoreDeadline and some seconds at
// most, and after Fatal for some seconds only: a disk that hangs may never let go. Close does not hand leadership over: see TransferLeadership.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.abort() })
	return s.closeErr
}

// closeGrace is how long Close waits for a member whose disk does not answer.
const closeGrace = 5 * time.Second

// abort undoes as much of Open as was done.
func (s *Store) abort() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.fail.closing.Store(true)
	ended := make(chan error, 1)
	go func() { ended <- s.shutdown() }()
	patience := closeGrace
	if s.fail.hasFailed() == nil {
		patience += s.cfg.StoreDeadline
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return fmt.Errorf("the Raft store did not close within %v: the disk does not answer", patience)
	}
}

func (s *Store) shutdown() (err error) {
	var down raft.Future
	if s.raft != nil {
		down = s.raft.Shutdown()
	}
	// Streams first: Raft's goroutines would wait for answers on them until RPCTimeout.
	if s.trans != nil {
		err = s.trans.Close()
	} else {
		err = s.cfg.Layer.Close()
	}
	if down != nil {
		err = errors.Join(err, down.Error())
	}
	close(s.done)
	s.calls.Wait()
	s.loops.Wait()
	if s.disk != nil {
		err = errors.Join(err, guard(s.disk.db.Close))
	}
	return err
}

// hush ends what Raft says to the others. A leader's heartbeats do not depend on its disk: without this a member whose disk
// hangs would keep its leadership for as long as its process takes to end, which may hang as well.
func (s *Store) hush() {
	if s.trans != nil {
		_ = s.trans.Close() // it has no error
	}
}

// begin counts a call, so that Close waits for it; end must follow unless it returns an error.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) end() { s.calls.Done() }

// Local is this node's id.
func (s *Store) Local() wire.NodeID { return s.cfg.Local }
