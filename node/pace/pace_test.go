package pace

import (
	"runtime"
	"testing"
	"time"
)

// rateOf is how many a second pass while each nap takes that long.
func rateOf(t *testing.T, p *Pacer, took time.Duration, n int) float64 {
	t.Helper()
	var slept time.Duration
	p.sleep = func(time.Duration) time.Duration { slept += took; return took }
	naps := 0
	for range n {
		before := slept
		short := p.Next()
		if slept > before {
			naps++
		}
		if want := slept > before && took > nap+late; short != want {
			t.Fatalf("after a nap of %s Next says the processor is short: %v, want %v", slept-before, short, want)
		}
	}
	if naps == 0 {
		t.Fatalf("%d passed without a nap", n)
	}
	return float64(n) / slept.Seconds()
}

// With processors to spare nobody waits to speak of; where they are short, the crowd gets in at the least rate, whatever it was
// before, and no slower for naps that take much too long; and it comes to an end.
func TestPacer(t *testing.T) {
	procs := float64(runtime.GOMAXPROCS(0))
	floor, most := procs*least, procs*most
	var p Pacer
	rateOf(t, &p, nap, int(most))
	if got := rateOf(t, &p, nap, int(most)); got < most/2 {
		t.Errorf("%.0f a second passed with processors to spare, want %.0f", got, most)
	}
	rateOf(t, &p, 5*time.Millisecond, int(most))
	for _, took := range []time.Duration{nap + late + 1, 5 * time.Millisecond, catchUp} {
		if got := rateOf(t, &p, took, 10*int(floor)); got < 0.9*floor || got > 1.1*floor {
			t.Errorf("%.0f a second passed while a nap took %s, want %.0f", got, took, floor)
		}
	}
	rateOf(t, &p, nap, 10*int(floor))
	if got := rateOf(t, &p, nap, 10*int(floor)); got < 2*floor {
		t.Errorf("%.0f a second passed when the processors were free again, want more than %.0f", got, 2*floor)
	}
}
