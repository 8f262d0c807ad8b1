package node

import (
	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// Raft, with elections and replications as single steps. Terms, votes, the comparison of logs and the rule that a leader
// commits by its own term are Raft's; what is left out is how the messages get there.

// entry is a log entry. Batches carry their operations; term is the entry's own, until the term that a NodeExpire names.
type modelEntry struct {
	kind            raftfsm.Kind
	term            uint8 // 0: not in a log yet
	node, inc, boot uint8
	seq, decided    uint8
	by              uint8 // of a NodeRemove: the node that proposes it, plus one
	reject          bool
	ops             [modelBatch]uint8
}

// tableState is what the model wants to know of a table.
type modelTableState struct {
	nodes [modelNodes]struct {
		live, removed  bool
		inc, boot, seq uint8
		results        [modelBatch]modelOpAnswer // of its last batch
	}
	row struct {
		live             bool
		node, inc, epoch uint8
		s                sid
	}
	wrong string      // what the last entry did wrong
	path  []modelTold // what leads here
}

// told is a command as a Table was told it.
type modelTold struct {
	term uint64
	cmd  *raftfsm.Command
}

// logBook interns entries and tables. Tables are real ones: each is made by applying its entries to a new Table, and two
// are the same state if their hashes are equal. Indexes are left out, so that the same table is reached by many ways; no
// decision reads them.
type modelLogBook struct {
	without modelRule
	reject  bool
	entries []modelEntry
	ids     map[modelEntry]uint16
	tables  []modelTableState
	hashes  map[uint64]uint16
	memo    map[[2]uint16]uint16
}

func modelNewLogBook(without modelRule, reject bool) *modelLogBook {
	return &modelLogBook{
		without: without, reject: reject, entries: []modelEntry{{}}, ids: map[modelEntry]uint16{}, tables: []modelTableState{{}},
		hashes: map[uint64]uint16{}, memo: map[[2]uint16]uint16{},
	}
}

func (b *modelLogBook) intern(e modelEntry) uint16 {
	id, ok := b.ids[e]
	if !ok {
		id = uint16(len(b.entries))
		b.entries = append(b.entries, e)
		b.ids[e] = id
	}
	return id
}

// apply is the table after one more entry. Table 0 is the empty one.
func (b *modelLogBook) apply(table, id uint16) uint16 {
	key := [2]uint16{table, id}
	next, ok := b.memo[key]
	if !ok {
		next = b.replay(table, id)
		b.memo[key] = next
	}
	return next
}

func (b *modelLogBook) replay(table, id uint16) uint16 {
	t := raftfsm.NewTable()
	before := b.tables[table]
	for _, old := range before.path {
		t.Apply(1, old.term, old.cmd)
	}
	e := b.entries[id]
	last := modelTold{uint64(e.term), b.command(before, e)}
	if b.without == ruleRemoveOnlyDown && e.kind == raftfsm.KindNodeRemove { // as if it had drained itself
		drain := modelTold{last.term, &raftfsm.Command{Kind: raftfsm.KindNodeDrain, Node: last.cmd.Node}}
		t.Apply(1, drain.term, drain.cmd)
		before.path = append(before.path[:len(before.path):len(before.path)], drain)
	}
	r := t.Apply(1, last.term, last.cmd)
	h := t.Hash()
	if same, ok := b.hashes[h]; ok {
		return same
	}
	after := modelTableState{nodes: before.nodes, path: append(before.path[:len(before.path):len(before.path)], last)}
	for n := range after.nodes {
		x := &after.nodes[n]
		x.live, x.inc, x.boot = false, 0, 0
		x.removed = x.removed || before.nodes[n].boot != 0 // unless it is there
	}
	v := t.Grab(1)
	for _, node := range v.Nodes() {
		x := &after.nodes[node.ID-1]
		x.live, x.inc, x.boot, x.removed = node.State != raftfsm.Down, uint8(node.Incarnation), uint8(node.Boot), false
		if x.inc != before.nodes[node.ID-1].inc {
			x.seq, x.results = 0, [modelBatch]modelOpAnswer{}
		}
	}
	v.Close()
	if e.kind == raftfsm.KindBatch && r.Code == wire.OK {
		x := &after.nodes[e.node]
		x.seq = e.seq
		x.results = [modelBatch]modelOpAnswer{}
		for i, o := range r.Ops {
			x.results[i] = modelOpAnswer{code: uint8(o.Code), epoch: modelEpoch(o.Epoch), inc: uint8(o.Incarnation)}
			if o.Node != 0 {
				x.results[i].node = uint8(o.Node - 1)
			}
		}
	}
	if row, ok := t.Lookup(modelClient); ok {
		after.row.live = true
		after.row.node, after.row.inc, after.row.epoch = uint8(row.Node-1), uint8(row.Incarnation), modelEpoch(row.Epoch)
		after.row.s = modelSessionOf(row.Session)
	}
	if was, is := before.row.s, after.row.s; before.row.live && after.row.live && was != is {
		switch {
		case was == 2 && is == 1:
			after.wrong = "an older attempt took the client over from a later one"
		case b.reject && (was == 3) != (is == 3):
			after.wrong = "a second login took the client over, though the cluster refuses that"
		}
	}
	next := uint16(len(b.tables))
	b.tables = append(b.tables, after)
	b.hashes[h] = next
	return next
}

// command is the entry as the Table reads it. Rules of the Table are taken away by changing what it is told, by t, the
// table that it meets.
func (b *modelLogBook) command(t modelTableState, e modelEntry) *raftfsm.Command {
	c := &raftfsm.Command{Kind: e.kind, Node: modelNodeID(e.node), Incarnation: wire.Incarnation(e.inc), Boot: wire.Boot(e.boot), Seq: uint64(e.seq), Term: uint64(e.decided)}
	switch e.kind {
	case raftfsm.KindInit:
		c.ClusterID = 1
		if e.reject && b.without != ruleReject {
			c.Settings.Duplicate = raftfsm.DuplicateReject
		}
	case raftfsm.KindNodeRemove:
		c.By = wire.NodeID(e.by)
		if b.without == ruleRemoveOnlyDown {
			c.By = c.Node
		}
	case raftfsm.KindRecover:
		c.Generation = uint16(e.seq)
	case raftfsm.KindNodeDown:
		if b.without == ruleDownNamesIncarnation {
			c.Incarnation = wire.Incarnation(t.nodes[e.node].inc)
		}
	case raftfsm.KindNodeJoin:
		c.Name = modelNodeName(e.node)
	case raftfsm.KindNodeExpire:
		if b.without == ruleExpireNamesTerm {
			c.Term = uint64(e.term)
		}
		if b.without == ruleExpireNamesIncarnation {
			c.Incarnation = wire.Incarnation(t.nodes[e.node].inc)
		}
	case raftfsm.KindBatch:
		for _, op := range e.ops {
			if op == 0 {
				continue
			}
			o := modelRealOp(op)
			if b.without == ruleFencedIsEqual && o.Fenced != 0 && t.row.live {
				o.Fenced = modelWireEpoch(t.row.epoch)
			}
			if b.without == ruleUnregisterComparesEpoch && o.Kind == raftfsm.Unregister && t.row.live {
				o.Epoch = modelWireEpoch(t.row.epoch)
			}
			if b.without == ruleAttempts && o.Kind == raftfsm.Register && t.row.s == 2 {
				o.Session.Attempt += 8 // above any before it
			}
			c.Ops = append(c.Ops, o)
		}
	}
	return c
}

// tableAt is the table of node n after the first `applied` entries of its log.
func (m *model) tableAt(w *modelWorld, n uint8, applied uint8) uint16 {
	t := w.base
	for _, e := range w.nodes[n].log[:applied] {
		t = m.logs.apply(t, e)
	}
	return t
}

func (m *model) applied(w *modelWorld, n uint8) *modelTableState {
	return &m.logs.tables[m.tableAt(w, n, w.nodes[n].applied)]
}

// committed is the table with everything that is agreed: no node is ahead of it, the one that is furthest is there.
func (m *model) committed(w *modelWorld) *modelTableState {
	far := uint8(0)
	for n := range uint8(modelNodes) {
		if w.nodes[n].applied > w.nodes[far].applied {
			far = n
		}
	}
	return m.applied(w, far)
}

// propose appends e to the log of a node that believes to lead; false: there is no room, or it stands there already.
func (m *model) propose(w *modelWorld, x uint8, e modelEntry) bool {
	l := &w.nodes[x]
	if l.last == modelWindow {
		return false
	}
	e.term = l.leads
	id := m.logs.intern(e)
	for _, old := range l.log[l.applied:l.last] {
		if old == id {
			return false
		}
	}
	l.log[l.last] = id
	l.last++
	if !m.cfg.raft {
		for n := range w.nodes {
			y := &w.nodes[n]
			y.log, y.last, y.applied = l.log, l.last, l.last
		}
	}
	m.trim(w)
	return true
}

// replicate brings y's log to the state of x's, which believes to lead; both make a majority, so x commits.
func (m *model) replicate(w *modelWorld, x, y uint8) bool {
	l, f := &w.nodes[x], &w.nodes[y]
	if x == y || !m.linked(x, y) || l.leads == 0 || f.phase == modelCrashed || f.term > l.leads {
		return false
	}
	if f.log == l.log && f.last == l.last && f.applied == l.applied && f.term == l.leads && l.applied == l.last {
		return false
	}
	f.term = l.leads
	m.depose(w, y)
	f.log, f.last, f.applied = l.log, l.last, max(f.applied, l.applied)
	if m.lastTerm(w, x) == l.leads {
		l.applied = l.last
	}
	m.trim(w)
	return true
}

func (m *model) linked(x, y uint8) bool { return 1<<x|1<<y != m.cfg.cut }

func (m *model) lastTerm(w *modelWorld, n uint8) uint8 {
	x := &w.nodes[n]
	if x.last == 0 {
		return w.baseTerm
	}
	return m.logs.entries[x.log[x.last-1]].term
}

// elect makes y the leader of a new term by its own vote and z's.
func (m *model) elect(w *modelWorld, y, z uint8) bool {
	c, v := &w.nodes[y], &w.nodes[z]
	ct, vt := m.lastTerm(w, y), m.lastTerm(w, z)
	if y == z || !m.linked(y, z) || c.phase == modelCrashed || v.phase == modelCrashed || ct < vt || ct == vt && c.last < v.last {
		return false
	}
	if c.leads != 0 && c.leads >= v.term { // it would not stand
		return false
	}
	if c.last == modelWindow {
		return false
	}
	m.depose(w, y)
	m.depose(w, z)
	c.term = max(c.term, v.term) + 1
	v.term = c.term
	c.leads = c.term
	w.elected = max(w.elected, c.term)
	m.propose(w, y, modelEntry{kind: raftfsm.KindNoop})
	if m.without == ruleBarrier {
		m.serve(w, y)
	}
	return true
}

// depose: the node hears of a later term.
func (m *model) depose(w *modelWorld, n uint8) {
	x := &w.nodes[n]
	if x.leads == 0 {
		return
	}
	x.leads, x.ready = 0, false
	if m.without != ruleTimersOfTerm {
		x.grants = [modelNodes]modelGrantState{}
	}
	m.dropRounds(w, n)
}

// dropRounds ends what waited for the leader n.
func (m *model) dropRounds(w *modelWorld, n uint8) {
	x := &w.nodes[n]
	x.round, x.next = modelRoundState{}, 0
	for i := range w.nodes {
		if r := &w.nodes[i].renew; (r.stage == modelRenewReceived || r.stage == modelRenewConfirmed) && r.leader == n {
			*r = modelRenewState{}
		}
	}
}

// pastBarrier: the leader has applied an entry of its own term.
func (m *model) pastBarrier(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.leads == 0 {
		return false
	}
	if x.applied == 0 {
		return w.baseTerm == x.leads
	}
	return m.logs.entries[x.log[x.applied-1]].term == x.leads
}

// trim moves what every node has applied into the base.
func (m *model) trim(w *modelWorld) {
	k := w.nodes[0].applied
	for n := range w.nodes {
		k = min(k, w.nodes[n].applied)
	}
	if k == 0 {
		return
	}
	for _, e := range w.nodes[0].log[:k] {
		w.base = m.logs.apply(w.base, e)
		w.baseTerm = m.logs.entries[e].term
	}
	for n := range w.nodes {
		x := &w.nodes[n]
		var log [modelWindow]uint16
		copy(log[:], x.log[k:x.last])
		x.log, x.last, x.applied = log, x.last-k, x.applied-k
	}
}
