package store

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// fsm stands between Raft and the state machine to notice a Restore that fails. Raft logs that and goes on, with a state
// machine that holds neither the old nor the new state.
type fsm struct {
	raft.BatchingFSM
	fail    *failStop
	running atomic.Bool // Raft runs: a failed Restore is fatal; until then Open reports it

	mu  sync.Mutex
	err error // guarded by mu: why the last Restore failed
}

// Restore replaces the state.
func (f *fsm) Restore(r io.ReadCloser) error {
	err := f.BatchingFSM.Restore(r)
	if err == nil {
		// A state machine may stop reading where its own data ends; the checksum is compared behind the last byte.
		_, err = io.Copy(io.Discard, r)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("the state machine could not restore its snapshot: %w; %s", err, wipe)
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	if f.running.Load() {
		f.fail.halt(err)
	}
	return err
}

func (f *fsm) restoreErr() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
