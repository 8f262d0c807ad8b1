package node

import (
	"context"
	"math/rand/v2"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// clients is the node as its gateway sees it.
type clients struct{ n *Node }

// defaultTimeout is a message's when its sender names none; maxTimeout is the longest it may name.
const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = 60 * time.Second
)

func (c clients) Login(ctx context.Context, s *gateway.Session, waiting func(time.Duration)) (gateway.Welcome, error) {
	if err := c.n.permitted(ctx, s); err != nil { // before all that must hold when it is registered
		c.n.metrics.registrations.Add(codeOf(err))
		return gateway.Welcome{}, err
	}
	l := c.n.present.Load()
	if l == nil || !c.n.lease.holds(now()) {
		return gateway.Welcome{}, &wire.Error{Code: wire.NoQuorum, Text: "this node has no lease at the moment and may not take clients"}
	}
	if c.n.leaving.Load() { // after this the sessions that are there are closed for the last time
		return gateway.Welcome{}, &wire.Error{Code: wire.Draining, Text: "this node leaves the cluster"}
	}
	a := &attached{life: l, order: newTracker(), sender: wire.Sender(s.Client(), s.ID().Instance)}
	a.memberships.s = s
	s.SetAttachment(a)
	refused := c.joinAtLogin(ctx, s, a)
	w, err := l.login(ctx, s, waiting)
	c.n.metrics.registrations.Add(codeOf(err))
	if err == nil {
		refused()
		c.n.sessionOpened(s)
	}
	if err == nil && c.n.drainIntent.Load() {
		s.Goaway(wire.Draining, drainGrace) // it was let in before the drain began, and is told like those that were there
	}
	return w, err
}

func (c clients) Closed(s *gateway.Session) {
	if a, ok := s.Attachment().(*attached); ok {
		a.life.leaveTopics(&a.memberships)
		if a.watcher != nil {
			a.watcher.end()
		}
		a.life.closed(s)
		c.n.sessionEnded(s)
	}
}

// attached is what the node keeps with a session.
type attached struct {
	life   *life
	order  *tracker
	sender uint64        // the instance that its messages carry
	m      *wire.Forward // of one message after the other; nil: it has not sent any

	memberships memberships
	watcher     *watcher         // nil: it has not watched anybody yet
	devices     []raftfsm.Device // scratch
}

func (c clients) Send(s *gateway.Session, f *wire.Frame) {
	timeout := min(time.Duration(f.TimeoutMS)*time.Millisecond, maxTimeout)
	if timeout == 0 {
		timeout = defaultTimeout
	}
	a := s.Attachment().(*attached) // Login made it, and Send is called only after that
	answers := f.Re != 0 && f.Kind == wire.ToClient && a.memberships.answered(wire.MessageID{Instance: f.ReInstance, Counter: f.Re}, f.To)
	if (f.Kind != wire.ToClient || s.Grants() != nil) && !answers { // who was asked as a service may answer whoever asked
		if why := c.n.maySend(s, f.Kind, f.To); why != nil {
			c.n.router.report(s, f.ID, why.Code, "", why.Text)
			return
		}
	}
	if a.m == nil {
		a.m = new(wire.Forward)
	}
	*a.m = wire.Forward{ // this is the session's read goroutine, and nobody keeps it
		Tenant: s.Client().Tenant, To: f.To, From: s.Client().ID, Instance: a.sender, Counter: f.ID, Ack: f.Ack, Payload: f.Payload, Kind: f.Kind,
	}
	switch {
	case f.Kind.Cast():
		var o castOrigin = s
		if f.Kind == wire.ToGroup && !a.memberships.has(groupOf(s, f.To)) {
			o = outsider{s}
		}
		c.n.router.casts.send(o, a.m, timeout)
	case f.Kind == wire.ToService:
		a.m.Instance = s.ID().Instance // see wire.CastSender
		c.n.router.services.send(s, a.m, timeout)
	case f.Re != 0: // for the one who asked, not for other devices
		a.m.Re, a.m.ReInstance, a.m.Fault = f.Re, f.ReInstance, f.Fault
		c.n.router.send(s, a.order, a.m, timeout)
	default:
		a.devices = c.n.router.sendToUser(s, a.order, a.m, timeout, a.devices[:0])
	}
	*a.m = wire.Forward{} // it shared memory with f
}

func (c clients) LeaseLeft() time.Duration { return c.n.lease.left(now()) }

func (c clients) NodeName() string { return c.n.name }

// Alternatives names the other nodes that take clients, in random order so that they share the load.
func (c clients) Alternatives(transport string) (addrs []string) {
	for _, node := range c.n.fsm.Nodes() {
		if node.ID == c.n.id || node.State != raftfsm.Up {
			continue
		}
		addr := node.Addrs.ClientTCP
		if transport == gateway.TransportWS {
			addr = node.Addrs.ClientWS
		}
		if addr != "" {
			addrs = append(addrs, addr)
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}
