package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// Those who are turned away are told to come back at different times, by the gateway and for the node.
func TestRetriesSpread(t *testing.T) {
	for _, c := range []struct {
		rate, burst int
		low, high   uint32 // ms
	}{{0, 1, 500, 1500}, {100, 200, 1000, 3000}, {1, 2, 1000, 3000}, {1, 1000, 15_000, 45_000}} {
		g := &Gateway{cfg: Config{LoginRate: c.rate, LoginBurst: c.burst}}
		seen := map[uint32]bool{}
		for range 100 {
			ms := g.retryMS()
			if ms < c.low || ms >= c.high {
				t.Fatalf("%+v: %d ms", c, ms)
			}
			seen[ms] = true
		}
		if len(seen) < 50 {
			t.Errorf("%+v: only %d different ones of 100", c, len(seen))
		}
	}
	both(t, func(_ *Config, n *fakeNode) {
		n.login = func(context.Context, *Session, func(time.Duration)) (Welcome, error) {
			return Welcome{}, wire.Errorf(wire.Busy, "changes hands too often")
		}
	}, func(t *testing.T, _ *rig, dial func() client) {
		c := dial()
		c.send(loginFrame("bob"))
		if k := expectKick(t, c, wire.Busy); k.RetryMS < 500 || k.RetryMS >= 1500 {
			t.Errorf("told to come back in %d ms", k.RetryMS)
		}
	})
}

// Who comes to a node that has just begun to refuse is told to come back soon, and the longer that lasts the later.
func TestComingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{cfg: Config{Clock: systemClock{}, Backend: &fakeNode{}}, start: time.Now()}
		g.refusing.Store(uint32(wire.NoQuorum))
		check := func(low, high uint32) {
			t.Helper()
			for range 100 {
				if ms := g.kickFrame(wire.NoQuorum, "", TransportTCP).RetryMS; ms < low || ms > high {
					t.Fatalf("%v after the start: told %d ms, want %d to %d", g.now(), ms, low, high)
				}
			}
		}
		check(50, 150)
		time.Sleep(600 * time.Millisecond)
		check(300, 900)
		time.Sleep(time.Minute)
		check(500, 1500)
		g.SetAccepting(false, wire.NoQuorum) // no change: it goes on
		check(500, 1500)
		g.SetAccepting(true, 0)
		time.Sleep(time.Minute)
		g.SetAccepting(false, wire.NoQuorum)
		check(50, 150)
	})
}
