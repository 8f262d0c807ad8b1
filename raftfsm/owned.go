package raftfsm

import "imroute/mesh/wire"

// Stripes is into how many parts a View can be read with Owned. A client is in the same part on every node.
const Stripes = stripes

// Owned calls f for every route of part that this incarnation of a node owns, in no order, and returns how many rows it
// looked at. part is 0 to Stripes-1. Reading part by part lets a scan of a large table make room for others. The route is
// f's to keep.
func (v *View) Owned(part int, node wire.NodeID, inc wire.Incarnation, f func(Route)) (looked int) {
	v.stripes[part].eachPage(func(p page) bool {
		return p.each(func(_ uint16, off int) bool {
			looked++
			if o := v.owners[p.owner(off)]; o.live && o.node == node && o.inc == inc {
				f(route(p, off, o))
			}
			return true
		})
	})
	return looked
}
