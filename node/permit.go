package node

import (
	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// maySend decides whether a session may send to an address of that kind; nil: it may. It is asked for every message and must
// be cheap. What the token says counts, compiled when the session logged in; where it says nothing, clients may send to
// everything but whole crowds they have not joined. Operators and back ends, who hold a token of the admin API, are not asked.
//
// A node that has its permissions decided elsewhere asks here, and in mayJoin, behind what the token refuses.
func (n *Node) maySend(s *gateway.Session, kind wire.Kind, to string) *wire.Error {
	if g := s.Grants(); g != nil {
		if may, decided := g.Send(kind, to); may {
			return nil
		} else if decided {
			return refuseSend(g.RefusesSend(kind, to), kind, to)
		}
	}
	switch kind {
	case wire.ToAll, wire.ToOthers, wire.ToPrefix:
		if !n.cfg.Dev {
			return &wire.Error{Code: wire.Forbidden, Text: "clients may not send to " + kind.String() + " unless their token says so: back ends do that, over the admin API"}
		}
	}
	return nil
}

func refuseSend(who string, kind wire.Kind, to string) *wire.Error {
	if kind == wire.ToAll || kind == wire.ToOthers {
		return wire.Errorf(wire.Forbidden, "%s does not let this client send to %s", who, kind)
	}
	return wire.Errorf(wire.Forbidden, "%s does not let this client send to %s %q", who, kind, to)
}

// mayServe decides whether a session may be an instance of a service: whoever is one reads what is sent to it. Its token says so,
// or, where that says nothing, its client id does: the service's name, or that with anything as the device. In development mode
// everybody may whose token does not say otherwise.
func (n *Node) mayServe(s *gateway.Session, service string) *wire.Error {
	may, decided := s.Grants().Join(wire.TopicService, service)
	switch {
	case decided && !may:
		return wire.Errorf(wire.Forbidden, "%s does not let this client serve %s", s.Grants().RefusesJoin(wire.TopicService, service), service)
	case decided, n.cfg.Dev, s.Client().User() == service:
		return nil
	}
	return wire.Errorf(wire.Forbidden, "only clients called %s, or %s/ and anything, or with a token that grants service:%[1]s, may serve %[1]s", service, service)
}

// mayWatch is maySend for watching a client's presence. Where the operator says who whose friends are, clients see these only.
func (n *Node) mayWatch(_ *gateway.Session, _ string) *wire.Error {
	if n.cfg.Friends == nil || n.cfg.Dev {
		return nil
	}
	return &wire.Error{Code: wire.Forbidden, Text: "clients may watch their friends only: watch the list \"" + wire.FriendsList + "\""}
}

// mayJoin is maySend for joining a group.
func (n *Node) mayJoin(s *gateway.Session, group string) *wire.Error {
	if may, decided := s.Grants().Join(wire.TopicGroup, group); decided && !may {
		return wire.Errorf(wire.Forbidden, "%s does not let this client join group %q", s.Grants().RefusesJoin(wire.TopicGroup, group), group)
	}
	return nil
}
