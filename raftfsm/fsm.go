package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// FSMConfig configures an FSM.
type FSMConfig struct {
	// Logger gets what happens to the state machine as a whole. Nil: nothing is logged.
	Logger *slog.Logger
	// Fatal is called once, from the goroutine that applies, when an entry cannot be read or comes out of order: this node
	// must stop, for it no longer knows what the others know. Nothing is applied afterwards. Nil: panic.
	Fatal func(error)
	// EventBuffer is how many events a Subscription holds if it does not ask for a number itself. Zero: 4096.
	EventBuffer int
	// ClusterID is the cluster this data folder belongs to: a snapshot of another one is refused. Zero: whatever is found first.
	ClusterID uint64
	// FeatureLevel is the highest that this node says it knows. Zero: MaxFeatureLevel, and only tests say anything else.
	FeatureLevel uint32
}

const defaultEventBuffer = 4096

// ErrStopped is what the FSM answers after Fatal was called.
var ErrStopped = errors.New("the state machine has stopped: see the log")

// FSM makes a Table a raft.BatchingFSM. The future of an entry gets a Result (whose slices are shared: read only), or an error
// wrapping ErrStopped.
//
// All methods may be called from several goroutines, except those of raft.FSM, which Raft calls one at a time. FSM has no
// goroutine of its own and need not be closed.
//
// Lock order: applyMu, metaMu, stripes in rising order. Whoever reads holds metaMu or one stripe, never both.
type FSM struct {
	config FSMConfig // fixed after construction
	log    *slog.Logger

	applyMu sync.Mutex // held while one entry is applied, by Grab and Restore: whoever holds it may read the whole table

	// table's pointer, its nodes, owners and settings change only under metaMu and all stripes; a stripe's rows under its lock.
	// So either is enough for reading what it guards, the owners under any of them.
	table   *Table
	metaMu  sync.RWMutex
	stripes [stripes]paddedLock
	changed chan struct{} // guarded by metaMu; closed and replaced when nodes change

	applied atomic.Uint64
	waiters waiters
	hub     hub
	failed  atomic.Pointer[error]
	mark    atomic.Pointer[View] // the table at the last marked entry, until somebody takes it
}

// paddedLock keeps look-ups of different stripes off each other's cache lines.
type paddedLock struct {
	sync.RWMutex
	_ [64]byte
}

var _ raft.BatchingFSM = (*FSM)(nil)

// NewFSM makes an FSM with an empty table.
func NewFSM(c FSMConfig) *FSM {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	if c.EventBuffer <= 0 {
		c.EventBuffer = defaultEventBuffer
	}
	if c.FeatureLevel == 0 {
		c.FeatureLevel = MaxFeatureLevel
	}
	f := &FSM{config: c, log: c.Logger, table: NewTable(), changed: make(chan struct{})}
	f.waiters.stopped = make(chan struct{})
	return f
}

// Apply implements raft.FSM.
func (f *FSM) Apply(l *raft.Log) any { return f.applyOne(l) }

// ApplyBatch implements raft.BatchingFSM. Configuration entries count for the applied index; barriers and no-ops of Raft's own
// never arrive here.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = f.applyOne(l)
	}
	return out
}

func (f *FSM) applyOne(l *raft.Log) any {
	if err := f.failed.Load(); err != nil {
		return *err
	}
	if at := f.applied.Load(); l.Index <= at {
		return f.fail(fmt.Errorf("entry %d comes after entry %d", l.Index, at))
	}
	var out any
	if l.Type == raft.LogCommand {
		c, err := f.Decode(l.Data)
		if err != nil {
			return f.fail(fmt.Errorf("entry %d of term %d cannot be read: %w", l.Index, l.Term, err))
		}
		f.applyMu.Lock()
		out = f.table.apply(fsmHost{f}, l.Index, l.Term, c)
		if c.Mark {
			f.keepMark(f.table.Grab(l.Index))
		}
		f.applied.Store(l.Index)
		f.applyMu.Unlock()
	} else {
		f.applyMu.Lock()
		f.applied.Store(l.Index)
		f.applyMu.Unlock()
	}
	f.waiters.wake(l.Index)
	return out
}

// fail stops the state machine for good.
func (f *FSM) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrStopped, err)
	if f.failed.CompareAndSwap(nil, &err) {
		f.log.Error("state machine stops: nothing more is applied on this node", "err", err)
		close(f.waiters.stopped)
		f.config.Fatal(err)
	}
	return err
}

// fsmHost is the FSM as its table sees it.
type fsmHost struct{ f *FSM }

func (h fsmHost) lock(n int)      { h.f.stripes[n].Lock() }
func (h fsmHost) unlock(n int)    { h.f.stripes[n].Unlock() }
func (h fsmHost) lockAll()        { h.f.lockAll() }
func (h fsmHost) unlockAll()      { h.f.unlockAll() }
func (h fsmHost) listening() bool { return h.f.hub.listening() }
func (h fsmHost) emit(e Event)    { h.f.hub.emit(e) }

func (f *FSM) lockAll() {
	f.metaMu.Lock()
	for i := range f.stripes {
		f.stripes[i].Lock()
	}
}

// unlockAll also wakes those who wait for a node to change: only commands that may change one take all locks.
func (f *FSM) unlockAll() {
	close(f.changed)
	f.changed = make(chan struct{})
	for i := range f.stripes {
		f.stripes[i].Unlock()
	}
	f.metaMu.Unlock()
}

// Snapshot implements raft.FSM. It is a Grab.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.failed.Load(); err != nil {
		return nil, *err
	}
	return &snapshot{f.Grab(), f.log}, nil
}

type snapshot struct {
	view *View
	log  *slog.Logger
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.WriteSnapshot(sink); err != nil {
		if cerr := sink.Cancel(); cerr != nil {
			s.log.Warn("cannot discard an unfinished snapshot", "id", sink.ID(), "err", cerr)
		}
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() { s.view.Close() }

// Restore implements raft.FSM. The table changes only if all of the snapshot is sound. The caller closes r.
func (f *FSM) Restore(r io.ReadCloser) error {
	if err := f.failed.Load(); err != nil {
		return *err
	}
	cluster := f.config.ClusterID
	if cluster == 0 {
		cluster = f.ClusterID()
	}
	t, index, err := readSnapshot(r, cluster, f.config.FeatureLevel)
	if err != nil {
		return err
	}
	f.applyMu.Lock()
	f.lockAll()
	f.table = t
	f.applied.Store(index)
	f.unlockAll()
	f.applyMu.Unlock()
	f.keepMark(nil)
	f.hub.resync(index)
	f.waiters.wake(index)
	f.log.Info("restored a snapshot", "index", index, "routes", t.rows, "nodes", len(t.nodes))
	return nil
}

// Grab returns the table as it is. Close it soon.
func (f *FSM) Grab() *View {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	return f.table.Grab(f.applied.Load())
}

// Decode is the function Decode for this node.
func (f *FSM) Decode(b []byte) (*Command, error) { return decode(b, f.config.FeatureLevel) }

// Check is Command.Check against the level agreed on.
func (f *FSM) Check(c *Command) error { return c.check(f.FeatureLevel(), f.config.FeatureLevel) }

// Lookup returns the live route of a client as this node knows it. It takes the read lock of one stripe and allocates nothing.
func (f *FSM) Lookup(c wire.ClientID) (Route, bool) {
	k := makeKey(c)
	n := stripeOf(k.h)
	mu := &f.stripes[n].RWMutex
	mu.RLock()
	r, ok := f.table.lookup(&f.table.stripes[n], k)
	mu.RUnlock()
	return r, ok
}
