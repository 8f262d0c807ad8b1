package bench

import (
	"context"
	"fmt"
	"time"
)

// MeshOptions is a run of Mesh.
type MeshOptions struct {
	Started  time.Duration // what starting the cluster took
	Settle   time.Duration
	Duration time.Duration
	// Read asks node i for its counters.
	Read func(ctx context.Context, i int) (MeshCounters, error)
}

// MeshCounters is what one node says of its part of the mesh.
type MeshCounters struct {
	Term  float64            // Raft's
	Peers float64            // that it has a connection to
	Sent  map[string]float64 // bytes since the node started, by peer
}

// Mesh measures what a cluster costs that has no clients: CPU of each node, and bytes on each link. What makes it look idle
// although it is not, or busy although nothing was asked of it, is a problem: a peer without a connection, an election.
func Mesh(ctx context.Context, t Target, o MeshOptions) (Result, error) {
	n := len(t.Addrs)
	r := Result{Name: "imroute-mesh", Pairs: n, Cluster: t.clusterName()}
	if n < 2 || o.Duration <= 0 || o.Settle < 0 {
		return r, fmt.Errorf("%d nodes, duration %s, settle %s: want 2 nodes, more than 0, not negative", n, o.Duration, o.Settle)
	}
	wait := func(phase string, d time.Duration) error {
		defer startReports(&t, fmt.Sprintf("%d nodes %s", n, phase), d, func() int64 { return 0 }, nil)()
		return pause(ctx, d)
	}
	if err := wait("settling", o.Settle); err != nil {
		return r, err
	}
	before, err := readMesh(ctx, n, o.Read)
	if err != nil {
		return r, err
	}
	cpu := make([]time.Duration, len(t.PIDs))
	for i, pid := range t.PIDs {
		cpu[i] = cpuOf([]int{pid})
	}
	mark, over := markUsage(t.PIDs), t.measuring(ctx, o.Duration)
	err = wait("measuring", o.Duration)
	u := mark.until(t.PIDs)
	m := &MeshResult{Nodes: n, StartMS: o.Started.Milliseconds()}
	s := u.took.Seconds()
	for i, pid := range t.PIDs {
		used := float64((cpuOf([]int{pid}) - cpu[i]).Microseconds()) / 1e3 / s
		m.CPUMSPerS += used / float64(n)
		m.CPUMSPerSMax = max(m.CPUMSPerSMax, used)
		m.RSS += rssOf(pid) / int64(n)
	}
	over()
	r.DurationMS, r.Mesh = u.took.Milliseconds(), m
	if err != nil {
		return r, err
	}
	after, err := readMesh(ctx, n, o.Read)
	if err != nil {
		return r, err
	}
	m.links(before, after, s)
	r.checkMesh(before, after)
	return r, nil
}

// meshState is what all nodes say, by their names.
type meshState map[string]MeshCounters

func readMesh(ctx context.Context, n int, read func(context.Context, int) (MeshCounters, error)) (meshState, error) {
	all := meshState{}
	for i := range n {
		c, err := read(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("counters of node %d: %w", i+1, err)
		}
		all[fmt.Sprintf("n%d", i+1)] = c
	}
	return all, nil
}

// links turns what each node sent to each other one into rates.
func (m *MeshResult) links(before, after meshState, seconds float64) {
	total := 0.0
	for i := range m.Nodes {
		for j := range i {
			a, b := fmt.Sprintf("n%d", i+1), fmt.Sprintf("n%d", j+1)
			rate := (after[a].Sent[b] - before[a].Sent[b] + after[b].Sent[a] - before[b].Sent[a]) / seconds
			total += rate
			m.LinkBytesMax = max(m.LinkBytesMax, rate)
			if m.Links == 0 || rate < m.LinkBytesLess {
				m.LinkBytesLess = rate
			}
			m.Links++
		}
	}
	m.LinkBytes = total / float64(m.Links)
}

func (r *Result) checkMesh(before, after meshState) {
	missing, n := int64(0), len(after)
	for name, c := range after {
		missing += int64(n-1) - int64(c.Peers)
		if c.Term != before[name].Term {
			r.problem("the term at %s went from %.0f to %.0f: there was an election, so this was no idle cluster", name, before[name].Term, c.Term)
		}
	}
	if missing > 0 {
		r.Lost = missing
		r.problem("%s", plural(missing, "connection between two nodes is missing", "connections between nodes are missing"))
	}
}
