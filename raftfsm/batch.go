package raftfsm

import (
	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

func (t *Table) batch(h host, index uint64, c *Command) Result {
	m, r := t.member(c.Node)
	switch {
	case m == nil:
		return r
	case c.Incarnation != m.Incarnation || m.State == Down:
		return refuse(wire.BadIncarnation, "incarnation %d ended or never was: the node's is %d and it is %s", c.Incarnation, m.Incarnation, m.State)
	}
	digest := digestOps(c.Ops)
	switch {
	case c.Seq == m.batch.Seq && digest != m.batch.Digest:
		return refuse(wire.Refused, "batch %d was another one", c.Seq)
	case c.Seq == m.batch.Seq:
		return m.batch.Result
	case c.Seq != m.batch.Seq+1:
		return refuse(wire.Refused, "batch %d: the last one was %d", c.Seq, m.batch.Seq)
	}
	r = Result{Code: wire.OK, Index: index, Ops: make([]OpResult, len(c.Ops))}
	listening := h.listening()
	for i := range c.Ops {
		op := &c.Ops[i]
		if op.Kind.ofTopic() {
			n := topicStripe(op.Topic)
			h.lock(n)
			r.Ops[i] = t.topicOp(m.owner, op)
			h.unlock(n)
			continue
		}
		k := makeKey(op.Client)
		n := stripeOf(k.h)
		h.lock(n)
		cleared, wasCleared := t.clearFenced(&t.stripes[n], k, op)
		res, before := t.op(&t.stripes[n], k, m.owner, op)
		h.unlock(n)
		r.Ops[i] = res
		if wasCleared && listening {
			h.emit(Event{Kind: RouteGone, Index: index, Route: cleared})
		}
		if listening && res.Code == OpOK {
			if op.Kind == Register {
				h.emit(routeEvent(RouteSet, index, op.Client, t.owners.list[m.owner], rowValue{m.owner, op.Session, res.Epoch}))
			} else {
				h.emit(routeEvent(RouteGone, index, op.Client, t.owners.list[m.owner], before))
			}
		}
	}
	m.batch = lastBatch{c.Seq, digest, r}
	return r
}

// op executes one op for the node whose live incarnation is ord. It returns the row as it was.
func (t *Table) op(s *stripe, k key, ord uint32, op *Op) (OpResult, rowValue) {
	pl, found := s.find(k)
	var row rowValue
	if found {
		row = pl.page().value(pl.off)
	}
	live := found && t.owners.list[row.owner].live // nothing below may look at a void row: it may be gone already elsewhere
	if op.Kind == Unregister {
		if !live {
			return OpResult{Code: OpGone}, row
		}
		if row.epoch != op.Epoch && !mutate.UnregisterAnyEpoch || row.owner != ord {
			return t.blocked(OpGone, row), row
		}
		s.remove(&t.w, k, pl)
		t.owners.drop(ord)
		t.rows--
		return OpResult{Code: OpOK, Epoch: row.epoch}, row
	}
	if live {
		same := row.session.Instance == op.Session.Instance
		switch {
		case same && op.Session.Attempt < row.session.Attempt:
			return t.blocked(OpStale, row), row
		case !same && t.Settings.Duplicate == DuplicateReject:
			return t.blocked(OpRejected, row), row
		case row.owner == ord || mutate.RegisterOverLive: // a node replaces its own session
		case op.Fenced != 0 && row.epoch == op.Fenced:
		default:
			return t.blocked(OpHeld, row), row
		}
	}
	if res := t.crowded(s, k, live); res.Code != 0 {
		return res, row
	}
	t.Epochs++
	v := rowValue{ord, op.Session, wire.MakeEpoch(t.Generation, t.Epochs)}
	if found {
		pl.own(&t.w).setValue(pl.off, v)
		t.owners.drop(row.owner)
	} else {
		s.insert(&t.w, k, v)
		t.rows++
	}
	t.owners.add(ord)
	return OpResult{Code: OpOK, Epoch: v.epoch}, row
}

func (t *Table) blocked(code OpCode, row rowValue) OpResult {
	o := t.owners.list[row.owner]
	return OpResult{Code: code, Epoch: row.epoch, Node: o.node, Incarnation: o.inc, HolderSession: row.session}
}

// digestOps tells one batch from another. It is kept in snapshots, so it never changes.
func digestOps(ops []Op) uint64 {
	d := newDigest()
	for i := range ops {
		op := &ops[i]
		d.number(uint64(op.Kind))
		d.text(op.Client.Tenant)
		d.text(op.Client.ID)
		d.number(op.Session.Instance)
		d.number(op.Session.Attempt)
		d.number(uint64(op.Fenced))
		d.number(uint64(op.Epoch))
		if op.Kind.ofTopic() {
			d.number(uint64(op.Topic.Kind))
			d.text(op.Topic.Tenant)
			d.text(op.Topic.Name)
		}
	}
	return d.sum()
}
