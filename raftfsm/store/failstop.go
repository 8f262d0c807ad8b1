package store

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// failStop makes the first failure the last thing that this member does.
//
// hashicorp/raft answers a failed write by stepping down and standing for election again, and a failed read of its log or
// term by a panic. Neither is wanted: after a write error nobody knows what is on the disk, and a panic says nothing that
// helps. So the stores below Raft report here and then end the goroutine that called them (halt): it stores, votes and
// acknowledges nothing more, and its deferred calls answer whoever waits. As a rule the process has ended before, in fatal.
//
// Safe for use by several goroutines.
type failStop struct {
	log   *slog.Logger
	fatal func(error)

	once    sync.Once
	failed  chan struct{} // closed with the first failure, after err was set
	err     error
	quiet   atomic.Bool // Open is under way: it returns the failure itself
	closing atomic.Bool // the store is being closed: errors are to be expected and say nothing
}

func newFailStop(log *slog.Logger, fatal func(error)) *failStop {
	return &failStop{log: log, fatal: fatal, failed: make(chan struct{})}
}

// fail reports a failure. Only the first one counts.
func (f *failStop) fail(err error) {
	if f.closing.Load() {
		return
	}
	f.once.Do(func() {
		f.err = err
		close(f.failed)
		if f.quiet.Load() {
			return
		}
		f.log.Error("this member stops", "error", err)
		f.fatal(err)
	})
}

// hasFailed returns the first failure, or nil.
func (f *failStop) hasFailed() error {
	select {
	case <-f.failed:
		return f.err
	default:
		return nil
	}
}

// halt reports err and ends the calling goroutine, which must be one of Raft's.
func (f *failStop) halt(err error) {
	f.fail(err)
	runtime.Goexit()
}

// guard calls fn and turns a panic of bbolt, or a fault on a page that cannot be read, into an error: both mean a damaged or
// unreadable file.
func guard(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return fn()
}
