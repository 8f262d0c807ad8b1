package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// lockPassing is lockFile for a file that goes with its lock. Who waited for it may have got the lock of a file that its holder has
// just removed: it then begins again, so that no two processes ever hold locks on two files of one name. Where a file that is
// open cannot be removed it stays, for removeUnheld.
func lockPassing(path string, wait time.Duration) (unlock func(), err error) {
	deadline := time.Now().Add(wait)
	for {
		f, err := lockOpen(path, max(time.Until(deadline), 0))
		if err != nil {
			return nil, err
		}
		if isStill(f, path) {
			return func() {
				_ = os.Remove(path) // while it is held: nobody else has it
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // each time round somebody else has finished, so this ends
	}
}

// isStill tells whether path names the open file.
func isStill(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(opened, there)
}

// unheldAge is how old a lock file must be for removeUnheld: younger ones may be about to be locked.
const unheldAge = time.Minute

// removeUnheld removes the lock files in dir that processes have left behind which were killed. It is only for files that are
// locked with lockPassing, and made new for each lock.
func removeUnheld(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.lock")) // the pattern is good
	for _, path := range paths {
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() || time.Since(st.ModTime()) < unheldAge {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return // another user's: so are the others
			}
			continue
		}
		if tryLock(f) == nil && isStill(f, path) {
			_ = os.Remove(path) // the next one tries again
		}
		_ = f.Close()
	}
}
