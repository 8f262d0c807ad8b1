package nodetest

import (
	"slices"
	"testing"
	"time"
)

// Fault is something that happens to a cluster under load.
type Fault struct {
	Name string
	// Options of the cluster that it needs.
	Options Options
	// Load is the workload that it needs.
	Load LoadOptions
	// Skip says why this cannot be done here; empty: it can. Nil: it always can.
	Skip func() string
	// Orderly: nobody ends without a word and nobody is cut off, so nothing may fail meanwhile (checkServed).
	Orderly bool
	// Do makes it happen, and un-happen, and returns the moment from which on it is to be recovered from.
	Do func(t testing.TB, c *Cluster) (since time.Duration)
	// Heal brings back what Do left broken, after the recovery was measured. May be nil.
	Heal func(t testing.TB, c *Cluster)
	// Bound is the promise: all clients are reached again this soon. 0: none beyond recovering at all.
	Bound func(ti Timings) time.Duration
}

// failover is how long Raft takes to elect anew, in most cases: a leader's lease there, a time-out of up to twice its
// length, and a vote that is split once.
func (ti Timings) failover() time.Duration { return ti.Heartbeat + 4*ti.Election }

// served is the promise for the clients of a node that ends without a word (G8).
func served(ti Timings) time.Duration { return ti.Lease + 2*ti.Margin + time.Second }

// servedRestarted is the promise if a supervisor starts it again at once.
func servedRestarted(Timings) time.Duration { return time.Second }

func servedLeader(ti Timings) time.Duration { return served(ti) + ti.failover() }

// Faults are those of the matrix.
func Faults() []Fault {
	all := slices.Concat(processFaults(), memberFaults(), diskFaults(), spaceFaults())
	for i := range all {
		if all[i].Orderly {
			all[i].Options.Timings, all[i].Load.Timeout = CalmTimings(), 5*time.Second
		}
	}
	return all
}

// processFaults are those of processes and, by the proxies, of the network between them.
func processFaults() []Fault {
	return []Fault{
		killed("kill -9 a follower", (*Cluster).Follower, served),
		killed("kill -9 the leader", (*Cluster).Leader, servedLeader),
		{
			Name: "kill -9 a follower, restarted at once", Bound: servedRestarted,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				n := c.Follower(t)
				since := Now()
				n.Restart(t)
				return since
			},
		},
		{
			Name: "kill -9 the leader, restarted at once", Bound: servedLeader,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				n := c.Leader(t)
				since := Now()
				n.Restart(t)
				return since
			},
		},
		{
			Name: "stop a follower in order, start it again", Orderly: true, Bound: served,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				n := c.Follower(t)
				since := Now()
				n.Stop(t)
				n.Start(t)
				return since
			},
		},
		{
			Name: "stop the leader in order, start it again", Orderly: true, Bound: servedLeader,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				n := c.Leader(t)
				since := Now()
				n.Stop(t)
				n.Start(t)
				return since
			},
		},
		{
			Name: "rolling restart", Orderly: true,
			Do: func(t testing.TB, c *Cluster) time.Duration {
				for _, n := range c.Nodes {
					n.Stop(t)
					n.Start(t)
					n.AwaitReady(t)
				}
				return Now()
			},
		},
		{
			Name: "kill -9 all, start all",
			Do: func(t testing.TB, c *Cluster) time.Duration {
				for _, n := range c.Nodes {
					n.Kill(t)
				}
				for _, n := range c.Nodes {
					n.Start(t)
				}
				return Now()
			},
		},
		paused("SIGSTOP a follower, 0.5 × lease", (*Cluster).Follower, 0.5),
		paused("SIGSTOP a follower, 1 × lease", (*Cluster).Follower, 1),
		paused("SIGSTOP a follower, 3 × lease", (*Cluster).Follower, 3),
		paused("SIGSTOP the leader, 0.5 × lease", (*Cluster).Leader, 0.5),
		paused("SIGSTOP the leader, 1 × lease", (*Cluster).Leader, 1),
		paused("SIGSTOP the leader, 3 × lease", (*Cluster).Leader, 3),
		network("a follower cut off", 1.5, func(t testing.TB, c *Cluster) { c.Net.Isolate(c.Follower(t).Index) }),
		network("the leader cut off", 1.5, func(t testing.TB, c *Cluster) { c.Net.Isolate(c.Leader(t).Index) }),
		network("a follower is not heard", 1.5, func(t testing.TB, c *Cluster) { c.Net.Mute(c.Follower(t).Index) }),
		network("the leader is not heard", 1.5, func(t testing.TB, c *Cluster) { c.Net.Mute(c.Leader(t).Index) }),
		network("a follower does not hear", 1.5, func(t testing.TB, c *Cluster) { c.Net.Deafen(c.Follower(t).Index) }),
		network("the leader does not hear", 1.5, func(t testing.TB, c *Cluster) { c.Net.Deafen(c.Leader(t).Index) }),
		network("followers cut off from each other", 1.5, func(t testing.TB, c *Cluster) {
			o := c.Others(c.Leader(t))
			c.Net.CutBetween(o[0].Index, o[1].Index)
		}),
		network("leader and a follower cut off from each other", 1.5, func(t testing.TB, c *Cluster) {
			l := c.Leader(t)
			c.Net.CutBetween(l.Index, c.Others(l)[0].Index)
		}),
		network("a ring: each hears one neighbour", 1.5, func(_ testing.TB, c *Cluster) { c.Net.Ring() }),
		network("everybody cut off from everybody", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Cut: true}) }),
		network("1 % of packets lost", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Loss: 0.01}) }),
		network("10 % of packets lost", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Loss: 0.1}) }),
		network("50 % of packets lost", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Loss: 0.5}) }),
		network("30 ms of delay", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Delay: 30 * time.Millisecond}) }),
		network("packets overtake each other, up to 30 ms", 1.5, func(_ testing.TB, c *Cluster) { c.Net.SetAll(Path{Jitter: 30 * time.Millisecond}) }),
		pair("a follower cut off, the leader killed and restarted", 1.5, func(t testing.TB, c *Cluster) {
			l := c.Leader(t)
			c.Net.Isolate(c.Others(l)[0].Index)
			l.Restart(t)
		}),
		pair("a follower stopped while 10 % of packets are lost", 1, func(t testing.TB, c *Cluster) {
			c.Net.SetAll(Path{Loss: 0.1})
			pause(t, c, c.Follower(t), 1)
		}),
		pair("a follower cut off while the other is stopped", 1, func(t testing.TB, c *Cluster) {
			o := c.Others(c.Leader(t))
			c.Net.Isolate(o[0].Index)
			pause(t, c, o[1], 1.5)
		}),
		pair("the leader does not hear, a follower is killed and restarted", 1.5, func(t testing.TB, c *Cluster) {
			l := c.Leader(t)
			c.Net.Deafen(l.Index)
			c.Others(l)[0].Restart(t)
		}),
	}
}

