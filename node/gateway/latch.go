package gateway

import "sync/atomic"

// latch is a channel to be closed once that exists only while somebody needs it: most sessions live long before anybody waits
// for their end. The zero value is open.
type latch struct{ c atomic.Pointer[chan struct{}] }

// wait is the channel, closed once open was called.
func (l *latch) wait() <-chan struct{} {
	if l.c.Load() == nil {
		c := make(chan struct{})
		l.c.CompareAndSwap(nil, &c)
	}
	return *l.c.Load()
}

// open closes the channel. Once only.
func (l *latch) open() {
	l.wait()
	close(*l.c.Load())
}
