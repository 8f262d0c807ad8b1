package raftfsm

import (
	"cmp"
	"slices"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

// sorted lists the members by id: whatever the table does to several of them it does in this order.
func (t *Table) sorted() []*member {
	list := make([]*member, 0, len(t.nodes))
	for _, m := range t.nodes {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *member) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func nodeChanged(m *member) []Event { return []Event{{Kind: NodeChanged, Node: m.Node}} }

func (t *Table) nodeJoin(index uint64, c *Command) (Result, []Event) {
	if _, ok := t.removed[c.Node]; ok {
		return refuse(wire.Refused, "node %s was removed for ever: join with an empty data folder", c.Node), nil
	}
	named := t.byName[c.Name]
	m := t.nodes[c.Node]
	if m != nil {
		if named != nil && named != m {
			return refuse(wire.Refused, "the name %q belongs to node %s", c.Name, named.ID), nil
		}
		if m.Name == c.Name && m.Addrs == c.Addrs && m.Version == c.Version {
			return Result{Code: wire.OK}, nil
		}
		delete(t.byName, m.Name)
		t.byName[c.Name] = m
		m.Name, m.Addrs, m.Version = c.Name, c.Addrs, c.Version
		return Result{Code: wire.OK}, nodeChanged(m)
	}
	r := Result{Code: wire.OK}
	var events []Event
	switch {
	case named != nil && named.State != Down:
		return refuse(wire.Refused, "the name %q belongs to node %s, which is %s: choose another name, or wait until it is down",
			c.Name, named.ID, named.State), nil
	case named != nil:
		r.Replaced = named.ID
		events = t.remove(index, named)
	case len(t.nodes) >= MaxNodes:
		return refuse(wire.Refused, "the cluster has %d members: remove some", len(t.nodes)), nil
	}
	m = &member{Node: Node{ID: c.Node, Name: c.Name, Addrs: c.Addrs, Version: c.Version, Role: c.Role}}
	t.nodes[c.Node], t.byName[c.Name] = m, m
	return r, append(events, nodeChanged(m)...)
}

func (t *Table) nodeUp(c *Command) (Result, []Event) {
	m, r := t.member(c.Node)
	if m == nil {
		return r, nil
	}
	if m.Role == RoleRemoved {
		return refuse(wire.Refused, "node %s is being removed", m.Name), nil
	}
	if c.Boot <= m.Boot { // a copy: nothing changes, whatever became of that boot since
		return Result{Code: wire.OK, Incarnation: m.Incarnation, Boot: m.Boot}, nil
	}
	events := t.end(m)
	m.Incarnation++
	m.Boot, m.Addrs, m.Version = c.Boot, c.Addrs, c.Version
	m.batch = lastBatch{}
	m.owner = t.owners.begin(m.ID, m.Incarnation)
	m.State = Up
	if m.Drain {
		m.State = Draining
	}
	return Result{Code: wire.OK, Incarnation: m.Incarnation, Boot: m.Boot}, append(events, nodeChanged(m)...)
}

func (t *Table) nodeExpire(term uint64, c *Command) (Result, []Event) {
	if c.Term != term && !mutate.ExpireInAnyTerm {
		return refuse(wire.Refused, "decided in term %d, but this is term %d", c.Term, term), nil
	}
	return t.nodeDown(c)
}

// nodeDown ends an incarnation: its lease has run out, or the node says that it is over.
func (t *Table) nodeDown(c *Command) (Result, []Event) {
	m, r := t.member(c.Node)
	switch {
	case m == nil:
		return r, nil
	case c.Incarnation != m.Incarnation:
		return refuse(wire.BadIncarnation, "the incarnation is %d", m.Incarnation), nil
	}
	return Result{Code: wire.OK}, t.down(m)
}

func (t *Table) nodeDrain(c *Command) (Result, []Event) {
	m, r := t.member(c.Node)
	if m == nil {
		return r, nil
	}
	if m.Drain == !c.Cancel {
		return Result{Code: wire.OK}, nil
	}
	m.Drain = !c.Cancel
	switch {
	case m.State == Up && m.Drain:
		m.State = Draining
	case m.State == Draining && !m.Drain:
		m.State = Up
	}
	return Result{Code: wire.OK}, nodeChanged(m)
}

func (t *Table) nodeRole(c *Command) (Result, []Event) {
	m, r := t.member(c.Node)
	if m == nil {
		return r, nil
	}
	switch m.Role {
	case c.Role:
		return Result{Code: wire.OK}, nil
	case RoleRemoved:
		return refuse(wire.Refused, "node %s is being removed", m.Name), nil
	}
	m.Role = c.Role
	return Result{Code: wire.OK}, nodeChanged(m)
}

func (t *Table) nodeRemove(index uint64, c *Command) (Result, []Event) {
	if _, ok := t.removed[c.Node]; ok {
		return Result{Code: wire.OK}, nil
	}
	m, r := t.member(c.Node)
	switch {
	case m == nil:
		return r, nil
	case m.State == Down, m.State == Draining && c.By == m.ID:
		return Result{Code: wire.OK}, t.remove(index, m)
	}
	return refuse(wire.Refused, "node %s is %s: drain it and let it leave, or wait until it is down", m.Name, m.State), nil
}

// member returns a node, or the answer to a command for one that is none.
func (t *Table) member(id wire.NodeID) (*member, Result) {
	if m := t.nodes[id]; m != nil {
		return m, Result{}
	}
	if _, ok := t.removed[id]; ok {
		return nil, refuse(wire.Refused, "node %s was removed for ever: join with an empty data folder", id)
	}
	return nil, refuse(wire.NotMember, "node %s is not a member: join first", id)
}

// end voids everything the node's incarnation owns, if it has one that is alive.
func (t *Table) end(m *member) []Event {
	if m.State == Down {
		return nil
	}
	t.owners.end(m.owner)
	return []Event{{Kind: IncarnationEnded, Route: Route{Node: m.ID, Incarnation: m.Incarnation}}}
}

func (t *Table) down(m *member) []Event {
	if m.State == Down {
		return nil
	}
	events := t.end(m)
	m.State = Down
	return append(events, nodeChanged(m)...)
}

func (t *Table) remove(index uint64, m *member) []Event {
	events := t.end(m)
	delete(t.nodes, m.ID)
	delete(t.byName, m.Name)
	t.removed[m.ID] = index
	return append(events, Event{Kind: NodeRemoved, Node: m.Node})
}
