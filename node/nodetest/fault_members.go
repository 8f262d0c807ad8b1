package nodetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"imroute/node/admin"
)

// operatorWait bounds what an operator does: a node that leaves waits for its clients.
const operatorWait = 30 * time.Second

// operate does something by a node's admin API; an error ends the test.
func operate(t testing.TB, what string, do func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), operatorWait)
	defer cancel()
	if err := do(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// memberFaults are what operators do to a cluster that serves. Most of it is in order: nobody who stays where he is may
// notice.
func memberFaults() []Fault {
	return []Fault{
		left("the leader leaves", (*Cluster).Leader),
		left("a follower leaves", (*Cluster).Follower),
		{
			Name: "leadership handed over", Orderly: true, Bound: servedLeader,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				since := Now()
				handOver(t, c)
				return since
			},
		},
		drained("a follower drained, the drain cancelled", (*Cluster).Follower),
		drained("the leader drained, the drain cancelled", (*Cluster).Leader),
		{
			Name: "a fourth node joins and leaves", Options: Options{Spare: 1}, Orderly: true,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				n := c.Nodes[len(c.Nodes)-1]
				n.Rejoin(t)
				c.Wait(c.Timings.Lease / 2)
				leave(t, n)
				return Now()
			},
		},
		reelected("a follower demoted and promoted", (*Cluster).Follower),
		reelected("the leader demoted and promoted", (*Cluster).Leader),
		removed("a live follower removed, wiped and joined again", (*Cluster).Follower, true, served),
		removed("the live leader removed, wiped and joined again", (*Cluster).Leader, true, servedLeader),
		removed("a dead follower removed, wiped and joined again", (*Cluster).Follower, false, nil),
		wiped("a follower killed, wiped, joins under its old name", (*Cluster).Follower, served),
		wiped("the leader killed, wiped, joins under its old name", (*Cluster).Leader, servedLeader),
		pairOf("the leader leaves while 10 % of packets are lost", func(t testing.TB, c *Cluster) func() {
			c.Net.SetAll(Path{Loss: 0.1})
			n := c.Leader(t)
			leave(t, n)
			return func() { n.Rejoin(t) }
		}),
		pairOf("a fourth node joins while the leader is killed and restarted", func(t testing.TB, c *Cluster) func() {
			n := c.Nodes[len(c.Nodes)-1]
			at := c.Follower(t)
			n.begin(t, "--join", at.Mesh(), "--token", c.Token(t, at))
			c.Leader(t).Restart(t)
			n.AwaitReady(t)
			return func() {
				leave(t, n)
				n.empty(t)
			}
		}, Options{Spare: 1}),
	}
}

// pairOf is two faults at once; what it returns undoes them after the recovery was measured. The network heals before.
func pairOf(name string, do func(t testing.TB, c *Cluster) func(), o ...Options) Fault {
	var undo func()
	f := Fault{
		Name: name,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			undo = do(t, c)
			if c.Net != nil {
				c.Net.Heal()
			}
			return Now()
		},
		Heal: func(testing.TB, *Cluster) { undo() },
	}
	if len(o) > 0 {
		f.Options = o[0]
	}
	return f
}

func leave(t testing.TB, n *Node) {
	t.Helper()
	n.c.history.process(n.identity(), ProcessStop)
	operate(t, n.Name+" leaves", func(ctx context.Context) error {
		_, err := n.admin.Leave(ctx, n.Name)
		return err
	})
	n.AwaitLeft(t, operatorWait)
}

func left(name string, who func(*Cluster, testing.TB) *Node) Fault {
	var gone *Node
	return Fault{
		Name: name, Orderly: true, Bound: servedLeader,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			gone = who(c, t)
			since := Now()
			leave(t, gone)
			return since
		},
		Heal: func(t testing.TB, _ *Cluster) { gone.Rejoin(t) },
	}
}

