package raftfsm

import (
	"flag"
	"fmt"
	"io"
	"testing"
	"time"

	"imroute/mesh/wire"
)

var routesFlag = flag.Int("routes", 200_000, "routes in the benchmarks' tables")

// twenty makes ids of twenty bytes, the design's measure.
func twenty(i int) string { return fmt.Sprintf("user-%015d", i) }

func filled() *driver {
	d := cluster(1)
	d.fill(1, 0, *routesFlag, twenty)
	return d
}

func perRoute(b *testing.B, t *Table) {
	s := t.stats()
	b.ReportMetric(float64(s.Bytes)/float64(s.Routes), "bytes/route")
}

func BenchmarkLookup(b *testing.B) {
	d := newFSM(b, 1)
	d.f.table = filled().t
	ids := make([]wire.ClientID, 1<<16)
	for i := range ids {
		ids[i].ID = twenty(i * 7919 % *routesFlag)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := d.f.Lookup(ids[i&(1<<16-1)]); !ok {
			b.Fatal("missing")
		}
		i++
	}
	perRoute(b, d.f.table)
}

func BenchmarkApplyBatch(b *testing.B) {
	d := filled()
	const ops = 500
	var worst time.Duration
	batch := make([]Op, ops)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		for j := range batch {
			batch[j] = reg(twenty(i * 7919 % *routesFlag))
			i++
		}
		start := time.Now()
		d.batch(1, batch...)
		worst = max(worst, time.Since(start))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*ops), "ns/registration")
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
}

func BenchmarkSnapshotGrab(b *testing.B) {
	d := filled()
	var worst time.Duration
	for b.Loop() {
		start := time.Now()
		v := d.t.Grab(1)
		worst = max(worst, time.Since(start))
		v.Close()
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
	perRoute(b, d.t)
}

func BenchmarkSnapshotWrite(b *testing.B) {
	d := filled()
	for b.Loop() {
		v := d.t.Grab(1)
		if err := v.WriteSnapshot(io.Discard); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N**routesFlag), "ns/route")
}

func BenchmarkSnapshotRestore(b *testing.B) {
	d := filled()

	for b.Loop() {
		r, w := io.Pipe()
		v := d.t.Grab(1)
		go func() { _ = w.CloseWithError(v.WriteSnapshot(w)) }()
		if _, _, err := ReadSnapshot(r, 0); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N**routesFlag), "ns/route")
}
