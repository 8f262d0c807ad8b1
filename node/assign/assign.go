// Package assign chooses the node that a client is to connect to, among those that take clients.
//
// It knows neither network nor table: whoever asks says which nodes there are and how busy they were when last heard of.
package assign

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

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
	Clients int // as last heard of
}

// Picker chooses. It may be used by several goroutines at once.
type Picker struct {
	policy Policy

	mu    sync.Mutex
	round uint64              // guarded by mu: which figures extra belongs to
	extra map[wire.NodeID]int // guarded by mu: clients sent to a node since
	turn  uint64              // guarded by mu
}

// NewPicker makes a Picker for a policy.
func NewPicker(p Policy) *Picker { return &Picker{policy: p, extra: map[wire.NodeID]int{}} }

// Policy is how it chooses.
func (p *Picker) Policy() Policy { return p.policy }

// Pick chooses a node for a client; false: there is none. round is another one whenever the figures in nodes are new: until
// then those who were sent to a node count as its clients, or everybody who asks in between would go to the same one. Clients
// of the node returned counts them as well.
func (p *Picker) Pick(client wire.ClientID, round uint64, nodes []Node) (Node, bool) {
	if len(nodes) == 0 {
		return Node{}, false
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if round != p.round {
		p.round = round
		clear(p.extra)
	}
	for i := range nodes {
		nodes[i].Clients += p.extra[nodes[i].ID]
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
	p.extra[n.ID]++
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
