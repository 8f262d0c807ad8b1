package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

func newPoll() *time.Ticker { return time.NewTicker(10 * time.Millisecond) }

// Snapshot takes a snapshot now and drops the log entries that it makes unnecessary; nothing if there is nothing new. If ctx
// ends first, the snapshot is taken nevertheless.
func (s *Store) Snapshot(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	s.setTrailing()
	err := s.await(ctx, func() raft.Future { return s.raft.Snapshot() })
	switch {
	case err == nil, errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	default:
		return fmt.Errorf("take a snapshot: %w", err)
	}
}

// takeSnapshots takes one whenever enough log was written. Raft itself counts entries only, and ours are batches: eight
// thousand of them may be half a megabyte or half a gigabyte.
func (s *Store) takeSnapshots() {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-s.disk.writes:
		case <-retry.C:
		case <-s.fail.failed:
			return
		case <-s.ctx.Done():
			return
		}
		if !s.snapshotDue() {
			continue
		}
		if err := s.Snapshot(s.ctx); err != nil && s.ctx.Err() == nil {
			// Mostly: a change of membership is not applied yet. It is not urgent; a disk that fails is reported elsewhere.
			s.cfg.Logger.Warn("no snapshot was taken, trying again", "error", err)
			retry.Reset(time.Second)
		}
	}
}

func (s *Store) snapshotDue() bool {
	return s.disk.logBytes.Load() >= s.disk.snapBytes.Load() || s.sinceSnapshot() >= s.cfg.SnapshotEntries
}

// sinceSnapshot is how many entries follow the newest snapshot.
func (s *Store) sinceSnapshot() uint64 {
	last := s.raft.LastIndex()
	m := s.snaps.last()
	if m == nil {
		return last
	}
	return last - min(last, m.Index)
}

// nextSnapshotAt decides when the next snapshot is due. A share of chance keeps the nodes, which all see the same log, from
// pausing at the same time.
func (s *Store) nextSnapshotAt() {
	due := s.cfg.SnapshotBytes
	if m := s.snaps.last(); m != nil {
		due = max(due, m.Size)
	}
	s.disk.snapBytes.Store(due + rand.Int64N(due/2+1))
}

// setTrailing tells Raft how many entries to keep behind the snapshot that is about to be taken: twice the distance since
// the one before, so that a follower that is being sent that one still finds the entries it continues with.
func (s *Store) setTrailing() {
	s.trailing.Lock()
	defer s.trailing.Unlock()
	rc := s.raft.ReloadableConfig()
	n := max(rc.TrailingLogs, s.cfg.TrailingLogs, 2*s.sinceSnapshot())
	if n == rc.TrailingLogs {
		return
	}
	rc.TrailingLogs = n
	if err := s.raft.ReloadConfig(rc); err != nil {
		s.cfg.Logger.Warn("the number of log entries to keep could not be set", "error", err)
	}
}

// snapshotInstalled is called when a snapshot, taken here or received, is safe on the disk.
func (s *Store) snapshotInstalled(m *raft.SnapshotMeta) {
	s.disk.configs.installed(m)
	// What was appended while it was written is forgotten; the next one comes a little later for it.
	s.disk.logBytes.Store(0)
	s.nextSnapshotAt()
	// From here on a folder without this snapshot is not taken for a new one.
	s.stable.put(keySnapshot, binary.BigEndian.AppendUint64(nil, m.Index))
}