func handOver(t testing.TB, c *Cluster) {
	t.Helper()
	l := c.Leader(t)
	operate(t, "handing leadership over", func(ctx context.Context) error {
		r, err := l.admin.TransferLeadership(ctx, "")
		if err == nil && r.Leader == l.Name {
			err = fmt.Errorf("%s leads still", l.Name)
		}
		return err
	})
}

func drained(name string, who func(*Cluster, testing.TB) *Node) Fault {
	return Fault{
		Name: name, Orderly: true,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			n := who(c, t)
			drain(t, n, false)
			c.Await(t, n.Name+" to be empty", operatorWait, func(context.Context) error {
				if k := c.history.clients()[n.Name]; k > 0 {
					return fmt.Errorf("%d clients are there", k)
				}
				return nil
			})
			drain(t, n, true)
			return Now()
		},
	}
}

func drain(t testing.TB, n *Node, cancel bool) {
	t.Helper()
	operate(t, fmt.Sprintf("draining %s (cancel: %t)", n.Name, cancel), func(ctx context.Context) error {
		_, err := n.admin.Drain(ctx, n.Name, cancel)
		return err
	})
}

// reelected is demoted and promoted again.
func reelected(name string, who func(*Cluster, testing.TB) *Node) Fault {
	return Fault{
		Name: name, Orderly: true,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			n := who(c, t)
			operate(t, "demoting "+n.Name, func(ctx context.Context) error {
				_, err := n.admin.Demote(ctx, n.Name)
				return err
			})
			c.AwaitVoters(t, 2)
			c.Wait(c.Timings.Lease / 2)
			operate(t, "promoting "+n.Name, func(ctx context.Context) error {
				_, err := n.admin.Promote(ctx, n.Name)
				return err
			})
			c.AwaitVoters(t, 3)
			return Now()
		},
	}
}

// removed is taken out by the word of another node, alive or dead, and comes back as a new member.
func removed(name string, who func(*Cluster, testing.TB) *Node, alive bool, bound func(Timings) time.Duration) Fault {
	var gone *Node
	return Fault{
		Name: name, Bound: bound,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			gone = who(c, t)
			at := c.Others(gone)[0]
			if alive {
				c.history.process(gone.identity(), ProcessStop)
			} else {
				gone.Kill(t)
				gone.AwaitDown(t)
			}
			since := Now()
			operate(t, "removing "+gone.Name, func(ctx context.Context) error { return at.admin.Remove(ctx, gone.Name, alive) })
			if alive {
				// It is told, or hears from a peer that refuses it.
				gone.AwaitStop(t, operatorWait, "was removed", "start with an empty data folder")
			}
			return since
		},
		Heal: func(t testing.TB, _ *Cluster) { gone.Rejoin(t) },
	}
}

// wiped loses its data folder and joins under its old name without having been removed.
func wiped(name string, who func(*Cluster, testing.TB) *Node, bound func(Timings) time.Duration) Fault {
	f := killed(name, who, bound)
	kill, dead := f.Do, (*Node)(nil)
	f.Do = func(t testing.TB, c *Cluster) time.Duration {
		since := kill(t, c)
		for _, n := range c.Nodes {
			if n.run != nil && !n.Running() {
				dead = n
			}
		}
		return since
	}
	f.Heal = func(t testing.TB, c *Cluster) {
		dead.Rejoin(t)
		c.Await(t, "the former member of that name to be gone", startWait, func(ctx context.Context) error {
			nodes, err := c.running(t).admin.Nodes(ctx)
			if err != nil {
				return err
			}
			have := 0
			for _, v := range nodes {
				if v.Name == dead.Name && v.State != admin.StateDown {
					have++
				}
			}
			if have != 1 || len(nodes) != len(c.Nodes) {
				return fmt.Errorf("members: %+v", nodes)
			}
			return nil
		})
		c.AwaitVoters(t, len(c.Nodes)) // not counting the former one
	}
	return f
}
