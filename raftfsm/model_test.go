package raftfsm

import (
	"maps"
	"slices"
	"strings"

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
	topics   map[modelHolding]bool
	most     int // live holdings
}

type modelHolding struct {
	topic wire.Topic
	Holder
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
		topics: map[modelHolding]bool{}, most: MaxHoldings,
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

// holdings are the live ones.
func (m *model) holdings() map[modelHolding]bool {
	out := maps.Clone(m.topics)
	maps.DeleteFunc(out, func(h modelHolding, _ bool) bool { return !m.live(Route{Node: h.Node, Incarnation: h.Incarnation}) })
	return out
}

func (m *model) holders(topic wire.Topic) []Holder {
	var list []Holder
	for h := range m.holdings() {
		if h.topic == topic {
			list = append(list, h.Holder)
		}
	}
	slices.SortFunc(list, func(a, b Holder) int { return int(a.Node) - int(b.Node) })
	return list
}

// user is everybody of a user who is live, by client id.
func (m *model) user(tenant, user string) []Route {
	var list []Route
	for c, r := range m.all() {
		if c.Tenant == tenant && (c.ID == user || strings.HasPrefix(c.ID, user+"/")) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Route) int { return strings.Compare(a.Client.ID, b.Client.ID) })
	return list
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
	if m.level < 2 && c.Kind != KindInit && (c.Settings.OnePerClass || slices.ContainsFunc(c.Ops, func(op Op) bool { return op.Kind == Join || op.Kind == Leave })) {
		return Result{Code: wire.BadRequest}
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
			m.level = max(m.level, c.Level)
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
		if n.Role == RoleRemoved {
			return no
		}
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
		if n.Role == RoleRemoved && c.Role != RoleRemoved {
			return no
		}
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
	case KindFeatureLevel:
		if c.Level < m.level {
			return no
		}
		m.level = c.Level
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

func modelClass(id string) string {
	i := strings.Index(id, "/")
	if i < 0 {
		return ""
	}
	id += ":"
	return id[:i+1+strings.Index(id[i+1:], ":")]
}

func (m *model) op(n *modelNode, op Op) OpResult {
	switch op.Kind {
	case Join:
		h := modelHolding{op.Topic, Holder{n.ID, n.Incarnation}}
		if !m.topics[h] && len(m.holdings()) >= m.most {
			return OpResult{Code: OpOverloaded}
		}
		m.topics[h] = true
		return OpResult{Code: OpOK}
	case Leave:
		delete(m.topics, modelHolding{op.Topic, Holder{n.ID, n.Incarnation}})
		return OpResult{Code: OpOK}
	}
	var others []Route // of the same class, by epoch
	if class := modelClass(op.Client.ID); class != "" && m.settings.OnePerClass && op.Kind == Register {
		for c, r := range m.all() {
			switch {
			case c == op.Client || c.Tenant != op.Client.Tenant || modelClass(c.ID) != class:
			case r.Epoch == op.Fenced:
				delete(m.routes, c)
			default:
				others = append(others, r)
			}
		}
		slices.SortFunc(others, func(a, b Route) int { return int(a.Epoch) - int(b.Epoch) })
	}
	row, live := m.lookup(op.Client)
	stand := func(code OpCode) OpResult {
		if !live {
			return OpResult{Code: code}
		}
		return OpResult{Code: code, Epoch: row.Epoch, Node: row.Node, Incarnation: row.Incarnation, HolderSession: row.Session}
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
	if len(others) > 0 {
		row, live = others[0], true
		code := OpClassHeld
		if m.settings.Duplicate == DuplicateReject {
			code = OpRejected
		}
		r := stand(code)
		r.HolderClient = row.Client
		return r
	}
	m.counter++
	e := wire.MakeEpoch(m.gen, m.counter)
	m.routes[op.Client] = Route{op.Client, n.ID, n.Incarnation, op.Session, e}
	return OpResult{Code: OpOK, Epoch: e}
}
