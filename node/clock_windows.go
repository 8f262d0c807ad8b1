package node

import (
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procQueryInterruptTime = windows.NewLazySystemDLL("kernelbase.dll").NewProc("QueryInterruptTime")

// bootClock reads a clock that nobody sets and that goes on while the machine sleeps (QueryInterruptTime counts in 100 ns and
// is biased by sleep): a lease must run out during sleep as well. Only differences mean anything.
func bootClock() time.Duration {
	var t uint64
	_, _, _ = procQueryInterruptTime.Call(uintptr(unsafe.Pointer(&t)))
	return time.Duration(t) * 100
}
