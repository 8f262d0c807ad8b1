package raftfsm

import (
	"maps"
	"slices"

	"imroute/mesh/wire"
)

// model is the state machine as somebody would write it who has all the time and memory in the world. It shares no code with
// Table.
type model struct {
	cluster  uint64
	gen      uint16
	counter  uint64
	level    uint32
	settings Settings
	nodes    map[wire.NodeID]*modelNode
	removed  map[wire.NodeID]bool
	tokens   map[string]Token
	routes   map[wire.ClientID]Route
}

type modelNode struct {
	Node
	seq    uint64
	ops    []Op
	result Result
}

func newModel() *model {
	return &model{
		level: 1, settings: Settings{Voters: 3}, nodes: map[wire.NodeID]*modelNode{}, removed: map[wire.NodeID]bool{},
		tokens: map[string]Token{}, routes: map[wire.ClientID]Route{},
	}
}

func (m *model) live(r Route) bool {
	n := m.nodes[r.Node]
	return n != nil && n.State != Down && n.Incarnation == r.Incarnation
}

func (m *model) lookup(c wire.ClientID) (Route, bool) {
	r, ok := m.routes[c]
	if !ok || !m.live(r) {
		return Route{}, false
	}
	return r, true
}

func (m *model) all() map[wire.ClientID]Route {
	out := maps.Clone(m.routes)
	maps.DeleteFunc(out, func(_ wire.ClientID, r Route) bool { return !m.live(r) })
	return out
}

func (m *model) named(name string) *modelNode {
	for _, n := range m.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (m *model) apply(index, term uint64, c *Command) Result {
	r := m.do(index, term, c)
	if r.Index == 0 {
		r.Index = index
	}
	return r
}

func (m *model) do(index, term uint64, c *Command) Result {
	ok, no := Result{Code: wire.OK}, Result{Code: wire.Refused}
	if c.Kind == KindNoop {
		return ok
	}
	if m.cluster == 0 && c.Kind != KindInit {
		return no
	}
	n := m.nodes[c.Node]
	switch c.Kind {
	case KindNodeUp, KindNodeExpire, KindNodeDown, KindNodeDrain, KindNodeRole, KindBatch:
		if c.Kind == KindNodeExpire && c.Term != term {
			return no
		}
		if m.removed[c.Node] {
			return no
		}
		if n == nil {
			return Result{Code: wire.NotMember}
		}
	}
	switch c.Kind {
	case KindInit:
		if m.cluster != 0 && m.cluster != c.ClusterID {
			return no
		}
		if m.cluster == 0 {
			m.cluster, m.settings = c.ClusterID, c.Settings
			if m.settings.Voters == 0 {
				m.settings.Voters = 3
			}
		}
	case KindNodeJoin:
		if m.removed[c.Node] {
			return no
		}
		other := m.named(c.Name)
		if n != nil {
			if other != nil && other != n {
				return no
			}
			n.Name, n.Addrs, n.Version = c.Name, c.Addrs, c.Version
			return ok
		}
		if other != nil {
			if other.State != Down {
				return no
			}
			ok.Replaced = other.ID
			delete(m.nodes, other.ID)
			m.removed[other.ID] = true
		}
		m.nodes[c.Node] = &modelNode{Node: Node{ID: c.Node, Name: c.Name, Addrs: c.Addrs, Version: c.Version}}
	case KindNodeUp:
		if c.Boot > n.Boot {
			n.Boot, n.Addrs, n.Version = c.Boot, c.Addrs, c.Version
			n.Incarnation++
			n.State = Up
			if n.Drain {
				n.State = Draining
			}
			n.seq, n.ops, n.result = 0, nil, Result{}
		}
		ok.Incarnation, ok.Boot = n.Incarnation, n.Boot
	case KindNodeExpire, KindNodeDown:
		if c.Incarnation != n.Incarnation {
			return Result{Code: wire.BadIncarnation}
		}
		n.State = Down
	case KindNodeDrain:
		n.Drain = !c.Cancel
		if n.State != Down {
			n.State = Up
			if n.Drain {
				n.State = Draining
			}
		}
	case KindNodeRole:
		n.Role = c.Role
	case KindNodeRemove:
		if m.removed[c.Node] {
			return ok
		}
		if n == nil {
			return Result{Code: wire.NotMember}
		}
		if n.State != Down && (n.State != Draining || c.By != n.ID) {
			return no
		}
		delete(m.nodes, n.ID)
		m.removed[n.ID] = true
	case KindBatch:
		if n.State == Down || n.Incarnation != c.Incarnation {
			return Result{Code: wire.BadIncarnation}
		}
		if c.Seq == n.seq {
			if !slices.Equal(c.Ops, n.ops) {
				return no
			}
			return n.result
		}
		if c.Seq != n.seq+1 {
			return no
		}
		ok.Index = index
		for _, op := range c.Ops {
			ok.Ops = append(ok.Ops, m.op(n, op))
		}
		n.seq, n.ops, n.result = c.Seq, c.Ops, ok
	case KindTokenCreate:
		if old, found := m.tokens[c.ID]; found && (string(old.Hash) != string(c.Hash) || old.ExpiresUnix != c.ExpiresUnix) {
			return no
		}
		m.tokens[c.ID] = Token{c.ID, c.Hash, c.ExpiresUnix}
	case KindTokenRevoke:
		if _, found := m.tokens[c.ID]; !found {
			return no
		}
		delete(m.tokens, c.ID)
	case KindSetSettings:
		m.settings = c.Settings
		if m.settings.Voters == 0 {
			m.settings.Voters = 3
		}
	case KindRecover:
		if c.Generation <= m.gen {
			return no
		}
		m.gen, m.counter = c.Generation, 0
		for _, n := range m.nodes {
			n.State = Down
		}
	}
	return ok
}

func (m *model) op(n *modelNode, op Op) OpResult {
	row, live := m.lookup(op.Client)
	stand := func(code OpCode) OpResult {
		if !live {
			return OpResult{Code: code}
		}
		return OpResult{code, row.Epoch, row.Node, row.Incarnation, row.Session}
	}
	if op.Kind == Unregister {
		if !live || row.Epoch != op.Epoch || row.Node != n.ID {
			return stand(OpGone)
		}
		delete(m.routes, op.Client)
		return OpResult{Code: OpOK, Epoch: row.Epoch}
	}
	if live {
		if row.Session.Instance == op.Session.Instance && row.Session.Attempt > op.Session.Attempt {
			return stand(OpStale)
		}
		if row.Session.Instance != op.Session.Instance && m.settings.Duplicate == DuplicateReject {
			return stand(OpRejected)
		}
		if row.Node != n.ID && (op.Fenced == 0 || row.Epoch != op.Fenced) {
			return stand(OpHeld)
		}
	}
	m.counter++
	e := wire.MakeEpoch(m.gen, m.counter)
	m.routes[op.Client] = Route{op.Client, n.ID, n.Incarnation, op.Session, e}
	return OpResult{Code: OpOK, Epoch: e}
}
