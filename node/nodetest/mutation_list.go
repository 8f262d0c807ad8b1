package nodetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// mutations are all switches of package mutate.
func mutations() []mutation {
	return []mutation{
		{name: "no-lease-check-before", rule: "the lease is checked before a delivery", trouble: cutFollower},
		{name: "no-lease-check-after", rule: "and again before delivered is answered", trouble: cutSlowAcks},
		{name: "delivered-on-accept", rule: "delivered is answered after the write", trouble: moves},
		{name: "grant-unconfirmed", rule: "a lease is granted after ConfirmTerm", trouble: believer},
		{name: "read-unconfirmed", rule: "a read is answered after ConfirmTerm", trouble: believer},
		{
			name: "round-joined-late", rule: "who asks joins the next ConfirmTerm round", standIn: [2]string{"./node", "TestConfirmJoinsTheNextRound"},
			why: "an election and a login have to fit into one round, which lasts milliseconds, and a node asks for all its clients at once",
		},
		{name: "no-barrier", rule: "a new leader serves once its command was applied", trouble: slowSuccessor},
		{name: "no-grace", rule: "a new leader treats every node as renewed", trouble: cutLeader},
		{name: "lease-from-answer", rule: "a lease counts from when its renewal was sent", trouble: cutSlow},
		{name: "expire-early", rule: "the leader waits for a lease to be over", trouble: cutFollower},
		{name: "unreachable-is-fenced", rule: "a holder that cannot be reached is waited for", trouble: cutFollower},
		{name: "revoke-without-fence", rule: "a Revoke is answered once its session is fenced", trouble: moves},
		{name: "register-over-live", rule: "a live row is replaced by its node or with a fence only", trouble: moves},
		{name: "unregister-any-epoch", rule: "Unregister compares the epoch", trouble: swaps},
		{name: "revoked-queue-dropped", rule: "what a closing session has not written is refused", trouble: slowLinks},
		{name: "nack-is-delivered", rule: "a refusal is not a delivery", trouble: moves},
		{name: "nack-is-offline", rule: "a refusal does not mean offline", trouble: moves},
		{name: "nack-ignored", rule: "a refusal is looked into or answered", trouble: slowLinks},
		{name: "offline-from-table", rule: "offline is answered after a linearizable read", trouble: slowLinks},
		{name: "no-dedupe", rule: "a session recognises a message that it was given", trouble: killFollower},
		{name: "no-order-hold", rule: "a later message waits for an earlier one on another way", trouble: slowLinks},
		{name: "boot-reused", rule: "a restart begins a new incarnation", trouble: killFollower},
		{
			name: "lane-takes-twice", rule: "a lane drops what it has taken before", standIn: [2]string{"./mesh/lane", "TestDuplicatesAreDropped|TestCuts"},
			why: "the session's own window hides it: two rules stand against the same repeat",
		},
		{
			name: "expire-in-any-term", rule: "NodeExpire takes effect only in the term it was decided in", standIn: [2]string{"./raftfsm", "TestScenarios|TestTableIsModel"},
			why: "needs a leader that loses and regains its leadership between deciding and appending, which are microseconds apart",
		},
	}
}