func killed(name string, who func(*Cluster, testing.TB) *Node, bound func(Timings) time.Duration) Fault {
	var dead *Node
	return Fault{
		Name: name, Bound: bound,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			dead = who(c, t)
			since := Now()
			dead.Kill(t)
			return since
		},
		Heal: func(t testing.TB, _ *Cluster) {
			dead.Start(t)
			dead.AwaitReady(t)
		},
	}
}

func pause(t testing.TB, c *Cluster, n *Node, leases float64) {
	n.Pause(t)
	c.Wait(time.Duration(leases * float64(c.Timings.Lease)))
	n.Resume(t)
}

func paused(name string, who func(*Cluster, testing.TB) *Node, leases float64) Fault {
	return Fault{Name: name, Do: func(t testing.TB, c *Cluster) time.Duration {
		pause(t, c, who(c, t), leases)
		return Now()
	}}
}

// network is a fault of the network that lasts for that many leases.
func network(name string, leases float64, do func(t testing.TB, c *Cluster)) Fault {
	return Fault{Name: name, Do: func(t testing.TB, c *Cluster) time.Duration {
		do(t, c)
		c.Wait(time.Duration(leases * float64(c.Timings.Lease)))
		c.Net.Heal()
		return Now()
	}}
}

func pair(name string, leases float64, do func(t testing.TB, c *Cluster)) Fault {
	return network(name, leases, do)
}

// recoverWait bounds a recovery whatever was promised: past it the cluster counts as broken for good.
const recoverWait = 40 * time.Second

// Inject makes f happen and waits until all clients are served again. It returns how long that took, which is for the
// caller to compare with f.Bound.
func (w *Workload) Inject(t testing.TB, f Fault) (recovery time.Duration) {
	t.Helper()
	if !w.o.Calm {
		w.c.AwaitSpread(t)
	}
	began := Now()
	since := f.Do(t, w.c)
	recovery = w.AwaitServed(t, since, recoverWait)
	if f.Heal != nil {
		f.Heal(t, w.c)
	}
	if f.Orderly {
		w.c.history.wasOrderly(Span{began, Now()})
	}
	t.Logf("%s: served again after %v (began %v ago)", f.Name, recovery.Round(time.Millisecond), (Now() - began).Round(time.Millisecond))
	return recovery
}
