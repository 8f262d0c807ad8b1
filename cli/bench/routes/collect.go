package routes

import (
	"context"
	"math"
	"runtime"
	"runtime/metrics"
	"time"

	"imroute/cli/bench"
)

// memory is what the runtime says of itself.
type memory struct {
	live   uint64 // bytes of the heap's objects, those not yet swept included: read it behind a collection
	allocs uint64 // objects ever allocated
	cycles uint64
	cpu    float64 // seconds in the collector, as of the end of the last collection
	pauses *metrics.Float64Histogram
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/sched/pauses/total/gc:seconds"},
	}
	metrics.Read(s)
	return memory{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Float64(), s[4].Value.Float64Histogram()}
}

// longestSince is the upper bound of the longest pause since before.
func (m memory) longestSince(before memory) time.Duration {
	for i := len(m.pauses.Counts) - 1; i >= 0; i-- {
		if m.pauses.Counts[i] == before.pauses.Counts[i] {
			continue
		}
		bound := m.pauses.Buckets[i+1]
		if math.IsInf(bound, 1) {
			bound = m.pauses.Buckets[i]
		}
		return time.Duration(bound * float64(time.Second))
	}
	return 0
}

const (
	garbageRate = 100 << 20 // bytes a second that the measured load allocates
	garbageLive = 64 << 20  // and how many of them are in use at a time
	garbageSize = 1 << 10
	fullCycles  = 5 // whole collections, one after the other
)

// garbage is a piece of what a program allocates: it points to another one, so the collector has something to follow.
type garbage struct {
	next *garbage
	_    [garbageSize - 8]byte
}

// collector measures the garbage collector, first under a steady load of a program that keeps 64 MiB and allocates 100 MiB a
// second, then for whole collections.
func (r *run) collector(ctx context.Context, phase string) (g bench.GCResult, err error) {
	r.phase(phase)
	live := make([]*garbage, garbageLive/garbageSize)
	for i := range live {
		live[i] = new(garbage)
	}
	runtime.GC()
	before, start := readMemory(), time.Now()
	made, at := int64(0), 0
	for time.Since(start) < r.Duration && ctx.Err() == nil {
		for due := int64(time.Since(start).Seconds() * garbageRate); made < due; made += garbageSize {
			p := &garbage{next: live[(at+len(live)/2)%len(live)]}
			p.next.next = nil // or everything would be reachable for ever
			live[at] = p
			if at++; at == len(live) {
				at = 0
			}
		}
		time.Sleep(time.Millisecond)
	}
	after, took := readMemory(), time.Since(start).Seconds() // the CPU time is that of whole cycles, before and after
	g.Cycles = int64(after.cycles - before.cycles)
	g.CPUMSPerS = (after.cpu - before.cpu) * 1e3 / took
	g.LongestPauseUS = float64(after.longestSince(before).Nanoseconds()) / 1e3

	before, start = readMemory(), time.Now()
	for range fullCycles {
		runtime.GC()
	}
	after = readMemory()
	g.CycleMS = float64(time.Since(start).Microseconds()) / 1e3 / fullCycles
	g.CycleCPUMS = (after.cpu - before.cpu) * 1e3 / fullCycles
	runtime.KeepAlive(live)
	return g, nil
}
