package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// ServiceOptions is a run of Service.
type ServiceOptions struct {
	Instances   int // of one service, over all nodes
	Askers      int // over all nodes
	Window      int // requests that each asker has open
	Concurrency int // requests that an instance takes at a time
	Size        int // bytes of a request, and of its answer
	Warm        time.Duration
	Duration    time.Duration
}

// Validate names the option at fault.
func (o ServiceOptions) Validate() error {
	switch {
	case o.Instances < 1 || o.Instances > MaxPairs:
		return fmt.Errorf("instances is %d: want 1 to %d", o.Instances, MaxPairs)
	case o.Askers < 1 || o.Askers > MaxPairs:
		return fmt.Errorf("askers is %d: want 1 to %d", o.Askers, MaxPairs)
	case o.Window < 1 || o.Window > 1000:
		return fmt.Errorf("window is %d: want 1 to 1000", o.Window)
	case o.Concurrency < 1 || o.Concurrency > wire.MaxServiceLoad:
		return fmt.Errorf("concurrency is %d: want 1 to %d", o.Concurrency, wire.MaxServiceLoad)
	case o.Size < MinSize || o.Size > 64<<10:
		return fmt.Errorf("size is %d: want %d (each request is stamped) to %d bytes", o.Size, MinSize, 64<<10)
	case o.Duration <= 0 || o.Warm < 0:
		return errors.New("duration must be more than 0, warm not negative")
	}
	return nil
}

// ServiceResult is what only "service" has. Result's received are answered requests, its lost those that were not answered, its
// duplicated those that were carried out twice.
type ServiceResult struct {
	Instances  int     `json:"instances"`
	Askers     int     `json:"askers"`
	Window     int     `json:"window"`
	LeastShare float64 `json:"least_share"` // of the instance with the fewest requests: 1 is exactly its part
	MostShare  float64 `json:"most_share"`  // and of the one with most
}

// serviceTimeout bounds one request.
const serviceTimeout = 5 * time.Second

// service is one run.
type service struct {
	o    ServiceOptions
	base time.Time
	name string

	instances, askers *fleet
	done              []carried      // by asker
	handled           []atomic.Int64 // by instance
	duplicated        atomic.Int64
	damaged           atomic.Int64
	measuring         atomic.Bool
	answered          atomic.Int64 // and measured
	latency           *stripes
	mu                sync.Mutex
	failed            map[string]int64
}

// carried notes which requests of one asker were carried out: a bit each.
type carried struct {
	seq  atomic.Uint32 // the next one's number
	mu   sync.Mutex
	bits []uint64
}

// first reports whether this one was not carried out before.
func (c *carried) first(seq uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	word, bit := int(seq/64), uint64(1)<<(seq%64)
	if more := word + 1 - len(c.bits); more > 0 {
		c.bits = append(c.bits, make([]uint64, more)...)
	}
	was := c.bits[word]&bit != 0
	c.bits[word] |= bit
	return !was
}

// Service measures requests to a service: from clients on all nodes, to instances on all nodes, each of which answers at once with
// what it was sent. No request may be carried out twice.
func Service(ctx context.Context, t Target, o ServiceOptions) (Result, error) {
	r := Result{Name: "imroute-service", Pairs: o.Askers, Size: o.Size, Cluster: t.clusterName()}
	if err := o.Validate(); err != nil {
		return r, err
	}
	if err := checkFiles(o.Instances + o.Askers); err != nil {
		return r, err
	}
	v := &service{
		o: o, base: time.Now(), instances: newFleet(o.Instances, "v/"), askers: newFleet(o.Askers, "a"),
		done: make([]carried, o.Askers), handled: make([]atomic.Int64, o.Instances),
		latency: newStripes(o.Askers), failed: map[string]int64{},
	}
	v.name = strings.TrimSuffix(v.instances.prefix, "/") // whom a token makes SERVICE/… may serve SERVICE
	defer v.instances.close(closeMost)
	defer v.askers.close(closeMost)
	if err := v.connect(ctx, &t); err != nil {
		return r, err
	}
	err := v.run(ctx, &t, &r)
	v.judge(&r)
	return r, err
}

