package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/assign"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

const opRebalance = "rebalance"

// rebalanceTick is the time between two steps.
const rebalanceTick = 100 * time.Millisecond

// rebalanceAsk is the request to a node; Rate 0: it only says how far it is.
type rebalanceAsk struct {
	Rate   uint32 `json:"rate"`
	Target uint32 `json:"target"`
}

// rebalance is how far this node is with moving clients away. The target is fixed when it starts, by figures that were asked for
// then: those that ride on renewals are a moment old while clients are on their way, and a target that follows them would move
// too many, and then some back.
type rebalance struct {
	wake chan struct{} // capacity 1

	mu     sync.Mutex
	rate   uint32 // guarded by mu: clients a second
	target int    // guarded by mu; 0: nothing was ever started
	moved  int    // guarded by mu: since it was last started
	moving bool   // guarded by mu
}

// rebalanceHere starts moving clients away from this node until it has no more than its target, and says how far that is.
func (n *Node) rebalanceHere(q rebalanceAsk) admin.RebalanceNode {
	r := &n.rebalance
	r.mu.Lock()
	defer r.mu.Unlock()
	count := n.gateway.Count()
	if q.Rate > 0 && !n.drainIntent.Load() {
		r.target, r.rate = max(int(q.Target), 1), q.Rate
		if !r.moving {
			r.moved = 0
		}
		if !r.moving && count > r.target {
			r.moving = true
			n.log.Info("rebalancing: clients are asked to move", "clients", count, "target", r.target, "rate", r.rate)
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	}
	return admin.RebalanceNode{Name: n.name, Clients: uint32(count), Target: uint32(r.target), Moved: uint32(r.moved), Moving: r.moving}
}

// runRebalance moves clients whenever rebalanceHere starts it, until ctx ends.
func (n *Node) runRebalance(ctx context.Context) error {
	for {
		select {
		case <-n.rebalance.wake:
		case <-ctx.Done():
			return nil
		}
		n.moveClients(ctx)
	}
}

// mover is one run of moveClients.
type mover struct {
	n      *Node
	target int
	asked  map[*gateway.Session]bool // and still here
	sent   []sentTo                  // oldest first
}

// sentTo is a client that was sent to a node and may not be in that node's figures yet.
type sentTo struct {
	node  wire.NodeID
	until time.Duration
}

// rebalancePatience is how long it is waited for somebody to take clients.
const rebalancePatience = 10 * time.Second

// moveClients asks sessions to go, some at a time, until there are no more than the target. A session that was asked is closed
// after drainGrace if it is still here.
func (n *Node) moveClients(ctx context.Context) {
	r := &n.rebalance
	m := &mover{n: n, asked: map[*gateway.Session]bool{}}
	credit, lastMove := 0.0, now()
	for {
		for s := range m.asked {
			select {
			case <-s.Fenced():
				delete(m.asked, s)
			default:
			}
		}
		r.mu.Lock()
		m.target = r.target
		excess := n.gateway.Count() - len(m.asked) - r.target
		stuck := len(m.asked) == 0 && now()-lastMove > rebalancePatience
		if n.drainIntent.Load() || excess <= 0 && len(m.asked) == 0 || stuck {
			r.moving = false
			if stuck {
				n.log.Warn("rebalancing ended: the other nodes take no more clients", "clients", n.gateway.Count(), "target", r.target)
			} else {
				n.log.Info("rebalanced", "clients", n.gateway.Count(), "moved", r.moved)
			}
			r.mu.Unlock()
			return
		}
		credit = min(credit+float64(r.rate)*rebalanceTick.Seconds(), max(float64(r.rate), 1))
		r.mu.Unlock()
		if some := min(excess, int(credit)); some > 0 {
			if told := m.ask(some); told > 0 {
				credit -= float64(told)
				lastMove = now()
				r.mu.Lock()
				r.moved += told
				r.mu.Unlock()
			}
		}
		if !sleep(ctx, rebalanceTick) {
			return
		}
	}
}

// ask asks some sessions that were not asked yet, each to go to the node that has the fewest clients, with the others behind it;
// nobody is sent to a node that has its share.
func (m *mover) ask(some int) (told int) {
	extra := map[wire.NodeID]int{}
	m.sent = slices.DeleteFunc(m.sent, func(v sentTo) bool { return now() >= v.until })
	for _, v := range m.sent {
		extra[v.node]++
	}
	places := map[string][]assign.Node{}
	for _, transport := range []string{gateway.TransportTCP, gateway.TransportWS} {
		nodes := m.n.takers(transport)
		if nodes = slices.DeleteFunc(nodes, func(v assign.Node) bool { return v.ID == m.n.id }); len(nodes) > 0 {
			places[transport] = nodes
		}
	}
	// A node's figure is here two renewals after the login, which may take its time.
	settled := now() + 2*m.n.cfg.Timings.Renew + time.Second
	m.n.gateway.Sessions(func(s *gateway.Session) bool {
		if m.asked[s] {
			return true
		}
		nodes := places[s.Transport()]
		if len(nodes) == 0 {
			return len(places) > 0
		}
		slices.SortFunc(nodes, func(a, b assign.Node) int { return cmp.Compare(a.Clients+extra[a.ID], b.Clients+extra[b.ID]) })
		if nodes[0].Clients+extra[nodes[0].ID] >= m.target { // nobody takes more by this transport
			delete(places, s.Transport())
			return len(places) > 0
		}
		var addrs []string
		for _, v := range nodes {
			addrs = append(addrs, v.Addr)
		}
		s.GoawayTo(wire.Draining, drainGrace, addrs)
		m.asked[s] = true
		extra[nodes[0].ID]++
		m.sent = append(m.sent, sentTo{nodes[0].ID, settled})
		told++
		return told < some
	})
	return told
}

// Rebalance asks every node that is up; rate 0 only looks.
func (a api) Rebalance(ctx context.Context, rate uint32) (out admin.Rebalance, err error) {
	if rate > 0 { // an operator hears at once that there is nobody to agree on who is there
		if err := a.n.refresh(ctx); err != nil {
			return out, err
		}
	} else if err := a.n.known(); err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, groupPatience)
	defer cancel()
	nodes := a.n.upNodes()
	if out = a.askRebalance(ctx, nodes, rebalanceAsk{}); rate == 0 {
		return out, nil
	}
	takers := a.n.takers(gateway.TransportTCP)
	var share []assign.Node
	target := uint32(0)
	for i, one := range out.Nodes {
		takes := slices.ContainsFunc(takers, func(v assign.Node) bool { return v.ID == nodes[i].ID })
		if takes && one.Error == "" {
			share = append(share, assign.Node{Clients: int(one.Clients)})
		}
		if one.Moving { // clients are on their way and in nobody's figures, or in two's
			target = max(target, one.Target)
		}
	}
	if target == 0 {
		target = uint32(assign.Share(share))
	}
	if len(share) == 0 {
		return out, admin.Errorf(admin.StatusUnavailable, "no node is known that takes clients").WithHint("`imctl cluster health` says what is wrong")
	}
	return a.askRebalance(ctx, nodes, rebalanceAsk{Rate: rate, Target: target}), nil
}

func (a api) askRebalance(ctx context.Context, nodes []raftfsm.Node, q rebalanceAsk) (out admin.Rebalance) {
	out.Nodes = make([]admin.RebalanceNode, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			one := admin.RebalanceNode{Name: node.Name}
			if err := a.n.askAdmin(ctx, node.ID, opRebalance, q, &one); err != nil {
				one = admin.RebalanceNode{Name: node.Name, Error: err.Error()}
			}
			out.Nodes[i] = one
		})
	}
	wg.Wait()
	for _, one := range out.Nodes {
		out.Moving = out.Moving || one.Moving
	}
	return out
}
