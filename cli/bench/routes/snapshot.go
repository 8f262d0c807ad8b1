package routes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"imroute/cli/bench"
	"imroute/raftfsm"
)

const snapshotFile = "table.snap"

// snapshot takes one and writes it, while clients chosen at random go on to register. The time a registration's entry takes
// to apply is what others would notice, the moment in which the snapshot is taken included.
func (r *run) snapshot(ctx context.Context) error {
	r.phase("taking a snapshot")
	sink, err := newFileSink(filepath.Join(r.Dir, snapshotFile))
	if err != nil {
		return err
	}
	start := time.Now()
	snap, err := r.fsm.Snapshot()
	took := time.Since(start)
	if err != nil {
		return err
	}
	defer snap.Release()
	v := r.fsm.Grab() // at the same entry: nothing was applied in between
	defer v.Close()
	written := make(chan error, 1)
	go func() { written <- snap.Persist(sink) }()

	runtime.LockOSThread() // or its CPU time would be of several
	defer runtime.UnlockOSThread()
	latency := new(bench.Histogram)
	longest, longestCPU, count := took, time.Duration(0), int64(0)
	ops := make([]raftfsm.Op, entryOps)
	random := rand.New(rand.NewPCG(2, uint64(r.Routes)))
	writing, last, before := true, start, int64(0)
	for writing {
		select {
		case err := <-written:
			if err != nil {
				return err
			}
			writing = false
			continue
		default:
		}
		if ctx.Err() != nil {
			<-written // it ends by itself; nothing of it is left running
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if r.Rate > 0 {
			due := start.Add(time.Duration(float64(count) / r.Rate * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		r.again(random, ops)
		t, cpu, err := r.log.batch(r.fsm, ops)
		if err != nil {
			<-written
			return err
		}
		latency.Add(t)
		longest, longestCPU = max(longest, t), max(longestCPU, cpu)
		count += int64(len(ops))
		if now := time.Now(); r.Progress != nil && now.Sub(last) > 250*time.Millisecond {
			r.Progress(bench.Progress{Phase: "snapshot", Elapsed: now.Sub(start), Count: count, Interval: now.Sub(last), Since: count - before})
			last, before = now, count
		}
	}
	elapsed := time.Since(start)
	r.res.Received, r.res.Rate = count, float64(count)/elapsed.Seconds()
	r.res.P50, r.res.P99, r.res.P999 = latency.Quantile(.5), latency.Quantile(.99), latency.Quantile(.999)
	r.out.LongestApplyUS = float64(longest.Microseconds())
	r.out.LongestApplyCPUUS = float64(longestCPU.Microseconds())
	r.out.SnapshotTakeUS = float64(took.Microseconds())
	r.out.SnapshotMS, r.out.SnapshotBytes = elapsed.Milliseconds(), sink.size
	r.out.RSS = bench.RSS(os.Getpid())
	r.phase("comparing")
	r.hash = v.Hash()
	return nil
}

// again fills ops with logins of clients of the member whose turn it is.
func (r *run) again(random *rand.Rand, ops []raftfsm.Op) {
	for i := range ops {
		n := random.IntN(r.Routes)
		for owner(n) != r.log.next {
			n = random.IntN(r.Routes)
		}
		ops[i] = register(clientAt(n), uint64(r.Routes)+r.log.index*entryOps+uint64(i))
	}
}

// fileSink is a raft.SnapshotSink that keeps a snapshot in one file, flushed as it is written.
type fileSink struct {
	*os.File
	size int64
}

func newFileSink(path string) (*fileSink, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &fileSink{File: f}, nil
}

func (s *fileSink) Write(b []byte) (int, error) {
	n, err := s.File.Write(b)
	s.size += int64(n)
	return n, err
}

// ID names the snapshot.
func (s *fileSink) ID() string { return s.Name() }

// Close makes the snapshot durable.
func (s *fileSink) Close() error {
	if err := s.Sync(); err != nil {
		_ = s.File.Close() // the first error is the one to tell
		return err
	}
	return s.File.Close()
}

// Cancel gives it up.
func (s *fileSink) Cancel() error { return s.File.Close() }
