package gateway

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is a listener at which somebody always waits.
type crowd struct{ net.Listener }

func (crowd) Accept() (net.Conn, error) { return nil, nil }

// A few who come together are accepted at once, a crowd at a pace.
func TestAcceptIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &steadyListener{Listener: crowd{}, g: new(Gateway)}
		accept := func(n int) time.Duration {
			start := time.Now()
			for range n * runtime.GOMAXPROCS(0) {
				_, _ = l.Accept() // never an error
			}
			return time.Since(start)
		}
		if took := accept(20); took != 0 {
			t.Errorf("a few had to wait for %s", took)
		}
		if took := accept(2_000); took < 50*time.Millisecond || took > 2*time.Second {
			t.Errorf("a crowd was accepted within %s", took)
		}
		if n := l.g.st.paced.Load(); n != 0 {
			t.Errorf("the processor was taken for short %d times: here no nap takes too long", n)
		}
	})
}
