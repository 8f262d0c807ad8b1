package node

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/raftfsm"
)

// revokeTry bounds one attempt to reach a holder.
const revokeTry = time.Second

// fence returns once held's incarnation does not deliver to s's client under that epoch any more: its node said so, or
// the incarnation ended in the table. waiting is called if that is not at once.
func (n *Node) fence(ctx context.Context, s session, held raftfsm.OpResult, waiting func(time.Duration)) error {
	q := wire.RevokeRequest{Client: s.Client(), Incarnation: held.Incarnation, Epoch: held.Epoch, By: s.ID()}
	if held.HolderClient != (wire.ClientID{}) {
		q.Client, q.Text = held.HolderClient, "another device of its class logged in: "+s.Client().ID
	}
	err := n.revoke(ctx, q, held.Node, waiting)
	if err != nil && ctx.Err() != nil {
		return &wire.Error{Code: wire.LoginTimeout, Text: "the node that holds this client could not be reached, and its lease did not run out in time"}
	}
	return err
}

// revoke asks holder to give an epoch up, again and again, until it answers or its incarnation has ended.
func (n *Node) revoke(ctx context.Context, q wire.RevokeRequest, holder wire.NodeID, waiting func(time.Duration)) error {
	over, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turns, done := n.endings.watch(holder, q.Incarnation, func() { cancel(errEnded) })
	defer done()
	told := false
	tell := func() {
		if !told && waiting != nil {
			told = true
			waiting(n.cfg.Timings.Lease + n.cfg.Timings.Margin + 4*n.cfg.Timings.Election)
		}
	}
	wait := 50 * time.Millisecond
	for {
		var reply wire.RevokeReply
		err := turns.take(over, tell)
		if err == nil {
			try, stop := context.WithTimeout(over, revokeTry)
			err = n.ask(try, holder, wire.CallRevoke, q, &reply)
			stop()
			turns.pass()
		}
		switch {
		case err == nil && reply.Code == wire.OK:
			return nil
		case err != nil && mutate.UnreachableIsFenced:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(context.Cause(over), errEnded):
			return nil
		}
		tell()
		sleep(over, wait/2+rand.N(wait))
		wait = min(2*wait, time.Second)
	}
}

// handleRevoke is the holder's side. Its answer means: this process will not deliver to that client under that epoch or an
// older one any more.
func (n *Node) handleRevoke(ctx context.Context, from wire.NodeID, q *wire.RevokeRequest) (*wire.RevokeReply, error) {
	l := n.present.Load()
	if l == nil || l.incarnation != q.Incarnation {
		// Boot order and the lock of the data folder prove that incarnation's process gone; a life of this process is
		// taken away only after its sessions are.
		return &wire.RevokeReply{Code: wire.OK}, nil
	}
	if mutate.RevokeWithoutFence {
		return &wire.RevokeReply{Code: wire.OK}, nil
	}
	var s session
	var open bool
	kick := q.Code != 0
	l.proposer.revoking(q.Client, func(inflight uint64) {
		s, open = l.claims.revoke(q.Client, q.Epoch, inflight)
		if !kick {
			l.vacated.add(q.Client, q.Epoch, now()+n.cfg.Timings.Lease)
		}
	})
	if open {
		if kick {
			s.Close(q.Code, q.Text)
		} else {
			closeReplaced(s, q.By, q.Text)
		}
		n.log.Info("revoked", slog.Group("audit", "event", "revoke", "client", q.Client.String(), "epoch", uint64(q.Epoch), "by", n.nameOf(from)))
	}
	// Others may be closing as well, for an earlier Revoke or a login here: none of them may write any more.
	for _, s := range l.claims.closing(q.Client) {
		select {
		case <-s.Fenced():
		case <-ctx.Done(): // not fenced, so not answered: the asker asks again
			return nil, context.Cause(ctx)
		}
	}
	if kick {
		l.unregister(q.Client, q.Epoch)
	} else {
		l.journal("fence", q.Client, q.Epoch, wire.SessionID{}) // the registration behind it replaces the row
	}
	return &wire.RevokeReply{Code: wire.OK}, nil
}

// handleProbe tells whether this node delivers to a client under an epoch at this moment.
func (n *Node) handleProbe(_ context.Context, _ wire.NodeID, q *wire.ProbeRequest) (*wire.ProbeReply, error) {
	l := n.present.Load()
	switch {
	case l == nil || l.incarnation != q.Incarnation:
		return &wire.ProbeReply{Code: wire.NotOwner}, nil
	case !n.lease.holds(now()):
		return &wire.ProbeReply{Code: wire.LeaseLost}, nil
	}
	if _, ok := l.claims.find(q.Client, q.Epoch); !ok {
		return &wire.ProbeReply{Code: wire.NotOwner}, nil
	}
	return &wire.ProbeReply{Code: wire.OK, AgeMS: uint64(n.age(q.Client, q.Epoch).Milliseconds())}, nil
}

// kick closes a client's session wherever it is, without a registration behind it.
func (n *Node) kick(ctx context.Context, route raftfsm.Route, reason string) error {
	err := n.revoke(ctx, wire.RevokeRequest{Client: route.Client, Incarnation: route.Incarnation, Epoch: route.Epoch, Code: wire.Kicked, Text: reason}, route.Node, nil)
	if errors.Is(err, mesh.ErrUnreachable) || ctx.Err() != nil {
		return &wire.Error{Code: wire.Unavailable, Text: "the owner could not be reached and its lease has not run out yet: try again"}
	}
	return err
}
