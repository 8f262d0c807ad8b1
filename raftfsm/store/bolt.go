package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// db is what lies below the log and the stable store: one bbolt file.
type db interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

const (
	boltFile = "raft.db"
	// lockTimeout is how long to wait for another process to let go of the file. The data folder has a lock of its own, so
	// this one is only met by tools that open the file alone; without a time-out bbolt waits for ever.
	lockTimeout = time.Second
)

// boltOptions: the free list is kept in memory (hashmap: no quadratic behaviour when it fragments) and not written with each
// commit, since it can be found again by walking the pages. NoSync stays off: an append is acknowledged only after its fsync.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// openBolt opens dir's log, or creates it.
func openBolt(dir string) (db, error) {
	path := filepath.Join(dir, boltFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := createBolt(dir, path); err != nil {
			return nil, fmt.Errorf("create the Raft log %s: %w", path, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("open the Raft log %s: %w", path, err)
	}
	// bbolt walks the pages in a goroutine of its own when it opens a file, where a damaged page is a panic that nobody can
	// recover from. So they are walked here first, with plain reads.
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("the Raft log %s cannot be used: %w; %s", path, err, wipe)
	}
	var b *raftboltdb.BoltStore
	err := guard(func() (err error) {
		b, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("the Raft log %s is open in another process: stop it first", path)
	case errors.Is(err, ErrDamaged), errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("the Raft log %s cannot be used: %w: %w; %s", path, ErrDamaged, err, wipe)
	case err != nil:
		return nil, fmt.Errorf("open the Raft log %s: %w", path, err)
	}
	return b, nil
}

// createBolt makes the file under another name first, so that a crash on the way leaves none rather than half of one.
func createBolt(dir, path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := raftboltdb.New(raftboltdb.Options{Path: tmp, BoltOptions: boltOptions()})
	if err != nil {
		return err
	}
	if err := b.Sync(); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := b.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(dir)
}