func (v *service) connect(ctx context.Context, t *Target) error {
	for _, f := range []*fleet{v.instances, v.askers} {
		err := f.dial(ctx, t, time.Minute, func(i int, cfg *client.Config) {
			at := i % len(t.Addrs)
			cfg.Addrs, cfg.DialContext = t.Addrs[at:at+1], sourceDialer(t.Addrs[at], i)
		})
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i, c := range v.instances.clients {
		if _, err := c.Serve(ctx, v.name, v.handler(i), client.WithConcurrency(v.o.Concurrency)); err != nil { // closed with its client
			return fmt.Errorf("instance %d of %d: %w", i+1, v.o.Instances, err)
		}
	}
	return nil
}

func (v *service) handler(instance int) client.Handler {
	return func(_ context.Context, q client.Request) ([]byte, error) {
		if len(q.Payload) != v.o.Size || int(readStamp(q.Payload).sender) >= len(v.done) {
			v.damaged.Add(1)
			return q.Payload, nil
		}
		v.handled[instance].Add(1)
		if s := readStamp(q.Payload); !v.done[s.sender].first(s.seq) {
			v.duplicated.Add(1)
		}
		return q.Payload, nil
	}
}

func (v *service) run(ctx context.Context, t *Target, r *Result) error {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	for i := range v.o.Askers {
		for range v.o.Window {
			workers.Go(func() { v.ask(asking, i) })
		}
	}
	phase := func(name string, d time.Duration) error {
		defer startReports(t, name, d, v.answered.Load, nil)()
		return pause(ctx, d)
	}
	err := phase("warm-up", v.o.Warm)
	if err == nil {
		mark := markUsage(t.PIDs)
		over := t.measuring(ctx, v.o.Duration)
		v.measuring.Store(true)
		err = phase("measuring", v.o.Duration)
		v.measuring.Store(false)
		r.over(v.answered.Load(), mark.until(t.PIDs))
		over()
	}
	stop()
	workers.Wait()
	return err
}

// ask has one request open at a time. One under way when ctx ends is waited for.
func (v *service) ask(ctx context.Context, i int) {
	b := make([]byte, v.o.Size)
	for ctx.Err() == nil {
		began := time.Now()
		stamp{due: began.Sub(v.base), sender: uint32(i), seq: v.done[i].seq.Add(1) - 1}.put(b)
		a, err := v.askers.clients[i].Request(context.WithoutCancel(ctx), client.ToService(v.name), b, client.WithTimeout(serviceTimeout))
		switch {
		case err != nil:
			v.mu.Lock()
			v.failed[codeOf(err)]++
			v.mu.Unlock()
			_ = pause(ctx, 10*time.Millisecond) // do not hammer what refuses at once
		case !bytes.Equal(a.Payload, b):
			v.damaged.Add(1)
		case v.measuring.Load():
			v.latency.add(i, time.Since(began))
			v.answered.Add(1)
		}
	}
}

func (v *service) judge(r *Result) {
	r.quantiles(v.latency.sum())
	d := &ServiceResult{Instances: v.o.Instances, Askers: v.o.Askers, Window: v.o.Window}
	r.Service = d
	least, most, all := int64(-1), int64(0), int64(0)
	for i := range v.handled {
		n := v.handled[i].Load()
		if all += n; least < 0 || n < least {
			least = n
		}
		most = max(most, n)
	}
	if all > 0 {
		part := float64(all) / float64(v.o.Instances)
		d.LeastShare, d.MostShare = float64(least)/part, float64(most)/part
	}
	for _, n := range v.failed {
		r.Lost += n
	}
	r.Duplicated, r.Damaged = v.duplicated.Load(), v.damaged.Load()
	if r.Lost > 0 {
		r.problem("%s: %s", plural(r.Lost, "request was not answered", "requests were not answered"), joinCodes(v.failed))
	}
	if r.Duplicated > 0 {
		r.problem("%s", plural(r.Duplicated, "request was carried out twice", "requests were carried out twice"))
	}
	if r.Damaged > 0 {
		r.problem("%s", plural(r.Damaged, "request or answer arrived damaged", "requests or answers arrived damaged"))
	}
	if n := v.instances.moved.Load() + v.askers.moved.Load(); n > 0 {
		r.problem("%s", plural(n, "session was lost", "sessions were lost"))
	}
}
