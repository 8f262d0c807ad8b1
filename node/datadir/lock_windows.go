package datadir

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockOffset is where the locked byte stands: far behind the pid, because Windows forbids others to read what is locked.
const lockOffset = 1 << 30

// lock takes an exclusive lock on f without waiting. It belongs to the handle, so a second Open within this process is
// refused as well.
func lock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		&windows.Overlapped{Offset: lockOffset})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// syncDir: NTFS journals changes of a folder, and a folder cannot be flushed by its handle without special rights.
func syncDir(string) error { return nil }

func free(path string) (n uint64, err error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	err = windows.GetDiskFreeSpaceEx(p, &n, nil, nil)
	return n, err
}
