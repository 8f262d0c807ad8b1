//go:build unix

package node

import "golang.org/x/sys/unix"

// openFileLimit is how many files this process may have open; the Go runtime has raised the soft limit to the hard one.
func openFileLimit() (uint64, bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, false
	}
	return uint64(l.Cur), true
}
