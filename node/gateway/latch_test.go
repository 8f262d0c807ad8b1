package gateway

import (
	"sync"
	"testing"
)

func TestLatch(t *testing.T) {
	for range 200 {
		var l latch
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { <-l.wait() })
		}
		wg.Go(l.open)
		wg.Wait()
		<-l.wait()
	}
}
