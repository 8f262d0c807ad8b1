package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// benchCluster is three nodes in this process, over real sockets and real disks, with the timings of real ones.
func benchCluster(b *testing.B) (c *cluster, nodes []*Node) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	c = &cluster{t: b, ctx: ctx, dir: map[string]string{}, up: map[string]*Node{}}
	b.Cleanup(func() {
		c.closeAll()
		cancel()
	})
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.Timings = Timings{} })
	nodes = []*Node{n1, n2, n3}
	c.leader(nodes...)
	for _, n := range nodes {
		c.until(n.Name()+" holds a lease", func() error {
			if !n.lease.holds(now()) {
				return errors.New("it does not")
			}
			return nil
		})
	}
	return c, nodes
}

// registering is a session that has nothing but a name: what a login costs behind the handshake, and no connection.
type registering struct {
	client wire.ClientID
	id     wire.SessionID
	epoch  atomic.Uint64
	fenced chan struct{}
}

func (s *registering) Client() wire.ClientID                    { return s.client }
func (s *registering) ID() wire.SessionID                       { return s.id }
func (s *registering) Open(e wire.Epoch)                        { s.epoch.Store(uint64(e)) }
func (s *registering) Fenced() <-chan struct{}                  { return s.fenced }
func (s *registering) Result(uint64, wire.Code, string, string) {}
func (s *registering) Close(wire.Code, string)                  { close(s.fenced) } // nobody takes it over: at most once
func (s *registering) DeliverHeld(*wire.Forward, gateway.Receipt, *gateway.Held) wire.Code {
	return wire.NotOwner
}

// BenchmarkRegister is what logins cost behind the handshake: the batches of three nodes, each durable (written and flushed)
// on a majority before it is acknowledged. Clients are new ones each time, nodes take turns. In the end every acknowledged
// registration has to be in the table of another node, under the epoch that was acknowledged.
//
//	go test -run '^$' -bench Register -benchtime 5s ./node
func BenchmarkRegister(b *testing.B) {
	for _, flying := range []int{4096, 256, 1} {
		b.Run(fmt.Sprintf("flying=%d", flying), func(b *testing.B) {
			benchmarkRegister(b, flying)
		})
	}
}

func benchmarkRegister(b *testing.B, flying int) {
	c, nodes := benchCluster(b)
	run := wire.NewID()
	var next atomic.Int64
	type acknowledged struct {
		s    *registering
		took time.Duration
	}
	work := func(ctx context.Context, n *Node, until int64) (done []acknowledged, err error) {
		l := n.present.Load()
		if l == nil {
			return nil, fmt.Errorf("%s is not up", n.Name())
		}
		for i := next.Add(1); i <= until; i = next.Add(1) {
			s := &registering{
				client: wire.ClientID{ID: fmt.Sprintf("%08x-%011d", uint32(run), i)}, id: wire.SessionID{Instance: uint64(wire.NewID()), Attempt: 1}, fenced: make(chan struct{}),
			}
			start := time.Now()
			w, err := l.login(ctx, s, func(time.Duration) {})
			took := time.Since(start)
			if err != nil {
				return done, fmt.Errorf("%s at %s: %w", s.client, n.Name(), err)
			}
			if w.Epoch == 0 || uint64(w.Epoch) != s.epoch.Load() {
				return done, fmt.Errorf("%s at %s: epoch %d, opened with %d", s.client, n.Name(), w.Epoch, s.epoch.Load())
			}
			done = append(done, acknowledged{s, took})
		}
		return done, nil
	}
	all := make([][]acknowledged, flying)
	var sharing sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range flying {
		sharing.Go(func() {
			done, err := work(c.ctx, nodes[w%len(nodes)], int64(b.N))
			if all[w] = done; err != nil {
				b.Error(err)
			}
		})
	}
	sharing.Wait()
	b.StopTimer()
	var took []time.Duration
	index := uint64(0)
	for _, n := range nodes {
		index = max(index, n.fsm.Applied())
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	for _, n := range nodes {
		if err := n.fsm.WaitApplied(ctx, index); err != nil {
			b.Fatalf("%s does not come to entry %d: %v", n.Name(), index, err)
		}
	}
	for w, done := range all {
		at, other := nodes[w%len(nodes)], nodes[(w+1)%len(nodes)]
		for _, a := range done {
			took = append(took, a.took)
			if r, ok := other.fsm.Lookup(a.s.client); !ok || r.Node != at.id || uint64(r.Epoch) != a.s.epoch.Load() {
				b.Fatalf("%s was acknowledged by %s and is %+v (%v) at %s", a.s.client, at.Name(), r, ok, other.Name())
			}
		}
	}
	if len(took) != b.N {
		b.Fatalf("%d of %d were acknowledged", len(took), b.N)
	}
	slices.Sort(took)
	micros := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
	b.ReportMetric(micros(.5), "p50-µs")
	b.ReportMetric(micros(.99), "p99-µs")
	batches, ops := uint64(0), uint64(0)
	for _, n := range nodes {
		batches += n.metrics.proposer.batches.Load()
		ops += n.metrics.proposer.ops.Load()
	}
	b.ReportMetric(float64(ops)/float64(batches), "ops/entry")
}
