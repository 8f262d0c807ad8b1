package raftfsm

import (
	"cmp"
	"slices"

	"imroute/mesh/wire"
)

// Stats describe an FSM's table.
type Stats struct {
	Applied uint64 // index of the last entry applied
	Routes  int    // live ones
	Void    int    // rows of ended incarnations whose memory was not taken back yet
	Pages   int
	Bytes   int // of pages and directories

	Holdings     int // live pairs of a topic and an incarnation that holds it; at most MaxHoldings
	VoidHoldings int // those of ended incarnations whose memory was not taken back yet
	Topics       int // topics kept, also such as have void holders only; one that is held by more than 224 incarnations may count twice
	TopicBytes   int // of their pages and directories
}

// Stats reads the counters.
func (f *FSM) Stats() Stats {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	s := f.table.stats()
	s.Applied = f.applied.Load()
	return s
}

func (t *Table) stats() Stats {
	s := Stats{Routes: t.rows - t.owners.void, Void: t.owners.void, Pages: t.w.pages, Bytes: t.w.bytes}
	const entry = 24 // a slice header
	for i := range t.stripes {
		s.Bytes += entry * t.stripes[i].entries()
	}
	ts := &t.topics
	s.Holdings, s.VoidHoldings, s.TopicBytes = ts.holdings-t.owners.voidTopics, t.owners.voidTopics, ts.w.bytes
	for i := range ts.stripes {
		s.Topics += ts.stripes[i].rows
		s.TopicBytes += entry * (len(ts.stripes[i].refs) + len(ts.stripes[i].extra))
	}
	return s
}

// Node returns a member.
func (f *FSM) Node(id wire.NodeID) (Node, bool) {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	if m := f.table.nodes[id]; m != nil {
		return m.Node, true
	}
	return Node{}, false
}

// NodeByName returns the member of that name.
func (f *FSM) NodeByName(name string) (Node, bool) {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	if m := f.table.byName[name]; m != nil {
		return m.Node, true
	}
	return Node{}, false
}

// Nodes lists the members by name.
func (f *FSM) Nodes() []Node {
	f.metaMu.RLock()
	list := make([]Node, 0, len(f.table.nodes))
	for _, m := range f.table.nodes {
		list = append(list, m.Node)
	}
	f.metaMu.RUnlock()
	slices.SortFunc(list, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Removed says whether a node was a member once and never may be again.
func (f *FSM) Removed(id wire.NodeID) bool {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	_, ok := f.table.removed[id]
	return ok
}

// Incarnation returns a node's last incarnation, 0 if it had none, and whether it is alive: the node is not Down.
func (f *FSM) Incarnation(id wire.NodeID) (inc wire.Incarnation, live bool) {
	n, ok := f.Node(id)
	return n.Incarnation, ok && n.State != Down
}

// ClusterID is 0 before Init was applied.
func (f *FSM) ClusterID() uint64 { return f.meta().ClusterID }

// CACert is the cluster's CA certificates, as Init gave them. The slice is shared: read only.
func (f *FSM) CACert() []byte { return f.meta().CACert }

// Settings are the cluster's, with defaults filled in.
func (f *FSM) Settings() Settings { return f.meta().Settings }

// FeatureLevel is the agreed one: see Command.Check.
func (f *FSM) FeatureLevel() uint32 { return f.meta().FeatureLevel }

// Generation is the first part of new epochs, raised by KindRecover.
func (f *FSM) Generation() uint16 { return f.meta().Generation }

// meta leaves the epoch counter out, which batches change without metaMu.
func (f *FSM) meta() meta {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	m := &f.table.meta
	return meta{ClusterID: m.ClusterID, Generation: m.Generation, FeatureLevel: m.FeatureLevel, Settings: m.Settings, CACert: m.CACert}
}

// Token returns a join token's hash (shared: read only) and when it ends, in Unix seconds, 0 for never. The table knows no
// clock: whoever checks a token compares the time.
func (f *FSM) Token(id string) (hash []byte, expiresUnix int64, ok bool) {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	k, ok := f.table.tokens[id]
	return k.Hash, k.ExpiresUnix, ok
}

// Tokens lists the join tokens by id.
func (f *FSM) Tokens() []Token {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	return f.table.sortedTokens()
}
