package nodetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// failoverPromise is how soon, after the leader was killed, logins at the other nodes and sends to their clients go on, with
// the default timings.
const failoverPromise = 3 * time.Second

// After the leader was killed, the other two nodes take logins and deliver to each other's clients again within three seconds.
// IMROUTE_FAILOVERS is the number of runs (default 1); with more than one their distribution is printed.
func TestLeaderFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes take seconds")
	}
	runs, _ := strconv.Atoi(os.Getenv("IMROUTE_FAILOVERS"))
	c := Start(t, Options{Timings: DefaultTimings()})
	var logins, sends []time.Duration
	for run := range max(runs, 1) {
		login, send := failOver(t, c, fmt.Sprintf("f%02d", run))
		logins, sends = append(logins, login), append(sends, send)
	}
	slices.Sort(logins)
	slices.Sort(sends)
	n := len(logins)
	t.Logf("%d runs; login after %s (median), %s (worst); send after %s, %s", n, seconds(logins[n/2]), seconds(logins[n-1]), seconds(sends[n/2]), seconds(sends[n-1]))
	c.AwaitAgreement(t, startWait)
}

// failOver kills the leader, waits for the first login and the first delivery that began after that, and starts it again.
func failOver(t *testing.T, c *Cluster, tag string) (login, send time.Duration) {
	t.Helper()
	leader := c.Leader(t)
	others := c.Others(leader)
	alice, bob := c.Dial(t, tag+"-alice", others[0]), c.Dial(t, tag+"-bob", others[1])
	c.Await(t, "delivery before the fault", startWait, func(context.Context) error {
		if code, _ := sendNow(alice, tag+"-bob", time.Second); code != wire.Delivered {
			return errors.New(code.String())
		}
		return nil
	})
	killed := Now()
	leader.Kill(t)
	sent := make(chan time.Duration, 1)
	go func() {
		for Now()-killed < recoverWait {
			if code, _ := sendNow(alice, tag+"-bob", 500*time.Millisecond); code == wire.Delivered {
				break
			}
		}
		sent <- Now() - killed
	}()
	carol, err := c.TryDial(tag+"-carol", recoverWait, others...)
	login = Now() - killed
	send = <-sent
	if err != nil {
		t.Fatalf("a login after the leader was killed: %v", err)
	}
	limit := failoverPromise
	if raceEnabled {
		limit *= slowness // everything at once, and many times slower
	}
	if login > limit || send > limit {
		t.Errorf("after the leader was killed: login after %v, send after %v, promised within %v", login, send, limit)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, cl := range []interface{ Close(context.Context) error }{alice, bob, carol} {
		_ = cl.Close(ctx) // that the node answers is not the matter here
	}
	leader.Start(t)
	leader.AwaitReady(t)
	return login, send
}
