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

// mayServe decides whether a session may be an instance of a service: whoever is one reads what is sent to it. Outside
// development mode its client id has to say so, which is for those to decide who sign tokens: the service's name, or that with
// anything as the device.
func (n *Node) mayServe(s *gateway.Session, service string) *wire.Error {
	if n.cfg.Dev || s.Client().User() == service {
		return nil
	}
	return wire.Errorf(wire.Forbidden, "only clients called %s, or %s/ and anything, may serve %[1]s", service, service)
}

// mayWatch is maySend for watching a client's presence. Where the operator says who whose friends are, clients see these only.
func (n *Node) mayWatch(_ *gateway.Session, _ string) *wire.Error {
	if n.cfg.Friends == nil || n.cfg.Dev {
		return nil
	}
	return &wire.Error{Code: wire.Forbidden, Text: "clients may watch their friends only: watch the list \"" + wire.FriendsList + "\""}
}

// mayJoin is maySend for joining a group.
func (n *Node) mayJoin(*gateway.Session, string) *wire.Error { return nil }
