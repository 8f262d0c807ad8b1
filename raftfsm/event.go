package raftfsm

import (
	"fmt"

	"imroute/mesh/wire"
)

// EventKind names an event.
type EventKind uint8

const (
	RouteSet         EventKind = 1 // Route: a client has a new owner or session; there may have been another one before
	RouteGone        EventKind = 2 // Route.Client, Node, Incarnation, Epoch: unregistered
	NodeChanged      EventKind = 3 // Node: joined, up, draining, down, new addresses
	NodeRemoved      EventKind = 4 // Node as it was
	IncarnationEnded EventKind = 5 // Route.Node, Route.Incarnation: all it owned is void, without an event for each route
	Resync           EventKind = 6 // events were lost: read the table, then go on
)

func (k EventKind) String() string {
	switch k {
	case RouteSet:
		return "route-set"
	case RouteGone:
		return "route-gone"
	case NodeChanged:
		return "node-changed"
	case NodeRemoved:
		return "node-removed"
	case IncarnationEnded:
		return "incarnation-ended"
	case Resync:
		return "resync"
	}
	return fmt.Sprintf("event_%d", uint8(k))
}

// Event is one change of the table. Index is the entry that made it, for Resync what was applied when events were lost.
type Event struct {
	Kind  EventKind
	Index uint64
	Route Route
	Node  Node
}

// host is what surrounds the table: nothing in a test, locks and event streams in the adapter.
type host interface {
	lock(stripe int) // one stripe, for writing
	unlock(stripe int)
	lockAll() // all stripes and everything else, for writing
	unlockAll()
	listening() bool // whether emit leads anywhere
	emit(Event)
}

type noHost struct{}

func (noHost) lock(int)        {}
func (noHost) unlock(int)      {}
func (noHost) lockAll()        {}
func (noHost) unlockAll()      {}
func (noHost) listening() bool { return false }
func (noHost) emit(Event)      {}

func routeEvent(k EventKind, index uint64, c wire.ClientID, o owner, v rowValue) Event {
	return Event{Kind: k, Index: index, Route: Route{Client: c, Node: o.node, Incarnation: o.inc, Session: v.session, Epoch: v.epoch}}
}
