package node

import (
	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// maySend decides whether a session may send to an address of that kind; nil: it may. It is asked for every message and must
// be cheap. Operators and back ends, who hold a token of the admin API, are not asked.
func (n *Node) maySend(_ *gateway.Session, kind wire.Kind, _ string) *wire.Error {
	switch kind {
	case wire.ToAll, wire.ToOthers, wire.ToPrefix:
		if !n.cfg.Dev {
			return &wire.Error{Code: wire.Forbidden, Text: "clients may not send to " + kind.String() + ": back ends do that, over the admin API"}
		}
	}
	return nil
}

// mayJoin is maySend for joining a group.
func (n *Node) mayJoin(*gateway.Session, string) *wire.Error { return nil }
