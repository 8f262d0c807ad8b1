// Package assign chooses the node that a client is to connect to, among those that take clients.
//
// It knows neither network nor table: whoever asks says which nodes there are and how busy they were when last heard of.
package assign

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// Policy is how to choose.
type Policy uint8

const (
	MinClients Policy = iota // the node with the fewest clients
	RoundRobin               // one after the other
	Hash                     // by the user: the same one as long as the nodes are the same, and most keep theirs when one comes or goes
)

var names = [...]string{"min-clients", "round-robin", "hash"}

func (p Policy) String() string { return names[min(int(p), len(names)-1)] }

// ParsePolicy reads min-clients (also if s is empty), round-robin or hash.
func ParsePolicy(s string) (Policy, error) {
	if s == "" {
		return MinClients, nil
	}
	if i := slices.Index(names[:], s); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("assign policy %q: want min-clients, round-robin or hash", s)
}

// Node is one that takes clients.
type Node struct {
	ID      wire.NodeID
	Name    string
	Addr    string
	Clients int           // as last heard of
	At      time.Duration // when it had that many, by the clock that Pick is told
}

// Picker chooses. It may be used by several goroutines at once.
type Picker struct {
	policy Policy

	mu   sync.Mutex
	sent map[wire.NodeID]*recent // guarded by mu: clients sent to a node
	turn uint64                  // guarded by mu
}

// arriving is how long before a node's figure somebody may have been sent there who is not in it yet.
const arriving = 100 * time.Millisecond

// recent counts what happened in the last four seconds: longer than figures may be old with the default lease.
type recent struct {
	slots [128]int32
	last  int64 // the slot that was counted in last
}

const recentSlot = 32 * time.Millisecond

// to forgets what is too old at now, and says which slot that is.
func (r *recent) to(now time.Duration) int64 {
	slot := int64(now / recentSlot)
	for i := max(r.last+1, slot-int64(len(r.slots))+1); i <= slot; i++ {
		r.slots[i%int64(len(r.slots))] = 0
	}
	r.last = max(r.last, slot)
	return r.last
}

func (r *recent) add(now time.Duration) { r.slots[r.to(now)%int64(len(r.slots))]++ }

// since is how often something happened from a moment on.
func (r *recent) since(at, now time.Duration) (n int) {
	last := r.to(now)
	for i := max(int64(at/recentSlot), last-int64(len(r.slots))+1, 0); i <= last; i++ {
		n += int(r.slots[i%int64(len(r.slots))])
	}
	return n
}

// NewPicker makes a Picker for a policy.
func NewPicker(p Policy) *Picker { return &Picker{policy: p, sent: map[wire.NodeID]*recent{}} }

// Policy is how it chooses.
func (p *Picker) Policy() Policy { return p.policy }

// Pick chooses a node for a client; false: there is none. Whoever was sent to a node since its figure was taken, or so shortly before
// that he can hardly have arrived by then, counts as its client, or everybody who asks in between would go to the same one. Clients of
// the node returned counts them as well. now is on the clock of the nodes' At.
func (p *Picker) Pick(client wire.ClientID, now time.Duration, nodes []Node) (Node, bool) {
	if len(nodes) == 0 {
		return Node{}, false
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.sent {
		if !slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id }) {
			delete(p.sent, id)
		}
	}
	for i := range nodes {
		if r := p.sent[nodes[i].ID]; r != nil {
			nodes[i].Clients += r.since(nodes[i].At-arriving, now)
		}
	}
	n := nodes[0]
	switch p.policy {
	case RoundRobin:
		n = nodes[p.turn%uint64(len(nodes))]
		p.turn++
	case Hash:
		n = slices.MaxFunc(nodes, func(a, b Node) int { return cmp.Compare(weight(client, a.ID), weight(client, b.ID)) })
	default:
		first := int(p.turn % uint64(len(nodes))) // those that are equal take turns
		p.turn++
		n = nodes[first]
		for i := range nodes {
			if c := nodes[(first+i)%len(nodes)]; c.Clients < n.Clients {
				n = c
			}
		}
	}
	if p.sent[n.ID] == nil {
		p.sent[n.ID] = new(recent)
	}
	p.sent[n.ID].add(now)
	return n, true
}

// weight is what a node is worth to a client; the highest wins (rendezvous hashing). It is the same on every node. Devices of
// one user go together.
func weight(client wire.ClientID, node wire.NodeID) uint64 {
	x := client.Hash() ^ uint64(node)*0x9e3779b97f4a7c15
	x ^= x >> 30 // splitmix64's finisher
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Share is how many clients a node should have at most if all that take clients had about the same number.
func Share(nodes []Node) int {
	sum := 0
	for _, n := range nodes {
		sum += n.Clients
	}
	if len(nodes) == 0 {
		return 0
	}
	return (sum + len(nodes) - 1) / len(nodes)
}
