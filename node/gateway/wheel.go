package gateway

import (
	"sync"
	"time"
)

// tick is the wheel's resolution: a deadline fires up to one tick late, never early.
const tick = 250 * time.Millisecond

// wheelSlots times tick is one revolution (128 s); later deadlines stay in their slot for another round.
const wheelSlots = 512

// timer is one session's place in the wheel. Guarded by wheel.mu.
type timer struct {
	at         int64 // tick number, 0 when not armed
	prev, next *timer
	s          *Session
}

// wheel is a hashed timing wheel: arming, moving and stopping cost O(1) whatever the number of sessions, and there is one
// ticker for all of them. Times are durations since the gateway was made. Safe for many goroutines, advance for one.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots]timer // list heads
	now   int64             // last tick advanced to
	fired []*Session        // scratch of advance
}

func newWheel() *wheel {
	w := &wheel{}
	for i := range w.slots {
		w.slots[i].prev, w.slots[i].next = &w.slots[i], &w.slots[i]
	}
	return w
}

// arm makes t fire once at is over. An armed timer is moved.
func (w *wheel) arm(t *timer, at time.Duration) {
	w.mu.Lock()
	w.armLocked(t, ticksUp(at))
	w.mu.Unlock()
}

// armEarlier is arm, unless t fires before at anyway.
func (w *wheel) armEarlier(t *timer, at time.Duration) {
	w.mu.Lock()
	if n := ticksUp(at); t.at == 0 || n < t.at {
		w.armLocked(t, n)
	}
	w.mu.Unlock()
}

// stop disarms t. A firing that advance has already begun still happens.
func (w *wheel) stop(t *timer) {
	w.mu.Lock()
	w.removeLocked(t)
	w.mu.Unlock()
}

// advance fires every timer whose time is over at now, in no particular order, without holding the lock.
func (w *wheel) advance(now time.Duration, fire func(*Session)) {
	w.mu.Lock()
	to := int64(now / tick)
	for n := min(to-w.now, wheelSlots); n > 0; n-- { // after a long pause one revolution visits everything
		head := &w.slots[(to-n+1)%wheelSlots]
		for t := head.next; t != head; {
			next := t.next
			if t.at <= to {
				w.removeLocked(t)
				w.fired = append(w.fired, t.s)
			}
			t = next
		}
	}
	w.now = max(w.now, to)
	fired := w.fired
	w.fired = nil
	w.mu.Unlock()
	for i, s := range fired {
		fire(s)
		fired[i] = nil
	}
	if cap(fired) <= 4096 {
		w.fired = fired[:0] // only advance touches it
	}
}

func (w *wheel) armLocked(t *timer, at int64) {
	w.removeLocked(t)
	t.at = max(at, w.now+1)
	head := &w.slots[t.at%wheelSlots]
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
}

func (w *wheel) removeLocked(t *timer) {
	if t.at == 0 {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.at, t.prev, t.next = 0, nil, nil
}

func ticksUp(d time.Duration) int64 { return int64((d + tick - 1) / tick) }
