package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"imroute/node/client"
)

// LoginOptions is a run of Login.
type LoginOptions struct {
	Concurrency int // logins under way at once
	Warm        time.Duration
	Duration    time.Duration
}

// loginMost bounds one login of a run.
const loginMost = 10 * time.Second

// Login measures logins, each with a new connection and a new client id, over all nodes in turn. A session is closed as
// soon as it was welcomed, which is not part of its latency but of the work. A login that fails is counted as lost.
func Login(ctx context.Context, t Target, o LoginOptions) (Result, error) {
	r := Result{Name: "imroute-login", Pairs: o.Concurrency, Cluster: t.clusterName()}
	switch {
	case o.Concurrency < 1 || o.Concurrency > MaxPairs:
		return r, fmt.Errorf("concurrency is %d: want 1 to %d", o.Concurrency, MaxPairs)
	case o.Duration <= 0 || o.Warm < 0:
		return r, fmt.Errorf("duration must be more than 0, warm not negative")
	}
	if err := checkFiles(2 * o.Concurrency); err != nil {
		return r, err
	}
	var (
		f          = newFleet(0, "l")
		next, done atomic.Int64
		measuring  atomic.Bool
		latency    = newStripes(o.Concurrency)
		mu         sync.Mutex
		failed     = map[string]int64{}
		workers    sync.WaitGroup
	)
	running, stop := context.WithCancel(ctx)
	defer stop()
	for w := range o.Concurrency {
		workers.Go(func() {
			for running.Err() == nil {
				n := int(next.Add(1))
				node := n % len(t.Addrs)
				cfg := client.Config{
					Client: f.id(n), Addrs: t.Addrs[node : node+1], DisableReconnect: true,
					DialContext: sourceDialer(t.Addrs[node], n/len(t.Addrs)),
				}
				start := time.Now()
				c, err := login(running, &t, cfg, loginMost)
				switch {
				case err == nil:
					done.Add(1)
					if measuring.Load() {
						latency.add(w, time.Since(start))
					}
					bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
					_ = c.Close(bye) // its end is not what is measured
					cancel()
				case running.Err() == nil:
					mu.Lock()
					failed[codeOf(err)]++
					r.Lost++
					mu.Unlock()
					_ = pause(running, 10*time.Millisecond) // do not hammer what refuses at once
				}
			}
		})
	}
	err := loginPhase(ctx, &t, "warm-up", o.Warm, done.Load)
	if err == nil {
		before, mark := done.Load(), markUsage(t.PIDs)
		over := t.measuring(ctx, o.Duration)
		measuring.Store(true)
		err = loginPhase(ctx, &t, "measuring", o.Duration, done.Load)
		measuring.Store(false)
		r.over(done.Load()-before, mark.until(t.PIDs))
		over()
	}
	stop()
	workers.Wait()
	r.quantiles(latency.sum())
	if r.Lost > 0 {
		r.problem("%s: %s", plural(r.Lost, "login failed", "logins failed"), joinCodes(failed))
	}
	return r, err
}

func loginPhase(ctx context.Context, t *Target, name string, d time.Duration, count func() int64) error {
	defer startReports(t, name, d, count, nil)()
	return pause(ctx, d)
}
