package nodetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

// sendNow sends one message and returns how it ended and how long that took.
func sendNow(from *client.Client, to string, timeout time.Duration) (wire.Code, time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+answerSlack)
	defer cancel()
	began := Now()
	r, _ := from.Send(ctx, to, []byte("hello"), client.WithAck(wire.AckClient), client.WithTimeout(timeout))
	return r.Code, Now() - began
}

func routeOf(ctx context.Context, n *Node, name string) (admin.Route, error) {
	return n.Admin().Route(ctx, wire.ClientID{ID: name}, "", false)
}

// One node of three may stop; with two gone the answers are clear and come in time; and what was agreed before holds
// afterwards.
func TestQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes take seconds")
	}
	timings := FastTimings()
	timings.Quiet = time.Minute // sessions stay where they are however long this takes
	c := Start(t, Options{Timings: timings})
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	closing := func(cl *client.Client) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = cl.Close(ctx)
	}
	alice, bob := c.Dial(t, "alice", n1), c.Dial(t, "bob", n1)
	defer closing(alice)
	defer closing(bob)
	carol := c.Dial(t, "carol", n2)
	defer closing(carol)

	n3.Stop(t)
	for _, to := range []string{"bob", "carol"} {
		c.Await(t, "delivery to "+to+" with one node stopped", 10*time.Second, func(context.Context) error {
			if code, _ := sendNow(alice, to, 2*time.Second); code != wire.Delivered {
				return errors.New(code.String())
			}
			return nil
		})
	}
	if code, _ := sendNow(alice, "nobody", 5*time.Second); code != wire.Offline {
		t.Errorf("with a quorum, to nobody: %v, want offline", code)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	before, err := routeOf(ctx, n1, "bob")
	if err != nil || !before.Found {
		t.Fatalf("bob's route: %+v, %v", before, err)
	}

	n2.Kill(t)
	cut := Now()
	const timeout = time.Second
	for Now()-cut < c.Timings.Lease { // up to and past the end of n1's lease
		for _, to := range []string{"nobody", "carol"} {
			code, took := sendNow(alice, to, timeout)
			if code != wire.Unavailable && code != wire.Timeout {
				t.Errorf("without a quorum, to %s: %v, want unavailable or timeout", to, code)
			}
			if to == "nobody" && code != wire.Unavailable {
				t.Errorf("without a quorum, to nobody: %v, want unavailable", code)
			}
			if took > timeout+answerSlack {
				t.Errorf("without a quorum, to %s: %v after %v", to, code, took)
			}
		}
	}
	if code, _ := sendNow(alice, "bob", timeout); code == wire.Delivered || code == wire.Offline {
		t.Errorf("without a lease, to bob: %v", code)
	}
	began := Now()
	look, stop := context.WithTimeout(context.Background(), 2*time.Second)
	_, err = routeOf(look, n1, "bob")
	stop()
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Status != admin.StatusUnavailable {
		t.Errorf("a look-up without a quorum: %v, want unavailable", err)
	}
	if took := Now() - began; took > 2*time.Second+answerSlack {
		t.Errorf("a look-up without a quorum took %v", took)
	}
	if d, err := c.TryDial("dave", timeout, n1); err == nil {
		closing(d)
		t.Error("a login was taken without a quorum")
	}

	n2.Start(t)
	c.Await(t, "bob's former route to be served again", startWait, func(ctx context.Context) error {
		r, err := routeOf(ctx, n1, "bob")
		if err != nil {
			return err
		}
		if !r.Found || r.Epoch != before.Epoch || r.Session != before.Session {
			t.Fatalf("bob never left, but his route was %+v, then %+v", before, r)
		}
		if code, _ := sendNow(alice, "bob", time.Second); code != wire.Delivered {
			return fmt.Errorf("to bob: %v", code)
		}
		return nil
	})
	n3.Start(t)
	n3.AwaitReady(t)
	c.Await(t, "carol, whose node was killed", startWait, func(context.Context) error {
		if code, _ := sendNow(alice, "carol", time.Second); code != wire.Delivered {
			return errors.New(code.String())
		}
		return nil
	})
	c.AwaitAgreement(t, startWait)
}
