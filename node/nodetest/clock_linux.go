package nodetest

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clock of all times in this package, the nodes' own one.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("nodetest: CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}
