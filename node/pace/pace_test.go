package pace

import (
	"runtime"
	"testing"
	"time"
)

// rateOf is how many a second pass while each nap takes that long.
func rateOf(p *Pacer, took time.Duration, n int) float64 {
	var slept time.Duration
	p.sleep = func(time.Duration) time.Duration { slept += took; return took }
	for range n {
		p.Next()
	}
	return float64(n) / slept.Seconds()
}

// With processors to spare nobody waits to speak of; where they are short, the crowd gets in at the least rate, whatever it was
// before, and no slower for naps that take much too long; and it comes to an end.
func TestPacer(t *testing.T) {
	floor := float64(runtime.GOMAXPROCS(0)) * least
	var p Pacer
	rateOf(&p, nap, 1_000_000)
	if got := rateOf(&p, nap, 1_000_000); got < most/2 {
		t.Errorf("%.0f a second passed with processors to spare, want %d", got, most)
	}
	rateOf(&p, 5*time.Millisecond, 10_000)
	for _, took := range []time.Duration{nap + late + 1, 5 * time.Millisecond, together * time.Second / time.Duration(floor)} {
		if got := rateOf(&p, took, 10_000); got < 0.9*floor || got > 1.1*floor {
			t.Errorf("%.0f a second passed while a nap took %s, want %.0f", got, took, floor)
		}
	}
	rateOf(&p, nap, 10_000)
	if got := rateOf(&p, nap, 10_000); got < 2*floor {
		t.Errorf("%.0f a second passed when the processors were free again, want more than %.0f", got, 2*floor)
	}
}
