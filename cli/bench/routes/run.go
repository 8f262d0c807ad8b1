package routes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"imroute/cli/bench"
	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// Options is a run.
type Options struct {
	Routes   int           // MinRoutes to MaxRoutes
	Duration time.Duration // of each of the times that are measured: look-ups, garbage collection without the table and with it
	Rate     float64       // registrations a second while a snapshot is written; 0: flat out
	Dir      string        // an existing folder for the snapshot, which is removed again

	Progress func(bench.Progress) // nil: nobody looks
	// Profile, if set, is called as a phase begins; the function it returns is called when it is over.
	Profile func(phase string) (over func())
}

const (
	// MinRoutes is enough for each member to have some, MaxRoutes keeps the run below some tens of GiB.
	MinRoutes = 10_000
	MaxRoutes = 100_000_000

	idBytes  = 20
	entryOps = 512 // what a node puts into one entry under load
	members  = 3
)

// Needs estimates what a run takes at its peak, in bytes. While a snapshot is written and everybody logs in anew, every page
// is copied; and before a collection the heap may be twice what lives in it.
func Needs(routes int) (memory, disk int64) {
	const page, row = 90, 60 // bytes of a route: in memory, in a snapshot
	return 64<<20 + int64(routes)*page*4, 1<<20 + int64(routes)*row
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Routes < MinRoutes || o.Routes > MaxRoutes:
		return fmt.Errorf("routes is %d: want %d to %d", o.Routes, MinRoutes, MaxRoutes)
	case o.Duration <= 0:
		return errors.New("duration must be more than 0")
	case o.Rate < 0 || math.IsNaN(o.Rate):
		return fmt.Errorf("rate is %g: want 0 or more", o.Rate)
	}
	return nil
}

// run is one in progress. One goroutine, but for the writer of the snapshot.
type run struct {
	Options
	log log
	fsm *raftfsm.FSM
	res bench.Result
	out bench.TableResult

	hash uint64 // of the table that the snapshot was taken of
}

// Run measures. When ctx ends early it returns what was measured until then and ctx's cause.
func Run(ctx context.Context, o Options) (bench.Result, error) {
	if err := o.Validate(); err != nil {
		return bench.Result{}, err
	}
	if o.Profile == nil {
		o.Profile = func(string) func() { return func() {} }
	}
	r := &run{Options: o, res: bench.Result{Name: "imroute-table", Pairs: o.Routes, Size: idBytes, Cluster: "none"}}
	r.res.Offered, r.res.Table = o.Rate, &r.out
	start := time.Now()
	err := r.all(ctx)
	r.res.DurationMS = time.Since(start).Milliseconds()
	return r.res, err
}

func (r *run) all(ctx context.Context) error {
	runtime.GC()
	before := readMemory()
	r.fsm = newFSM()
	if err := r.log.found(r.fsm); err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"gc-without", func(ctx context.Context) (err error) {
			r.out.GCWithout, err = r.collector(ctx, "collecting without the table")
			return err
		}},
		{"fill", r.fill},
		{"memory", func(context.Context) error { return r.memory(before) }},
		{"lookup", r.lookups},
		{"gc-with", func(ctx context.Context) (err error) {
			r.out.GCWith, err = r.collector(ctx, "collecting with the table")
			return err
		}},
		{"snapshot", r.snapshot},
		{"restore", r.restore},
	}
	for _, s := range steps {
		over := r.Profile(s.name)
		err := s.do(ctx)
		over()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
	}
	return nil
}

func newFSM() *raftfsm.FSM {
	return raftfsm.NewFSM(raftfsm.FSMConfig{Fatal: func(error) {}}) // Apply's answer says it as well
}

// clientAt is the i-th client id of the run.
func clientAt(i int) wire.ClientID { return wire.ClientID{ID: fmt.Sprintf("user-%015d", i)} }

// fill registers every client once, member by member in turn.
func (r *run) fill(ctx context.Context) error {
	start, last := time.Now(), time.Now()
	ops := make([]raftfsm.Op, 0, entryOps)
	done := 0
	for i := 0; i < r.Routes; {
		for ops = ops[:0]; len(ops) < entryOps && i < r.Routes; i++ {
			ops = append(ops, register(clientAt(i), uint64(i+1)))
		}
		if _, _, err := r.log.batch(r.fsm, ops); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if now := time.Now(); r.Progress != nil && now.Sub(last) > 250*time.Millisecond {
			r.Progress(bench.Progress{Phase: "filling", Elapsed: now.Sub(start), Count: int64(i), Interval: now.Sub(last), Since: int64(i - done)})
			last, done = now, i
		}
	}
	if took := time.Since(start).Seconds(); took > 0 {
		r.out.FillRate = float64(r.Routes) / took
	}
	if n := r.fsm.Stats().Routes; n != r.Routes {
		r.res.Lost = int64(r.Routes - n)
		r.problem("%d routes are in the table, not %d", n, r.Routes)
	}
	return nil
}

