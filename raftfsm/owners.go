package raftfsm

import "imroute/mesh/wire"

// owner is one incarnation of a node, named by its ordinal in rows. Not live: all its rows are void.
type owner struct {
	node wire.NodeID
	inc  wire.Incarnation
	live bool
}

// owners is the side table that rows point into. An ordinal is used again only when its incarnation ended and no row and no
// topic names it.
//
// list changes only under all locks, because every look-up reads it; the counts are the writer's own.
type owners struct {
	list []owner
	rows []int
	free []uint32
	void int // rows of incarnations that ended

	topics     []int // how many topics each holds
	voidTopics int   // those of incarnations that ended
}

func (o *owners) begin(node wire.NodeID, inc wire.Incarnation) uint32 {
	if n := len(o.free); n > 0 {
		ord := o.free[n-1]
		o.free = o.free[:n-1]
		o.list[ord] = owner{node, inc, true}
		return ord
	}
	o.list = append(o.list, owner{node, inc, true})
	o.rows = append(o.rows, 0)
	o.topics = append(o.topics, 0)
	return uint32(len(o.list) - 1)
}

func (o *owners) end(ord uint32) {
	o.list[ord].live = false
	o.void += o.rows[ord]
	o.voidTopics += o.topics[ord]
	o.release(ord)
}

func (o *owners) release(ord uint32) {
	if o.rows[ord] == 0 && o.topics[ord] == 0 {
		o.free = append(o.free, ord)
	}
}

func (o *owners) add(ord uint32) { o.rows[ord]++ }

func (o *owners) drop(ord uint32) {
	o.rows[ord]--
	if o.list[ord].live {
		return
	}
	o.void--
	o.release(ord)
}

// dropVoidTopic forgets that an incarnation which ended held a topic.
func (o *owners) dropVoidTopic(ord uint32) {
	o.topics[ord]--
	o.voidTopics--
	o.release(ord)
}
