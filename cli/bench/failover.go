package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// FailoverOptions is a run of Failover.
type FailoverOptions struct {
	Clients int // of the node that dies
	Victim  int // which one of the Target's
	Name    string
	Leader  bool         // whether it leads
	Kill    func() error // at once, without a goodbye; returns when the process is gone

	Pairs int     // of the others, whose latency is measured meanwhile: between the nodes that stay
	Rate  float64 // over all of those pairs
	Size  int

	Warm     time.Duration // of the others
	Duration time.Duration // the others' measured time before the kill
	Most     time.Duration // how long clients may take to be routed again
}

func (o FailoverOptions) validate(t *Target) error {
	switch {
	case o.Clients < 1:
		return fmt.Errorf("clients is %d: want 1 at least", o.Clients)
	case len(t.Addrs) < 3:
		return errors.New("a cluster of fewer than three nodes cannot lose one")
	case o.Victim < 0 || o.Victim >= len(t.Addrs):
		return fmt.Errorf("victim is %d: there are %d nodes", o.Victim, len(t.Addrs))
	case o.Rate <= 0:
		return fmt.Errorf("rate is %g: want more than 0", o.Rate)
	case o.Duration <= 0 || o.Most <= 0 || o.Warm < 0:
		return errors.New("duration must be more than 0, warm not negative")
	}
	return checkFiles(o.Clients + o.Clients/10 + 2*o.Pairs) // some dial anew before their old connection is closed
}

// Failover measures how long clients are unreachable whose node is killed, and what others notice of it. All clients of
// the node log in at the others by themselves; then each is sent a message that it has to acknowledge. One that was not
// routed again within Most, or did not get that message, is counted as lost.
func Failover(ctx context.Context, t Target, o FailoverOptions) (Result, error) {
	r := Result{Name: "imroute-failover", Pairs: o.Clients, Size: o.Size, Cluster: t.clusterName(), Offered: o.Rate}
	if err := o.validate(&t); err != nil {
		return r, err
	}
	out := &FailoverResult{Victim: o.Name, WasLeader: o.Leader}
	stay := t
	stay.Addrs, stay.PIDs = without(t.Addrs, o.Victim), without(t.PIDs, o.Victim)
	others := SendOptions{Pairs: o.Pairs, Size: o.Size, Rate: o.Rate, Placement: Across, Ack: wire.AckClient, Duration: o.Duration}
	others.Window = DefaultWindow(others)
	if err := others.Validate(); err != nil {
		return r, err
	}
	p, err := newParty(ctx, stay, others)
	defer p.close()
	if err != nil {
		return r, err
	}
	w := &wanderers{fleet: newFleet(o.Clients, "f"), base: time.Now(), home: make([]atomic.Int64, o.Clients), all: make(chan struct{})}
	defer w.close(closeMost)
	if err := w.fleet.dial(ctx, &t, time.Minute, w.configure(t.Addrs, o.Victim)); err != nil {
		return r, err
	}
	p.meter.start()
	if err = p.phase(ctx, &t, "warm-up", o.Warm); err != nil {
		return r, err
	}
	var before, meanwhile Result
	p.meter.measure(&before, stay.PIDs, func() { err = p.phase(ctx, &t, "before", o.Duration) })
	if err != nil {
		return r, err
	}
	over := stay.measuring(ctx, min(o.Most, profileMost))
	p.meter.measure(&meanwhile, stay.PIDs, func() {
		start := time.Now()
		defer func() { r.over(w.back.Load(), usage{took: time.Since(start)}) }() // CPU per million of these means nothing
		w.killed.Store(int64(w.now()))
		if err = o.Kill(); err == nil {
			defer startReports(&t, "rerouting", o.Most, w.back.Load, nil)()
			err = w.wait(ctx, o.Most)
		}
	})
	over()
	out.BeforeP50, out.BeforeP99, out.MeanwhileP50, out.MeanwhileP99 = before.P50, before.P99, meanwhile.P50, meanwhile.P99
	times := w.times()
	r.quantiles(times)
	r.Received = int64(times.Count())
	if err == nil && int(r.Received) == o.Clients {
		out.AllRoutedMS = r.DurationMS
	}
	r.Failover = out
	if err == nil {
		r.Lost, err = w.probe(ctx, &t, p.senders.clients[0])
		if r.Lost > 0 {
			r.problem("%s after %s", plural(r.Lost, "client could not be reached", "clients could not be reached"), o.Most)
		}
	}
	var books Result
	books.Received = 1
	p.meter.finish(context.WithoutCancel(ctx), &books)
	out.OthersLost, r.Duplicated, r.Disordered, r.Damaged = books.Lost, books.Duplicated, books.Disordered, books.Damaged
	for _, text := range books.Problems {
		r.problem("of the others: %s", text)
	}
	return r, err
}

func without[T any](in []T, i int) []T {
	if i >= len(in) {
		return nil
	}
	return append(append([]T{}, in[:i]...), in[i+1:]...)
}

// profileMost is what is profiled of the time behind the kill.
const profileMost = 5 * time.Second

// wanderers are the clients whose node dies.
type wanderers struct {
	*fleet
	base   time.Time
	home   []atomic.Int64 // when each was routed again; 0: not yet
	killed atomic.Int64
	back   atomic.Int64
	all    chan struct{} // closed when all are back
}

func (w *wanderers) now() time.Duration { return time.Since(w.base) }

// configure puts everybody on the victim first; where they go from there is spread evenly.
func (w *wanderers) configure(addrs []string, victim int) func(int, *client.Config) {
	rest := without(addrs, victim)
	return func(i int, cfg *client.Config) {
		cfg.Addrs = append([]string{addrs[victim]}, rest[i%len(rest):]...)
		cfg.Addrs = append(cfg.Addrs, rest[:i%len(rest)]...)
		cfg.DialContext = sourceDialer(addrs[victim], i)
		cfg.OnMessage = func(client.Message) {} // acknowledges the probe
		cfg.OnState = func(s client.State) {
			if w.killed.Load() != 0 && s.Kind == client.Connected && w.home[i].CompareAndSwap(0, int64(w.now())) {
				if w.back.Add(1) == int64(len(w.home)) {
					close(w.all)
				}
			}
		}
	}
}

// wait returns when all are back, or most is over, which is no error.
func (w *wanderers) wait(ctx context.Context, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-w.all:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// times is how long each was away.
func (w *wanderers) times() *Histogram {
	h := new(Histogram)
	for i := range w.home {
		if at := w.home[i].Load(); at != 0 {
			h.Add(time.Duration(at - w.killed.Load()))
		}
	}
	return h
}

// probe sends each a message and reports how many did not acknowledge it.
func (w *wanderers) probe(ctx context.Context, t *Target, from *client.Client) (failed int64, err error) {
	var next, lost, done atomic.Int64
	defer startReports(t, "probing", 0, done.Load, nil)()
	var wg sync.WaitGroup
	for range min(dialAtOnce, len(w.clients)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(w.clients) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				res, err := from.Send(ctx, w.id(i), []byte("probe"), client.WithAck(wire.AckClient), client.WithTimeout(5*time.Second))
				if err != nil || res.Code != wire.Delivered {
					lost.Add(1)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return lost.Load(), nil
}
