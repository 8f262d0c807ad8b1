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

	// Others, if set, is Send in another process, so that what the pairs wait for is not this one, which has the clients that come back
	// to itself. nil: they are here.
	Others func(context.Context, Target, SendOptions) (Result, error)
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
	stay.Progress, stay.Measuring = nil, nil // those of the whole run
	others := others{o: &o, t: stay, r: &r, out: out}
	if err := others.options(o.Duration).Validate(); err != nil {
		return r, err
	}
	w := &wanderers{fleet: newFleet(o.Clients, "f"), base: time.Now(), home: make([]atomic.Int64, o.Clients), all: make(chan struct{})}
	defer w.close(closeMost)
	if err := w.fleet.dial(ctx, &t, time.Minute, w.configure(t.Addrs, o.Victim)); err != nil {
		return r, err
	}
	before, err := others.talk(ctx, &t, "before", o.Duration)
	if err != nil {
		return r, err
	}
	over := t.measuring(ctx, min(o.Most, profileMost))
	meanwhile, err := others.during(ctx, func(ctx context.Context) error {
		start := time.Now()
		defer func() { r.over(w.back.Load(), usage{took: time.Since(start)}) }() // CPU per million of these means nothing
		w.killed.Store(int64(w.now()))
		if err := o.Kill(); err != nil {
			return err
		}
		defer startReports(&t, "rerouting", o.Most, w.back.Load, nil)()
		return w.wait(ctx, o.Most)
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
		r.Lost, err = w.probe(ctx, t, stay.Addrs)
		if r.Lost > 0 {
			r.problem("%s after %s", plural(r.Lost, "client could not be reached", "clients could not be reached"), o.Most)
		}
	}
	return r, err
}

// others are the pairs on the nodes that stay.
type others struct {
	o   *FailoverOptions
	t   Target
	r   *Result
	out *FailoverResult
}

func (v others) options(d time.Duration) SendOptions {
	return SendOptions{Pairs: v.o.Pairs, Size: v.o.Size, Rate: v.o.Rate, Placement: Across, Ack: wire.AckClient, Warm: v.o.Warm, Duration: d}
}

// talk has them message each other for d, from the first of the nodes to the second: an open loop, in which latency counts from when each
// message was due.
func (v others) talk(ctx context.Context, t *Target, phase string, d time.Duration) (Result, error) {
	defer startReports(t, phase, d, func() int64 { return 0 }, nil)()
	send := v.o.Others
	if send == nil {
		send = Send
	}
	got, err := send(ctx, v.t, v.options(d))
	v.out.OthersLost += got.Lost
	v.r.Duplicated += got.Duplicated
	v.r.Disordered += got.Disordered
	v.r.Damaged += got.Damaged
	for _, text := range got.Problems {
		v.r.problem("of the others, %s: %s", phase, text)
	}
	return got, err
}

// settled is how long the others have talked when do is called.
const settled = time.Second

// during has them talk from a moment before do until it has ended, and gives do up if they fail.
func (v others) during(ctx context.Context, do func(context.Context) error) (got Result, err error) {
	enough := errors.New("enough")
	talking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	var failed error
	silent := v.t // what happens is reported by do
	wg.Go(func() {
		got, failed = v.talk(talking, &silent, "meanwhile", 2*v.o.Most)
		stop(failed)
	})
	if err = pause(talking, v.o.Warm+settled); err == nil {
		err = do(talking)
	}
	stop(enough)
	wg.Wait()
	switch {
	case failed != nil && !errors.Is(failed, enough):
		err = failed
	case err == nil && got.DurationMS == 0:
		err = errors.New("the others measured nothing: give --duration or --most more time")
	}
	return got, err
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
func (w *wanderers) probe(ctx context.Context, t Target, addrs []string) (failed int64, err error) {
	from, err := login(ctx, &t, client.Config{Client: w.prefix + "-probe", Addrs: addrs}, time.Minute)
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
		defer cancel()
		_ = from.Close(ctx) // the run is over
	}()
	var next, lost, done atomic.Int64
	defer startReports(&t, "probing", 0, done.Load, nil)()
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
