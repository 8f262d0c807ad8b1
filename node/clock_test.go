package node

import (
	"sync"
	"testing"
)

// now follows the boot clock whoever asks, and however this process is scheduled.
func TestNowFollowsTheBootClock(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := now()
			for range 20_000 {
				before := bootClock()
				at := now()
				after := bootClock()
				if at < last-2*clockApart {
					t.Errorf("%v after %v", at, last)
					return
				}
				if at < before-2*clockApart || at > after+2*clockApart {
					t.Errorf("%v, the boot clock says %v to %v", at, before, after)
					return
				}
				last = at
			}
		})
	}
	wg.Wait()
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		now()
	}
}

func BenchmarkBootClock(b *testing.B) {
	for b.Loop() {
		bootClock()
	}
}
