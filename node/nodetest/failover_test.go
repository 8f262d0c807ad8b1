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
	"imroute/node/client"
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

// TestIdleClientsAfterFailover, U1: clients that only listen, and have never sent anything, are reached at their first message after
// the leader was killed: those of the other nodes at once, for nothing of theirs has ended; those of the leader as soon as G8 says,
// at another node, without a word of theirs but the login that their SDK repeats.
func TestIdleClientsAfterFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes take seconds")
	}
	const each = 5
	c := Start(t, Options{})
	leader := c.Leader(t)
	others := c.Others(leader)
	var idle []*client.Client
	at := map[*Node][]string{}
	login := func(n *Node) {
		for i := range each {
			name := fmt.Sprintf("idle-%s-%d", n.Name, i)
			idle = append(idle, c.Dial(t, name, append([]*Node{n}, others...)...)) // where it goes if its node is gone
			at[n] = append(at[n], name)
		}
	}
	login(leader)
	login(others[0])
	login(others[1])
	ask := c.Dial(t, "asker", others[0])
	for n, names := range at { // none went elsewhere at once
		for _, name := range names {
			if r, err := routeOf(t.Context(), others[0], name); err != nil || r.Node != n.Name {
				t.Fatalf("%s is at %q, not at %s: %v", name, r.Node, n.Name, err)
			}
		}
	}

	killed := Now()
	leader.Kill(t)
	for _, n := range others {
		for _, name := range at[n] {
			code, took := sendNow(ask, name, failoverPromise)
			if code != wire.Delivered {
				t.Errorf("the first message to %s, connected to %s: %v after %v", name, n.Name, code, took)
			}
		}
	}
	t.Logf("all %d idle clients of the other nodes were reached within %s", 2*each, seconds(Now()-killed))
	limit := slowness * servedLeader(c.Timings)
	for _, name := range at[leader] {
		code := wire.None
		for code != wire.Delivered && Now()-killed < limit {
			code, _ = sendNow(ask, name, 500*time.Millisecond)
		}
		if code != wire.Delivered {
			t.Errorf("%s, which was connected to the leader, is not reached within %v: %v", name, limit, code)
		}
	}
	t.Logf("and those of the leader within %s", seconds(Now()-killed))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, cl := range append(idle, ask) {
		_ = cl.Close(ctx) // that the node answers is not the matter here
	}
}
