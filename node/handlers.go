package node

import (
	"context"

	"imroute/mesh/wire"
)

// ask makes one control call and decodes its answer.
func (n *Node) ask(ctx context.Context, to wire.NodeID, kind wire.CallKind, req, reply any) error {
	b, err := wire.Marshal(req)
	if err != nil {
		return err
	}
	if b, err = n.mesh.Call(ctx, to, kind, b); err != nil {
		return err
	}
	return wire.Unmarshal(b, reply)
}

// prove returns an index such that a table which has applied it holds everything acknowledged before the call: a
// linearizable read of nobody.
func (n *Node) prove(ctx context.Context) (index uint64, err error) {
	at, err := n.reads.do(ctx, wire.ClientID{})
	return at.index, err
}

// refresh returns once this node's table holds everything that was acknowledged before the call.
func (n *Node) refresh(ctx context.Context) error {
	index, err := n.prove(ctx)
	if err != nil {
		return err
	}
	return n.fsm.WaitApplied(ctx, index)
}

// handle makes a mesh handler of a function on decoded requests.
func handle[Q, R any](n *Node, kind wire.CallKind, f func(ctx context.Context, from wire.NodeID, q *Q) (*R, error)) {
	n.mesh.Handle(kind, func(ctx context.Context, from wire.NodeID, req []byte) ([]byte, error) {
		q := new(Q)
		if err := wire.Unmarshal(req, q); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "request: %v", err)
		}
		r, err := f(ctx, from, q)
		if err != nil {
			return nil, err
		}
		return wire.Marshal(r)
	})
}

// register names who answers what. It stands in one place so that the whole surface between nodes is on one screen.
func (n *Node) registerHandlers() {
	handle(n, wire.CallConfirm, func(_ context.Context, _ wire.NodeID, q *wire.ConfirmRequest) (*wire.ConfirmReply, error) {
		return &wire.ConfirmReply{Nonce: q.Nonce, Term: n.store.Term()}, nil
	})
	handle(n, wire.CallRenew, n.lead.handleRenew)
	handle(n, wire.CallRead, n.lead.handleRead)
	handle(n, wire.CallPropose, n.lead.handlePropose)
	handle(n, wire.CallRevoke, n.handleRevoke)
	handle(n, wire.CallProbe, n.handleProbe)
	handle(n, wire.CallAdmin, n.handleAdmin)
	handle(n, wire.CallSecrets, n.handleSecrets)
	handle(n, wire.CallHash, n.handleHash)
}
