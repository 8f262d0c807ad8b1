package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock reads a clock that nobody sets and that goes on while the machine sleeps (CLOCK_MONOTONIC does on macOS): a lease
// must run out during sleep as well. Only differences mean anything.
func bootClock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("imroute: CLOCK_MONOTONIC is not readable, leases cannot be kept: " + err.Error())
	}
	return time.Duration(t.Nano())
}
