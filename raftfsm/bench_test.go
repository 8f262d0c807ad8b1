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

const benchTopics = 200_000

func filledTopics(b *testing.B) *fsmDriver {
	d := newFSM(b, 3)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	for i := 0; i < benchTopics; i += 500 {
		for id := wire.NodeID(1); id <= 3; id++ {
			d.batch(id, joins(i, i+500)...)
		}
	}
	return d
}

func BenchmarkHolders(b *testing.B) {
	d := filledTopics(b)
	topics := make([]wire.Topic, 1<<16)
	for i := range topics {
		topics[i] = group(i * 7919 % benchTopics)
	}
	buf := make([]Holder, 0, 8)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if buf = d.f.Holders(topics[i&(1<<16-1)], buf[:0]); len(buf) != 3 {
			b.Fatal("missing")
		}
		i++
	}
	s := d.f.Stats()
	b.ReportMetric(float64(s.TopicBytes)/float64(s.Topics), "bytes/topic")
}

// BenchmarkTopics is a page of the list that operators see.
func BenchmarkTopics(b *testing.B) {
	d := filledTopics(b)
	for b.Loop() {
		if len(d.f.Topics("", wire.TopicGroup, group(1000).Name, 100)) != 100 {
			b.Fatal("missing")
		}
	}
}

// BenchmarkJoin applies a batch of 500 joins, then one of 500 leaves, without the log's own encoding.
func BenchmarkJoin(b *testing.B) {
	t := filledTopics(b).f.table
	d := &driver{t: t, index: 1 << 40}
	join := joins(benchTopics, benchTopics+500)
	leave := joins(benchTopics, benchTopics+500)
	for i := range leave {
		leave[i].Kind = Leave
	}
	b.ReportAllocs()
	for b.Loop() {
		d.batch(1, join...)
		d.batch(1, leave...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/op-in-batch")
}

// BenchmarkDevices asks for three devices, a user without any, and one with as many as there may be.
func BenchmarkDevices(b *testing.B) {
	d := newFSM(b, 1)
	d.f.table = filled().t
	driver := &driver{t: d.f.table, index: 1 << 40}
	driver.batch(1, reg("three/a"), reg("three/b"), reg("three/c"))
	driver.fill(1, 0, MaxDevices, device)
	for _, c := range []struct {
		user string
		n    int
	}{{"nobody", 0}, {"three", 3}, {"fleet", MaxDevices}} {
		b.Run(c.user, func(b *testing.B) {
			buf := make([]Device, 0, MaxDevices+1)
			b.ReportAllocs()
			for b.Loop() {
				if buf = d.f.Devices(wire.ClientID{ID: c.user}, buf[:0]); len(buf) != c.n {
					b.Fatal(len(buf))
				}
			}
		})
	}
}

// BenchmarkRegisterDevice registers and ends devices of users with a few others, at the level that counts them.
func BenchmarkRegisterDevice(b *testing.B) {
	d := filled()
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	d.fill(1, 0, 4000, func(i int) string { return fmt.Sprintf("owner-%d/d%d", i/4, i%4) })
	ops, ends := make([]Op, 500), make([]Op, 500)
	b.ReportAllocs()
	for b.Loop() {
		for i := range ops {
			ops[i] = reg(fmt.Sprintf("owner-%d/new", i))
		}
		r := d.batch(1, ops...)
		for i := range ends {
			ends[i] = Op{Kind: Unregister, Client: ops[i].Client, Epoch: r.Ops[i].Epoch}
		}
		d.batch(1, ends...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/op-in-batch")
}
