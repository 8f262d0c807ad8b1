package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// Target is the cluster that a run drives.
type Target struct {
	Addrs     []string // the nodes' client addresses, one each, as client.Config takes them
	PIDs      []int    // the nodes' processes, for their CPU time; empty: not known
	Transport string   // tcp or ws, for the Result
	Own       bool     // started for this run

	// Configure completes the configuration of each client: tokens, TLS. nil: nothing to do.
	Configure func(*client.Config) error
	// Progress, if set, is told several times a second how the run goes, by one goroutine at a time.
	Progress func(Progress)
	// Measuring, if set, is called when the measured time begins and told how long that will be; the function it returns
	// is called when it is over. For profiles.
	Measuring func(context.Context, time.Duration) func()
}

// measuring tells whom it may concern that the measured time begins.
func (t *Target) measuring(ctx context.Context, d time.Duration) (over func()) {
	if t.Measuring == nil {
		return func() {}
	}
	return t.Measuring(ctx, d)
}

func (t *Target) clusterName() string {
	if t.Own {
		return "own"
	}
	return "given"
}

// fleet is many clients. Its goroutines have ended when close returned.
type fleet struct {
	clients []*client.Client // by number; nil where a login failed
	moved   atomic.Int64     // sessions that ended after their first login
	prefix  string
}

func newFleet(n int, kind string) *fleet {
	return &fleet{clients: make([]*client.Client, n), prefix: fmt.Sprintf("bench-%08x-%s", uint32(wire.NewID()), kind)}
}

func (f *fleet) id(i int) string { return fmt.Sprintf("%s%d", f.prefix, i) }

// dialAtOnce is how many logins of a fleet are under way together.
const dialAtOnce = 128

// dial logs all in, client i with what configure adds. It stops at the first that fails.
func (f *fleet) dial(ctx context.Context, t *Target, each time.Duration, configure func(i int, cfg *client.Config)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	var wg sync.WaitGroup
	reports := startReports(t, "connecting", 0, done.Load, nil)
	for range min(dialAtOnce, len(f.clients)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(f.clients) {
					return
				}
				cfg := client.Config{Client: f.id(i), BackoffMax: time.Second, OnState: f.watch(nil)}
				configure(i, &cfg)
				c, err := login(ctx, t, cfg, each)
				if err != nil {
					cancel(fmt.Errorf("client %d of %d at %s: %w", i+1, len(f.clients), strings.Join(cfg.Addrs, ", "), err))
					return
				}
				f.clients[i] = c
				done.Add(1)
			}
		})
	}
	wg.Wait()
	reports()
	return context.Cause(ctx)
}

// login is one client's.
func login(ctx context.Context, t *Target, cfg client.Config, most time.Duration) (*client.Client, error) {
	if t.Configure != nil {
		if err := t.Configure(&cfg); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return client.Dial(ctx, cfg)
}

// watch counts sessions that end although nobody closed them.
func (f *fleet) watch(also func(client.State)) func(client.State) {
	up := false
	return func(s client.State) { // one call at a time
		if s.Kind == client.Connected {
			up = true
		} else if s.Kind == client.Closed && s.Retrying && up {
			up = false
			f.moved.Add(1)
		}
		if also != nil {
			also(s)
		}
	}
}

// close says goodbye for all, and gives those up that take longer than most.
func (f *fleet) close(most time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(dialAtOnce, len(f.clients)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(f.clients); i = int(next.Add(1)) - 1 {
				if c := f.clients[i]; c != nil {
					_ = c.Close(ctx) // the run is over: what it said goodbye with does not matter
				}
			}
		})
	}
	wg.Wait()
}

const closeMost = 3 * time.Second

// sourceDialer dials loopback addresses from the n-th of many source addresses, so that one of them need not have a port
// for every connection. nil where there is but one.
func sourceDialer(addr string, n int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, rest, ok := strings.Cut(addr, "://"); ok {
		addr, _, _ = strings.Cut(rest, "/")
	}
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if !manySources || err != nil || ip == nil || ip.To4() == nil || !ip.IsLoopback() {
		return nil
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: sourceIP(n)}, KeepAlive: -1}
	return d.DialContext
}

// sourceIP is one of some 60,000 addresses of 127.0.0.0/8 that nothing else uses.
func sourceIP(n int) net.IP { return net.IPv4(127, 1, byte(1+n/250%250), byte(1+n%250)) }

// spareFiles is what a process needs beside connections.
const spareFiles = 200

// checkFiles says so before the system does.
func checkFiles(connections int) error {
	if have := maxFiles(); connections+spareFiles > have {
		return fmt.Errorf("%d connections are too many for one process, which may have %d files open (ulimit -n)", connections, have)
	}
	return nil
}

// codeOf names why a login or send failed.
func codeOf(err error) string {
	var w *wire.Error
	switch {
	case errors.As(err, &w):
		return w.Code.String()
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return err.Error()
}

// reportEvery is the time between two reports.
const reportEvery = 250 * time.Millisecond

// startReports tells t how count rises until the function it returns was called.
func startReports(t *Target, phase string, of time.Duration, count, lost func() int64) (stop func()) {
	if t.Progress == nil {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		start := time.Now()
		first := count()
		before, at := first, start
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			now, n := time.Now(), count()
			p := Progress{Phase: phase, Elapsed: now.Sub(start), Of: of, Count: n - first, Interval: now.Sub(at), Since: n - before}
			if lost != nil {
				p.Lost = lost()
			}
			t.Progress(p)
			before, at = n, now
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
