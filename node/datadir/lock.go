package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var (
	// ErrInUse: another process, or another Dir of this one, has the folder open.
	ErrInUse = errors.New("the data folder is in use")
	// ErrDamaged: a file is not what was written.
	ErrDamaged = errors.New("damaged")
	// ErrIncomplete: the folder holds state of a node but not the file that says which.
	ErrIncomplete = errors.New("the data folder is incomplete")
	// ErrGone: the folder that is open was deleted or moved.
	ErrGone = errors.New("the data folder is gone: it was deleted or moved while the node runs")
	// ErrMissing: a file that was asked for has not been written yet.
	ErrMissing = errors.New("is not there")

	errLocked = errors.New("locked")
)

// acquire takes the lock and writes this process's id into its file. The file is never removed: somebody who has just
// opened it would lock a file that has no name any more, beside the next one's.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder's lock: %w", err)
	}
	if err := lock(f); err != nil {
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("%w: %s is held by %s; stop that process, or choose another folder", ErrInUse, filepath.Dir(path), holder(path))
		} else {
			err = fmt.Errorf("lock the data folder: %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	// The pid is only for the message above, so it need not be synced.
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// release gives the lock back; closing the file is what the system goes by.
func release(f *os.File) error { return errors.Join(f.Truncate(0), f.Close()) }

// holder says who wrote the lock file last.
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid, aerr := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || aerr != nil:
		return "another process"
	case pid == os.Getpid():
		return fmt.Sprintf("this process (pid %d)", pid)
	default:
		return fmt.Sprintf("the process with pid %d", pid)
	}
}
