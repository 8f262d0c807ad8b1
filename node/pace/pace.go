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
	most  = 500 * least

	// catchUp bounds how many pass at once, at the least rate, to make up for a nap that took too long.
	catchUp = 32 * time.Millisecond
)

// Pacer makes whoever calls Next wait now and then. It costs nothing while few come: one nap of a millisecond for each ten to
// thousand of them. It is for one goroutine at a time; the zero value is ready.
type Pacer struct {
	procs  float64 // 0: nobody has passed
	rate   float64 // a second, all processors together
	tokens float64

	sleep func(time.Duration) (took time.Duration) // nil: really
}

// Next returns when the next one may pass: at once, or after a nap. It reports whether that showed the processor to be short.
func (p *Pacer) Next() (short bool) {
	if p.procs == 0 {
		p.procs = float64(runtime.GOMAXPROCS(0))
		p.rate, p.tokens = p.procs*first, p.atLeast()
	}
	if p.tokens--; p.tokens >= 0 {
		return false
	}
	took := p.nap()
	if short = took > nap+late; short {
		p.rate = max(p.rate/2, p.procs*least)
	} else {
		p.rate = min(p.rate*1.02, p.procs*most)
	}
	p.tokens = min(p.rate*took.Seconds(), max(p.atLeast(), p.rate*nap.Seconds())) - 1
	return short
}

// atLeast may always pass together.
func (p *Pacer) atLeast() float64 { return p.procs * least * catchUp.Seconds() }

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
