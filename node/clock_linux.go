package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock reads a clock that nobody sets and that goes on while the machine is suspended: a lease must run out during a
// suspension as well. Only differences mean anything.
func bootClock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("imroute: CLOCK_BOOTTIME is not readable, leases cannot be kept: " + err.Error())
	}
	return time.Duration(t.Nano())
}
