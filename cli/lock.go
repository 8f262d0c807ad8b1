package cli

import (
	"errors"
	"os"
	"time"
)

// errLocked is what tryLock answers while somebody else holds the lock.
var errLocked = errors.New("locked by another process")

// lockFile takes an exclusive lock that ends with the process, waiting at most that long for its holder. The file itself
// stays: removing it would let two processes lock two different files of the same name.
func lockFile(path string, wait time.Duration) (unlock func(), err error) {
	f, err := lockOpen(path, wait)
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil // closing releases the lock
}

// lockOpen returns the file, locked.
func lockOpen(path string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := tryLock(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			_ = f.Close()
			return nil, err
		}
		<-time.After(pause) // neither system offers a wait with a deadline
	}
}
