// Package pace lets a crowd in no faster than the machine takes it beside what it has to do already.
package pace

import (
	"runtime"
	"time"
)

const (
	nap = time.Millisecond

	// late is how much longer than asked for a nap may take. More means that the processor is short: whatever a message needs on
	// its way waits as long as the nap did.
	late = 2 * time.Millisecond

	// least is how many a second pass for each processor, however short it is: a crowd of clients has to get in within seconds.
	least = 1_000
	first = 5 * least // of one that nobody has passed
	most  = 1_000_000 // in all

	// together is how many pass at once to make up for a nap that took too long.
	together = 64
)

// Pacer makes whoever calls Next wait now and then. It costs nothing while few come: one nap of a millisecond for each ten to
// thousand of them. It is for one goroutine at a time; the zero value is ready.
type Pacer struct {
	least  float64 // a second; 0: nobody has passed
	rate   float64 // between least and most
	tokens float64

	sleep func(time.Duration) (took time.Duration) // nil: really
}

// Next returns when the next one may pass: at once, or after a nap.
func (p *Pacer) Next() {
	if p.least == 0 {
		n := float64(runtime.GOMAXPROCS(0))
		p.least, p.rate = n*least, n*first
		p.tokens = together
	}
	if p.tokens--; p.tokens >= 0 {
		return
	}
	took := p.nap()
	if took > nap+late {
		p.rate = max(p.rate/2, p.least)
	} else {
		p.rate = min(p.rate*1.02, most)
	}
	p.tokens = min(p.rate*took.Seconds(), max(together, p.rate*nap.Seconds())) - 1
}

// nap sleeps, and then stands in line with all goroutines that want to run.
func (p *Pacer) nap() (took time.Duration) {
	if p.sleep != nil {
		return p.sleep(nap)
	}
	start := time.Now()
	time.Sleep(nap)
	runtime.Gosched()
	return time.Since(start)
}