var (
	moves = trouble{
		name: "takeovers", load: LoadOptions{Takeovers: 30},
		do: func(_ testing.TB, c *Cluster, _ *Workload) { c.Wait(5 * time.Second) },
	}
	// The way to each node's one neighbour is slow: who moves there is reached on the new way before what was sent on the old
	// one has come back.
	slowLinks = trouble{
		name: "takeovers, 40 ms of delay on one way between each two nodes", peaceful: true,
		load: LoadOptions{Clients: 9, Steady: 5, Takeovers: 40, Burst: 16, Pause: 8 * time.Millisecond, Timeout: 2 * time.Second},
		do: func(_ testing.TB, c *Cluster, _ *Workload) {
			for i := range c.Nodes {
				c.Net.Set(i, (i+1)%len(c.Nodes), Path{Delay: 40 * time.Millisecond})
			}
			c.Wait(7 * time.Second)
		},
	}
	swaps = trouble{
		name: "one connection closes while its successor logs in at the same node", load: LoadOptions{Clients: 12, Steady: 6, Swaps: 150},
		do: func(_ testing.TB, c *Cluster, _ *Workload) { c.Wait(6 * time.Second) },
	}
	cutFollower = cutFollowerUnder("a follower cut off for 1.5 leases", 20*time.Millisecond)
	cutSlowAcks = cutFollowerUnder("a follower cut off for 1.5 leases, its clients acknowledge slowly", 250*time.Millisecond)
	cutSlow     = trouble{
		name: "a follower cut off for 1.5 leases, after answers to it took 250 ms", load: LoadOptions{Clients: 15},
		do: func(t testing.TB, c *Cluster, w *Workload) {
			c.AwaitSpread(t)
			l := c.Leader(t)
			n := c.Follower(t)
			c.Net.Set(l.Index, n.Index, Path{Delay: 250 * time.Millisecond})
			c.Wait(c.Timings.Lease / 2)
			c.Net.Isolate(n.Index)
			c.Wait(c.Timings.Lease * 3 / 2)
			c.Net.Heal()
			w.AwaitServed(t, Now(), recoverWait)
		},
	}
	cutLeader = trouble{
		name: "the leader cut off for 1.5 leases", load: LoadOptions{Takeovers: 20},
		do: func(t testing.TB, c *Cluster, w *Workload) {
			c.AwaitSpread(t)
			c.Net.Isolate(c.Leader(t).Index)
			c.Wait(c.Timings.Lease * 3 / 2)
			c.Net.Heal()
			w.AwaitServed(t, Now(), recoverWait)
		},
	}
	killFollower = trouble{
		name: "kill -9 a follower, restarted at once, three times",
		// Many messages are with clients who have not acknowledged them: their senders ask again.
		load: LoadOptions{Clients: 12, Pause: 150 * time.Millisecond, Burst: 2, AckDelay: 60 * time.Millisecond},
		do: func(t testing.TB, c *Cluster, w *Workload) {
			for range 3 {
				c.AwaitSpread(t)
				n := c.Follower(t)
				since := Now()
				n.Restart(t)
				w.AwaitServed(t, since, 15*time.Second)
				c.Await(t, "clients at the node that was restarted", 15*time.Second, func(context.Context) error {
					if c.history.clients()[n.Name] == 0 {
						return errors.New("nobody logs in there")
					}
					return nil
				})
			}
		},
	}
	// The leader's disk hangs, so its Raft does not notice that it was replaced, while everything else on that node goes on.
	believer = trouble{
		name: "the leader's disk hangs while it is cut off", load: LoadOptions{Takeovers: 15},
		do: func(t testing.TB, c *Cluster, w *Workload) {
			c.AwaitSpread(t)
			l := c.Leader(t)
			l.stall(t)
			defer l.unstall()
			l.awaitStalled(t)
			c.Net.Isolate(l.Index)
			c.Wait(c.Timings.Lease * 3)
			c.Net.Heal()
			l.unstall()
			w.AwaitServed(t, Now(), recoverWait)
		},
	}
	slowSuccessor = trouble{
		name: "kill -9 the leader right after a login; its successor's disk is slow", load: LoadOptions{Calm: true, Clients: 4},
		do: loseLeader,
	}
)

// loseLeader kills the leader before its followers have heard that a login was committed, and has a new one elected that
// cannot write yet: it is to serve nothing until it can.
func loseLeader(t testing.TB, c *Cluster, w *Workload) {
	l := c.Leader(t)
	others := c.Others(l)
	late := c.Dial(t, "late", others[0])
	defer closeNow(late)
	for _, o := range others {
		o.stall(t)
		defer o.unstall()
	}
	l.Kill(t)
	began := Now()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, o := range others {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.lookUp(ctx, "late", o)
				c.Wait(10 * time.Millisecond)
			}
		})
	}
	c.Wait(2 * time.Second)
	for _, o := range others {
		o.unstall()
	}
	wg.Wait()
	l.Start(t)
	l.AwaitReady(t)
	w.AwaitServed(t, began, recoverWait)
}

func closeNow(cl interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = cl.Close(ctx) // its node may be gone
}

func cutFollowerUnder(name string, ackDelay time.Duration) trouble {
	return trouble{
		name: name, load: LoadOptions{AckDelay: ackDelay, Clients: 15, Takeovers: 20},
		do: func(t testing.TB, c *Cluster, w *Workload) {
			c.AwaitSpread(t)
			c.Net.Isolate(c.Follower(t).Index)
			c.Wait(c.Timings.Lease * 3 / 2)
			c.Net.Heal()
			w.AwaitServed(t, Now(), recoverWait)
		},
	}
}