func (r *run) problem(format string, args ...any) {
	r.res.Problems = append(r.res.Problems, fmt.Sprintf(format, args...))
}

func (r *run) phase(name string) {
	if r.Progress != nil {
		r.Progress(bench.Progress{Phase: name})
	}
}

// memory is what the table takes: by its own books, and by what the heap grew.
func (r *run) memory(before memory) error {
	runtime.GC()
	now, s := readMemory(), r.fsm.Stats()
	n := float64(r.Routes)
	r.out.BytesPerRoute = float64(now.live-before.live) / n
	r.out.PageBytesPerRoute = float64(s.Bytes) / n
	r.out.TableBytes = int64(s.Bytes)
	return nil
}

const (
	sampleSize  = 1 << 20 // ids looked up in turn: far more than any cache holds rows for
	hotSize     = 1 << 12 // and what it does hold
	lookupRound = 1 << 14 // look-ups that are timed together; one alone is shorter than reading the clock
)

// lookups looks up clients at random, first among all, then among few.
func (r *run) lookups(ctx context.Context) error {
	r.phase("looking up")
	random := rand.New(rand.NewPCG(1, uint64(r.Routes)))
	size := sampleSize
	if r.Routes < size {
		size = lookupRound
	}
	ids := make([]wire.ClientID, size)
	for i := range ids {
		ids[i] = clientAt(random.IntN(r.Routes))
	}
	runtime.GC()
	before := readMemory()
	var n, hot int64
	r.out.LookupNS, n = r.lookup(ctx, ids, r.Duration)
	r.out.LookupHotNS, hot = r.lookup(ctx, ids[:hotSize], r.Duration/4)
	if n += hot; n > 0 {
		r.out.Lookups, r.out.LookupAllocs = n, float64(readMemory().allocs-before.allocs)/float64(n)
	}
	r.out.MemoryReadNS = memoryRead(int(r.out.TableBytes))
	return nil
}

// lookup is how long one takes, in nanoseconds: the median of rounds, so that one in which the system did something else does
// not count. It also returns how many there were.
func (r *run) lookup(ctx context.Context, ids []wire.ClientID, d time.Duration) (ns float64, n int64) {
	var rounds [1 << 12]float64 // on the stack: it is no allocation
	k, at, missing := 0, 0, int64(0)
	for start := time.Now(); time.Since(start) < d && k < len(rounds) && ctx.Err() == nil; k++ {
		began := time.Now()
		for range lookupRound {
			if _, ok := r.fsm.Lookup(ids[at]); !ok {
				missing++
			}
			at = (at + 1) & (len(ids) - 1)
		}
		rounds[k] = float64(time.Since(began).Nanoseconds()) / lookupRound
	}
	if missing > 0 {
		r.res.Lost += missing
		r.problem("%d of %d look-ups found nothing", missing, k*lookupRound)
	}
	if k == 0 {
		return 0, 0
	}
	slices.Sort(rounds[:k])
	return rounds[k/2], int64(k) * lookupRound
}

// memoryRead is how long this machine takes for one read at a random place of so many bytes, in nanoseconds: a look-up among
// all routes is made of such reads, two at least, each of which has to wait for the one before.
func memoryRead(size int) float64 {
	const line, reads = 64, 1 << 20
	b := make([]byte, max(size, line))
	for i := 0; i < len(b); i += 4 << 10 {
		b[i] = 0 // so that there is memory behind it
	}
	lines, x := uint64(len(b)/line), uint64(88172645463325252)
	start := time.Now()
	for range reads {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		x += uint64(b[x%lines*line]) // nothing, but the processor has to wait for it
	}
	took := time.Since(start)
	runtime.KeepAlive(x)
	return float64(took.Nanoseconds()) / reads
}

// restore reads the snapshot into a table as a node does that starts, without the table that it was taken from.
func (r *run) restore(context.Context) error {
	r.phase("restoring")
	path := filepath.Join(r.Dir, snapshotFile)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()       // it was only read
		_ = os.Remove(path) // whoever made the folder removes it
	}()
	r.fsm = nil
	runtime.GC()
	fsm := newFSM()
	start := time.Now()
	if err := fsm.Restore(f); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	r.out.RestoreMS = time.Since(start).Milliseconds()
	r.phase("comparing")
	v := fsm.Grab()
	defer v.Close()
	if v.Count() != r.Routes || v.Hash() != r.hash {
		r.res.Lost += int64(max(r.Routes-v.Count(), 0))
		r.problem("the restored table has %d routes and another hash than the one that was written, which had %d", v.Count(), r.Routes)
	}
	return nil
}
