package nodetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// torment does to the cluster what the seed says until the time is over: one goroutine breaks the network, another one does
// things to nodes. Each draws from a source of its own, so that what one does does not depend on how the other gets on.
func (s *simulation) torment(length time.Duration) {
	until := time.Now().Add(length)
	var wg sync.WaitGroup
	wg.Go(func() { s.tormentNetwork(rand.New(rand.NewPCG(s.seed, 2)), until) })
	wg.Go(func() { s.tormentNodes(rand.New(rand.NewPCG(s.seed, 3)), until) })
	wg.Wait()
}

// upTo is a time of up to that many leases.
func (s *simulation) upTo(r *rand.Rand, leases float64) time.Duration {
	return time.Duration(r.Float64() * leases * float64(s.c.Timings.Lease))
}

func (s *simulation) tormentNetwork(r *rand.Rand, until time.Time) {
	net, all := s.net.paths, len(s.nodes)
	faults := []struct {
		name string
		do   func()
	}{
		{"cut off a node", func() { net.Isolate(r.IntN(all)) }},
		{"a node is not heard", func() { net.Mute(r.IntN(all)) }},
		{"a node does not hear", func() { net.Deafen(r.IntN(all)) }},
		{"two nodes cut off from each other", func() { a := r.IntN(all); net.CutBetween(a, (a+1)%all) }},
		{"one node does not hear another", func() { a := r.IntN(all); net.Set(a, (a+1+r.IntN(all-1))%all, Path{Cut: true}) }},
		{"a ring", net.Ring},
		{"everybody cut off", func() { net.SetAll(Path{Cut: true}) }},
		{"loss", func() { net.SetAll(Path{Loss: 0.5 * r.Float64()}) }},
		{"delay", func() { net.SetAll(Path{Delay: time.Duration(r.Int64N(int64(200 * time.Millisecond)))}) }},
		{"overtaking", func() { net.SetAll(Path{Jitter: 1 + time.Duration(r.Int64N(int64(100*time.Millisecond)))}) }},
		{"loss, delay and overtaking", func() {
			net.SetAll(Path{Loss: 0.2 * r.Float64(), Delay: time.Duration(r.Int64N(int64(50 * time.Millisecond))), Jitter: 30 * time.Millisecond})
		}},
		{"every way another fault", func() {
			for i := range all {
				for j := range all {
					net.Set(i, j, Path{Cut: r.IntN(4) == 0, Loss: 0.3 * r.Float64(), Jitter: 1 + time.Duration(r.Int64N(int64(40*time.Millisecond)))})
				}
			}
		}},
	}
	for s.passes(s.upTo(r, 1), until) {
		f := faults[r.IntN(len(faults))]
		s.note("network: %s", f.name)
		f.do()
		s.passes(s.upTo(r, 2), until)
		if r.IntN(4) > 0 { // or the next fault comes on top
			s.note("network: heal")
			net.Heal()
		}
	}
	net.Heal()
}

// passes lets d pass; false: the time is over.
func (s *simulation) passes(d time.Duration, until time.Time) bool {
	time.Sleep(min(d, time.Until(until))) // virtual time
	return time.Now().Before(until)
}

func (s *simulation) tormentNodes(r *rand.Rand, until time.Time) {
	for s.passes(s.upTo(r, 1.5), until) {
		n := s.nodes[r.IntN(len(s.nodes))]
		if r.IntN(3) == 0 {
			if leader := s.leader(); leader != nil {
				n = leader
			}
		}
		if !n.running() {
			s.bringBack(n)
			continue
		}
		switch k := r.IntN(20); {
		case k < 7:
			n.crash()
			if r.IntN(2) == 0 {
				s.passes(s.upTo(r, 2), until)
			}
			s.bringBack(n)
		case k < 9:
			n.stop()
			s.bringBack(n)
		case k < 10: // power cut
			var wg sync.WaitGroup
			for _, v := range s.nodes {
				if v.running() {
					wg.Go(v.crash)
				}
			}
			wg.Wait()
			for _, v := range s.nodes {
				s.bringBack(v)
			}
		case k < 13:
			s.ask(n, "transfer leadership", func(ctx context.Context, c *admin.Client) error {
				_, err := c.TransferLeadership(ctx, "")
				return err
			})
		case k < 15:
			s.ask(n, "drain", func(ctx context.Context, c *admin.Client) error { _, err := c.Drain(ctx, n.name, false); return err })
			s.passes(s.upTo(r, 1), until)
			for range 5 { // a node that drains takes no clients
				if s.ask(n, "cancel the drain", func(ctx context.Context, c *admin.Client) error { _, err := c.Drain(ctx, n.name, true); return err }) == nil {
					break
				}
			}
		case k < 16:
			n.askLeave(true)
			s.ask(n, "leave", func(ctx context.Context, c *admin.Client) error { _, err := c.Leave(ctx, n.name); return err })
			s.passes(3*s.c.Timings.Lease, until)
			s.bringBack(n)
		case k < 17: // its disk is lost; the new member takes the place of the old one once that is down
			if !s.allVote() {
				continue
			}
			n.crash()
			n.disk++
			s.bringBack(n)
		default:
			s.ask(n, "routes compared", func(ctx context.Context, c *admin.Client) error { _, err := c.CheckRoutes(ctx, true); return err })
		}
	}
}

// allVote tells whether all nodes run and are, as the leader knows it, the voters. If not, a disk must not be lost: it could
// be the second one of the three that vote, and no cluster stands that.
func (s *simulation) allVote() bool {
	leader := s.leader()
	if leader == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	p, err := s.c.Nodes[leader.i].admin.RaftPeers(ctx)
	if err != nil || len(p.Peers) != len(s.nodes) {
		return false
	}
	votes := map[wire.NodeID]bool{}
	for _, v := range p.Peers {
		votes[v.ID] = v.Voter
	}
	for _, n := range s.nodes {
		if !n.running() || !votes[n.n.ID()] { // among the voters may be a predecessor, whose disk is lost already
			return false
		}
	}
	return true
}

// leader is a node that says it leads, if one says so soon.
func (s *simulation) leader() *simNode {
	for i, n := range s.nodes {
		if !n.running() {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
		d, err := s.c.Nodes[i].admin.Node(ctx, n.name)
		cancel()
		if err == nil && d.Detail != nil && d.Detail.RaftState == admin.RoleLeader {
			return n
		}
	}
	return nil
}

func (s *simulation) ask(n *simNode, what string, f func(context.Context, *admin.Client) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Timings.Lease)
	defer cancel()
	err := f(ctx, s.c.Nodes[n.i].admin)
	if err != nil {
		s.note("%s, %s: %v", n.label(), what, err)
	} else {
		s.note("%s, %s: done", n.label(), what)
	}
	return err
}

// bringBack starts a node that is down. A member that has lost its disk cannot join before somebody answers and its
// predecessor is down, so it may take some tries; awaitWhole makes the rest of them.
func (s *simulation) bringBack(n *simNode) {
	for range 10 {
		err := n.ensure()
		if err == nil {
			return
		}
		s.note("%v", err)
		if errors.Is(err, context.Canceled) {
			return
		}
		time.Sleep(s.c.Timings.Lease / 4) // virtual time
	}
}
