package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"imroute/node/client"
)

// IdleOptions is a run of Idle.
type IdleOptions struct {
	Clients  int           // all on the first node
	Settle   time.Duration // between the last login and the measured time
	Duration time.Duration // how long they stay
}

// Idle measures what connections cost that say nothing: the memory of the node that holds them, and the CPU of all nodes.
// One whose session ended meanwhile is counted as lost.
func Idle(ctx context.Context, t Target, o IdleOptions) (Result, error) {
	r := Result{Name: "imroute-idle", Pairs: o.Clients, Cluster: t.clusterName()}
	switch {
	case o.Clients < 1:
		return r, fmt.Errorf("clients is %d: want 1 at least", o.Clients)
	case o.Duration <= 0 || o.Settle < 0:
		return r, fmt.Errorf("duration must be more than 0, settle not negative")
	}
	if err := checkFiles(o.Clients); err != nil {
		return r, err
	}
	idle := &IdleResult{}
	pid := 0
	if len(t.PIDs) > 0 {
		pid = t.PIDs[0]
		idle.RSSBefore = rssOf(pid)
	}
	f, latency := newFleet(o.Clients, "i"), newStripes(dialAtOnce)
	defer f.close(closeMost)
	start := time.Now()
	err := f.dial(ctx, &t, time.Minute, func(i int, cfg *client.Config) {
		cfg.Addrs = t.Addrs[:1]
		cfg.DialContext = sourceDialer(t.Addrs[0], i)
		began := time.Now()
		first := true
		cfg.OnState = f.watch(func(s client.State) {
			if s.Kind == client.Connected && first {
				first = false
				latency.add(i, time.Since(began))
			}
		})
	})
	if err != nil {
		return r, err
	}
	idle.ConnectMS = time.Since(start).Milliseconds()
	connected := func() (n int64) {
		for _, c := range f.clients {
			if c.State().Kind == client.Connected {
				n++
			}
		}
		return n
	}
	wait := func(phase string, d time.Duration) error {
		defer startReports(&t, phase, d, func() int64 { return 0 }, nil)()
		return pause(ctx, d)
	}
	if err = wait("settling", o.Settle); err != nil {
		return r, err
	}
	mark := markUsage(t.PIDs)
	over := t.measuring(ctx, o.Duration)
	err = wait("measuring", o.Duration)
	u := mark.until(t.PIDs)
	over()
	if pid != 0 {
		idle.RSSAfter = rssOf(pid)
		idle.PerConn = (idle.RSSAfter - idle.RSSBefore) / int64(o.Clients)
	}
	idle.LoadRSS = rssOf(os.Getpid())
	if s := u.took.Seconds(); s > 0 {
		idle.NodesCPUMS, idle.LoadCPUMS = int64(u.servers.Seconds()*1e3/s), int64(u.self.Seconds()*1e3/s)
	}
	r.Received, r.DurationMS, r.Idle = connected(), u.took.Milliseconds(), idle
	if idle.ConnectMS > 0 {
		r.Rate = float64(o.Clients) * 1e3 / float64(idle.ConnectMS)
	}
	r.quantiles(latency.sum())
	if r.Lost = max(int64(o.Clients)-r.Received, f.moved.Load()); r.Lost > 0 {
		r.problem("%s", plural(r.Lost, "idle session ended", "idle sessions ended"))
	}
	return r, err
}
