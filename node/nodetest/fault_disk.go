package nodetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// diskBytes is the size of a data folder that is to fill up. A node wants 64 MiB free to be ready.
	diskBytes = 80 << 20
	// diskTimeout is how long a write may hang before a node gives up, in the clusters whose disks hang.
	diskTimeout = 2 * time.Second
	// stopWait is how long a node may take to end once it cannot go on.
	stopWait = 30 * time.Second
)

// wipeAdvice is what a node with damaged state must tell whoever started it.
const wipeAdvice = "empty its data folder and let it join again as a new member"

// diskFaults are those of one node's disk. In each the node must end and say why, the others go on without it, and it comes
// back: with its state if that is whole, as a new member otherwise.
func diskFaults() []Fault {
	return []Fault{
		diskFull("a follower's disk is full", (*Cluster).Follower, served),
		diskFull("the leader's disk is full", (*Cluster).Leader, servedLeader),
		badSync("a follower's fsync fails", (*Cluster).Follower, "error=EIO", served, "input/output error", "check the disk"),
		badSync("the leader's fsync fails", (*Cluster).Leader, "error=EIO", servedLeader, "input/output error", "check the disk"),
		badSync("a follower's fsync hangs", (*Cluster).Follower, "delay_enter=60000000", served, "the disk did not answer within", "check the disk"),
		badSync("the leader's fsync hangs", (*Cluster).Leader, "delay_enter=60000000", servedLeader, "the disk did not answer within", "check the disk"),
		damage("a bit flipped in a follower's Raft log", (*Cluster).Follower, served, flipLog),
		damage("the former leader's Raft log cut short", (*Cluster).Leader, servedLeader, cutLog),
		damage("a follower's snapshot cut short", (*Cluster).Follower, served, cutSnapshot),
		damage("a bit flipped in the former leader's snapshot", (*Cluster).Leader, servedLeader, flipSnapshot),
		withOptions(pairOf("a follower's disk is full, the leader is killed and restarted", func(t testing.TB, c *Cluster) func() {
			n := c.Follower(t)
			n.disk.fill(t)
			c.Leader(t).Restart(t)
			n.AwaitStop(t, stopWait, "no space left on device", "free space")
			return func() {
				n.disk.free(t)
				n.Start(t)
				n.AwaitReady(t)
			}
		}), Options{DiskBytes: diskBytes}, needsDisks),
		withOptions(pairOf("the leader's fsync hangs, a follower is killed and restarted", func(t testing.TB, c *Cluster) func() {
			l := c.Leader(t)
			tracer := l.inject(t, "delay_enter=60000000")
			c.Others(l)[0].Restart(t)
			l.awaitStop(t, tracer, "the disk did not answer within")
			return func() {
				l.Start(t)
				l.AwaitReady(t)
			}
		}), Options{Args: []string{"--disk-timeout", diskTimeout.String()}}, needsTracer),
	}
}

func withOptions(f Fault, o Options, skip func() string) Fault {
	f.Options, f.Skip = o, skip
	return f
}

// diskFull fills a node's disk until the node stops; then there is space again, and it goes on with what it has.
func diskFull(name string, who func(*Cluster, testing.TB) *Node, bound func(Timings) time.Duration) Fault {
	var n *Node
	return Fault{
		Name: name, Options: Options{DiskBytes: diskBytes}, Skip: needsDisks, Bound: bound,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			n = who(c, t)
			n.disk.fill(t)
			return n.AwaitStop(t, stopWait, "no space left on device", "free space")
		},
		Heal: func(t testing.TB, _ *Cluster) {
			n.disk.free(t)
			n.Start(t)
			n.AwaitReady(t)
		},
	}
}

// badSync lets every fsync of a running node fail, or hang, from some moment on.
func badSync(name string, who func(*Cluster, testing.TB) *Node, how string, bound func(Timings) time.Duration, says ...string) Fault {
	var n *Node
	return Fault{
		Name: name, Options: Options{Args: []string{"--disk-timeout", diskTimeout.String()}}, Skip: needsTracer, Bound: bound,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			n = who(c, t)
			return n.awaitStop(t, n.inject(t, how), says...)
		},
		Heal: func(t testing.TB, _ *Cluster) {
			n.Start(t)
			n.AwaitReady(t)
		},
	}
}

// awaitStop is AwaitStop for a node whose system calls are tampered with. What hangs in the kernel, or is held up as if it
// did, keeps even a process that has ended from going away; so its last word is waited for, and then what holds it up ends.
// It returns when the node gave up, which a disk that hangs delays by diskTimeout.
func (n *Node) awaitStop(t testing.TB, tr *tracer, says ...string) (gaveUp time.Duration) {
	t.Helper()
	for _, word := range []string{distrust, lastWord} {
		n.c.Await(t, n.Name+" to say that it ends", stopWait, func(context.Context) error {
			if n.Running() && !strings.Contains(n.logOfRun(t), word) {
				return errors.New("it has not done so")
			}
			return nil
		})
		if gaveUp == 0 {
			gaveUp = Now()
		}
	}
	tr.kill()
	n.AwaitStop(t, stopWait, says...)
	return gaveUp
}

// lastWord begins what imctl prints, in JSON, right before it ends with an error.
const lastWord = `{"error":{`

// damage ends a node, spoils something that it has on its disk, wants it to refuse to start, and brings it back as a new
// member under its old name.
func damage(name string, who func(*Cluster, testing.TB) *Node, bound func(Timings) time.Duration, spoil func(t testing.TB, n *Node)) Fault {
	var n *Node
	return Fault{
		Name: name, Bound: bound,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			n = who(c, t)
			// Also for the log: what comes after a snapshot is read from it at the start.
			operate(t, "a snapshot at "+n.Name, func(ctx context.Context) error {
				_, err := n.admin.TakeSnapshot(ctx)
				return err
			})
			since := Now()
			n.Kill(t)
			spoil(t, n)
			n.Start(t)
			n.AwaitStop(t, stopWait, "damaged", wipeAdvice, n.data)
			return since
		},
		Heal: func(t testing.TB, _ *Cluster) { n.Rejoin(t) },
	}
}

func (n *Node) raftFile(t testing.TB, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.data, "raft", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no %s: %v", n.Name, pattern, err)
	}
	slices.Sort(files)
	return files[len(files)-1] // of snapshots the newest
}

func spoil(t testing.TB, file string, how func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, how(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func cut(b []byte) []byte { return b[:len(b)/2] }

func cutLog(t testing.TB, n *Node)      { spoil(t, n.raftFile(t, "raft.db"), cut) }
func cutSnapshot(t testing.TB, n *Node) { spoil(t, n.raftFile(t, "snapshots/*.snap"), cut) }

func flipSnapshot(t testing.TB, n *Node) {
	spoil(t, n.raftFile(t, "snapshots/*.snap"), func(b []byte) []byte {
		at := n.c.flip(len(b))
		b[at] ^= 1 << (at % 8)
		t.Logf("bit %d of byte %d of %d is flipped", at%8, at, len(b))
		return b
	})
}

// flip chooses a place, by the seed and what was done so far.
func (c *Cluster) flip(size int) int {
	return int((c.Seed*2654435761 + uint64(c.Nodes[0].starts+c.Nodes[1].starts+c.Nodes[2].starts)*40503) % uint64(size))
}
