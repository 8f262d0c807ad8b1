package node

import (
	"sync/atomic"
	"time"
)

// clockFresh is how long the offset between the runtime's clock and bootClock is believed without looking.
const clockFresh = 100 * time.Microsecond

// clockApart is how far apart two readings may be that are taken for one moment.
const clockApart = 20 * time.Microsecond

var clock struct {
	start  time.Time // of the runtime's monotonic clock, which costs no system call but stands still during suspension
	offset atomic.Int64
	looked atomic.Int64 // on the runtime's clock, when offset was read
}

func init() {
	clock.start = time.Now()
	clock.looked.Store(-int64(time.Hour)) // nobody did
}

// now is bootClock, read by system call once in clockFresh at most: it is asked for each message. What that can miss is a
// suspension that began within clockFresh before the call. To whoever asks, that is a suspension right after the call, which
// no clock can rule out either: a write begun before may leave on resuming.
func now() time.Duration {
	if runtimeClock.Load() {
		return sinceStart()
	}
	mono := int64(time.Since(clock.start))
	if mono-clock.looked.Load() > int64(clockFresh) {
		return look()
	}
	return time.Duration(mono + clock.offset.Load())
}

// lastNow is a moment that has passed, for next to nothing: when anybody last looked at bootClock, which a node that holds a
// lease does for each renewal and each write. It means nothing before the first look, so before the first lease.
func lastNow() time.Duration {
	if runtimeClock.Load() {
		return sinceStart()
	}
	return time.Duration(clock.looked.Load() + clock.offset.Load())
}

// look reads both clocks. A pause of this process between the two readings would pass for a suspension and set this node's
// clock ahead for ever, so only readings close to each other count; the offset is then wrong by clockApart at most.
func look() time.Duration {
	for range 3 {
		before := int64(time.Since(clock.start))
		boot := int64(bootClock())
		after := int64(time.Since(clock.start))
		if after-before > int64(clockApart) {
			continue
		}
		for { // only upwards: time does not run backwards
			old := clock.offset.Load()
			if boot-after <= old || clock.offset.CompareAndSwap(old, boot-after) {
				break
			}
		}
		clock.looked.Store(after)
		return time.Duration(after + clock.offset.Load())
	}
	return bootClock() // right, and the offset is looked at by the next caller
}
