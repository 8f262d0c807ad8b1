package store

import (
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Stats is the state of a Store at about one moment. Indexes are those of the Raft log.
type Stats struct {
	State         string // "Follower", "Candidate", "Leader", "Shutdown"; "Failed" after Fatal
	Term          uint64
	CommitIndex   uint64
	AppliedIndex  uint64 // handed to the FSM, which may not have got to it yet
	FirstLog      uint64 // 0: the log is empty
	LastLog       uint64
	SnapshotIndex uint64 // 0: there is no snapshot
	SnapshotTerm  uint64
	SnapshotBytes int64

	// LastContact is how long ago the leader was heard; 0 on the leader, -1 if never.
	LastContact time.Duration
	// LogBytes is how much was appended since the newest snapshot, SnapshotDue at how much the next one is taken.
	LogBytes, SnapshotDue int64
	// StoreBytes is the size of the log's file, which never shrinks.
	StoreBytes int64
	// Fsync is how long durable writes took: appends, votes, terms, compaction.
	Fsync Histogram
}

// Histogram counts durations. Counts[i] are those up to Bounds[i] and above the bound before; the last of Counts has no
// bound. Buckets are the caller's own copy.
type Histogram struct {
	Bounds []time.Duration
	Counts []uint64
	Count  uint64
	Sum    time.Duration
	Max    time.Duration
}

// Quantile returns an upper bound of the q-quantile (0 < q ≤ 1), 0 if nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.Count)))
	for i, n := range h.Counts {
		if n >= rank && h.Count > 0 {
			if i == len(h.Bounds) {
				return h.Max
			}
			return min(h.Bounds[i], h.Max)
		}
		rank -= n
	}
	return h.Max
}

// Buckets are powers of two from 32 µs to 33 s.
const (
	firstBound = 32 * time.Microsecond
	numBounds  = 21
)

// histogram is what Histogram is made from. Safe for use by several goroutines.
type histogram struct {
	counts [numBounds + 1]atomic.Uint64
	sum    atomic.Int64
	max    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for b := firstBound; i < numBounds && d > b; b *= 2 {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
	for m := h.max.Load(); int64(d) > m && !h.max.CompareAndSwap(m, int64(d)); m = h.max.Load() {
	}
}

func (h *histogram) read() Histogram {
	r := Histogram{Sum: time.Duration(h.sum.Load()), Max: time.Duration(h.max.Load())}
	for b, i := firstBound, 0; i < numBounds; b, i = b*2, i+1 {
		r.Bounds = append(r.Bounds, b)
	}
	for i := range h.counts {
		n := h.counts[i].Load()
		r.Counts = append(r.Counts, n)
		r.Count += n
	}
	return r
}

// Stats reads the state. It may be called at any time, also after Close or Fatal, when what needs the disk is 0.
func (s *Store) Stats() Stats {
	st := Stats{
		State: s.raft.State().String(), Term: s.raft.CurrentTerm(), CommitIndex: s.raft.CommitIndex(), AppliedIndex: s.raft.AppliedIndex(),
		LastLog: s.raft.LastIndex(), LastContact: -1,
		LogBytes: s.disk.logBytes.Load(), SnapshotDue: s.disk.snapBytes.Load(), Fsync: s.disk.fsync.read(),
	}
	switch at := s.raft.LastContact(); {
	case s.raft.State() == raft.Leader:
		st.LastContact = 0
	case !at.IsZero():
		st.LastContact = time.Since(at)
	}
	if s.fail.hasFailed() != nil {
		st.State = "Failed"
	} else if s.begin() == nil {
		st.FirstLog, _ = guardIndex(s.disk.db.FirstIndex) // 0 if it cannot be read: a figure, nothing is decided upon it
		s.end()
	}
	if m := s.snaps.last(); m != nil {
		st.SnapshotIndex, st.SnapshotTerm, st.SnapshotBytes = m.Index, m.Term, m.Size
	}
	if fi, err := os.Stat(filepath.Join(s.cfg.Dir, boltFile)); err == nil {
		st.StoreBytes = fi.Size()
	}
	return st
}
