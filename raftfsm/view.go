package raftfsm

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"imroute/mesh/wire"
)

// View is the table as it was at Index. It shares the table's pages, which are copied by whoever changes them while the view
// is open: close it soon. All methods may be called from several goroutines until Close.
type View struct {
	Index uint64

	meta    meta
	members []member // by id
	removed []removedNode
	tokens  []Token  // by id
	keys    []APIKey // by id
	owners  []owner
	counts  []int // rows by owner
	rows    int   // without void ones
	stripes [stripes]stripe
	topics  [stripes]dir
	held    []int // topics by owner
	holds   int   // live holdings
	grabs   *atomic.Int64
	closed  atomic.Bool
}

type removedNode struct {
	ID    wire.NodeID `cbor:"1,keyasint"`
	Index uint64      `cbor:"2,keyasint"`
}

// Grab returns the table as it is, labelled with index. It costs the same whatever the number of routes: a directory is copied
// by the first change to it afterwards.
func (t *Table) Grab(index uint64) *View {
	v := &View{
		Index: index, meta: t.meta, rows: t.rows - t.owners.void, grabs: t.grabs,
		owners: slices.Clone(t.owners.list), counts: slices.Clone(t.owners.rows), tokens: t.sortedTokens(), keys: t.sortedKeys(),
	}
	for _, m := range t.sorted() {
		v.members = append(v.members, *m)
	}
	for id, at := range t.removed {
		v.removed = append(v.removed, removedNode{id, at})
	}
	slices.SortFunc(v.removed, func(a, b removedNode) int { return cmp.Compare(a.ID, b.ID) })
	for i := range t.stripes {
		v.stripes[i] = t.stripes[i].clone()
		v.topics[i] = t.topics.stripes[i].clone()
	}
	v.held, v.holds = slices.Clone(t.owners.topics), t.topics.holdings-t.owners.voidTopics
	t.w.gen++
	t.topics.w.gen++
	t.grabs.Add(1)
	return v
}

func (t *Table) sortedTokens() []Token {
	list := make([]Token, 0, len(t.tokens))
	for _, k := range t.tokens {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Close lets the table write its pages in place again. The view must not be used any more; closing twice is harmless.
func (v *View) Close() {
	if v.closed.CompareAndSwap(false, true) {
		v.grabs.Add(-1)
	}
}

// Count is the number of live routes.
func (v *View) Count() int { return v.rows }

// CountByNode is the number of live routes of each node that has any.
func (v *View) CountByNode() map[wire.NodeID]int {
	m := make(map[wire.NodeID]int)
	for i, o := range v.owners {
		if o.live && v.counts[i] > 0 {
			m[o.node] += v.counts[i]
		}
	}
	return m
}

// ClusterID is the cluster's id, 0 before Init.
func (v *View) ClusterID() uint64 { return v.meta.ClusterID }

// Nodes lists the members by id.
func (v *View) Nodes() []Node {
	list := make([]Node, len(v.members))
	for i := range v.members {
		list[i] = v.members[i].Node
	}
	return list
}

// Hash is the logical hash: equal for all members that applied the same log, whatever void rows they still have and however
// their rows lie. It reads the whole table.
func (v *View) Hash() uint64 {
	var sum uint64
	v.eachLive(func(p page, off int, o owner) {
		row, c := p.value(off), p.client(off)
		d := newDigest()
		d.text(c.Tenant)
		d.text(c.ID)
		d.number(uint64(o.node))
		d.number(uint64(o.inc))
		d.number(row.session.Instance)
		d.number(row.session.Attempt)
		d.number(uint64(row.epoch))
		sum += d.sum()
	})
	d := newDigest()
	d.number(sum)
	d.number(uint64(v.rows))
	add := func(x any) {
		b, err := wire.Marshal(x)
		if err != nil {
			panic("raftfsm: cannot encode own state: " + err.Error())
		}
		d.text(string(b))
	}
	add(v.meta)
	for i := range v.members {
		add(v.members[i].Node)
		add(v.members[i].batch)
	}
	add(v.tokens)
	add(v.removed)
	if len(v.keys) > 0 { // without keys it is the hash that versions without them have
		add(v.keys)
	}
	if v.holds > 0 { // without topics it is the hash that versions without them have
		d.number(v.topicsHash())
		d.number(uint64(v.holds))
	}
	return d.sum()
}

func (v *View) eachLive(f func(p page, off int, o owner)) {
	for i := range v.stripes {
		v.stripes[i].eachPage(func(p page) bool {
			return p.each(func(_ uint16, off int) bool {
				if o := v.owners[p.owner(off)]; o.live {
					f(p, off, o)
				}
				return true
			})
		})
	}
}

// route makes a Route that shares nothing with the page.
func route(p page, off int, o owner) Route {
	r := sharedRoute(p, off, o)
	r.Client = wire.ClientID{Tenant: strings.Clone(r.Client.Tenant), ID: strings.Clone(r.Client.ID)}
	return r
}

func sharedRoute(p page, off int, o owner) Route {
	v := p.value(off)
	return Route{Client: p.client(off), Node: o.node, Incarnation: o.inc, Session: v.session, Epoch: v.epoch}
}
