package node

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"
	"unsafe"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// The real parts, as the model calls them. States name them by small numbers; each distinct call is made once and
// remembered.

// claimBook runs the real claims. A claim is copied before each call, so every state has its own.
type modelClaimBook struct {
	without modelRule
	real    *claims[sid]
	list    []*claim[sid] // 0: none
	ids     map[string]uint16
	memo    map[modelClaimCall]modelClaimAnswer
}

type modelClaimFn uint8

const (
	modelClaimBegin modelClaimFn = iota
	modelClaimLearn
	modelClaimRevoke
	modelClaimEnded
	modelClaimForget
)

type modelClaimCall struct {
	id       uint16
	fn       modelClaimFn
	s        sid
	epoch    uint8
	inflight uint8 // or the batch answered
}

type modelClaimAnswer struct {
	id    uint16
	open  bool
	close uint8 // sessions to close
	wait  uint8 // sessions to wait for, those included
	epoch uint8
}

func modelNewClaimBook(without modelRule) *modelClaimBook {
	return &modelClaimBook{without: without, real: newClaims[sid](), list: []*claim[sid]{nil}, ids: map[string]uint16{"": 0}, memo: map[modelClaimCall]modelClaimAnswer{}}
}

func (b *modelClaimBook) do(c modelClaimCall) modelClaimAnswer {
	a, ok := b.memo[c]
	if !ok {
		a = b.call(c)
		b.memo[c] = a
	}
	return a
}

func (b *modelClaimBook) call(c modelClaimCall) (a modelClaimAnswer) {
	e := b.load(c.id)
	switch c.fn {
	case modelClaimBegin:
		b.real.begin(modelClient, c.s)
	case modelClaimLearn:
		if b.without == ruleEndedClosesLower && (e == nil || !slices.Contains(e.pending, c.s)) {
			return modelClaimAnswer{id: c.id}
		}
		if b.without == ruleAnswersInOrder && e != nil {
			e.highestSeen = 0
		}
		l := b.real.learn(modelClient, c.s, wire.Epoch(c.epoch))
		a.open = l.open
		for _, s := range l.close {
			a.close |= modelSetOf(s)
		}
		if b.without == ruleClosesLower {
			a.close = 0
		}
		a.wait = a.close
	case modelClaimRevoke:
		if b.without == ruleRecordRefusal {
			c.inflight = 0
		}
		s, had := b.real.revoke(modelClient, wire.Epoch(c.epoch), uint64(c.inflight))
		if had {
			a.close = modelSetOf(s)
		}
		a.wait = a.close
		if k, ok := any(b.real).(interface {
			closing(wire.ClientID) []sid
		}); ok && b.without != ruleWaitForClosing {
			for _, s := range k.closing(modelClient) {
				a.wait |= modelSetOf(s)
			}
		}
	case modelClaimEnded:
		a.epoch = uint8(b.real.ended(modelClient, c.s))
	case modelClaimForget:
		b.real.answered(uint64(c.inflight), []wire.ClientID{modelClient})
	}
	a.id = b.store()
	return a
}

func (b *modelClaimBook) load(id uint16) *claim[sid] {
	sh := b.real.shard(modelClient)
	clear(sh.clients)
	if id == 0 {
		return nil
	}
	e := modelCopyClaim(b.list[id])
	if f := reflect.ValueOf(e).Elem().FieldByName("revoked"); f.IsValid() && b.without == ruleUnregisterRevoked {
		*(*wire.Epoch)(unsafe.Pointer(f.UnsafeAddr())) = 0
	}
	if f := reflect.ValueOf(e).Elem().FieldByName("closing"); f.IsValid() && b.without == ruleWaitForClosing {
		*(*[]sid)(unsafe.Pointer(f.UnsafeAddr())) = nil
	}
	sh.clients[modelClient] = e
	return e
}

func (b *modelClaimBook) store() uint16 {
	e := b.real.shard(modelClient).clients[modelClient]
	if e == nil {
		return 0
	}
	key := fmt.Sprintf("%+v", *e)
	id, ok := b.ids[key]
	if !ok {
		id = uint16(len(b.list))
		b.ids[key] = id
		b.list = append(b.list, modelCopyClaim(e))
	}
	return id
}

// copyClaim shares nothing with e, whatever fields a claim has.
func modelCopyClaim(e *claim[sid]) *claim[sid] {
	c := *e
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Slice:
			list := (*[]sid)(unsafe.Pointer(f.UnsafeAddr()))
			*list = append([]sid(nil), *list...)
		case reflect.Uint8, reflect.Uint64, reflect.Bool:
		default:
			panic("the model cannot copy claim." + v.Type().Field(i).Name)
		}
	}
	return &c
}

func (b *modelClaimBook) finds(id uint16, s sid, epoch uint8) bool {
	b.load(id)
	found, ok := b.real.find(modelClient, wire.Epoch(epoch))
	return ok && found == s
}

// Operations are bytes: bit 7 set for a registration, then the session and the epoch fenced; else the epoch to
// unregister. 0: none.

func modelRegisterOp(s sid, fenced uint8) uint8 { return 0x80 | uint8(s)<<5 | fenced }

func modelIsRegister(op uint8) bool { return op&0x80 != 0 }

func modelOpSession(op uint8) sid { return sid(op >> 5 & 3) }

func modelOpEpoch(op uint8) uint8 { return op & 0x1f }

func modelRealOp(op uint8) raftfsm.Op {
	if modelIsRegister(op) {
		return raftfsm.Op{Kind: raftfsm.Register, Client: modelClient, Session: modelSessionID[modelOpSession(op)], Fenced: modelWireEpoch(modelOpEpoch(op))}
	}
	return raftfsm.Op{Kind: raftfsm.Unregister, Client: modelClient, Epoch: modelWireEpoch(modelOpEpoch(op))}
}

func modelOp(op raftfsm.Op) uint8 {
	if op.Kind == raftfsm.Unregister {
		return modelEpoch(op.Epoch)
	}
	for s := sid(1); s <= modelSessions; s++ {
		if modelSessionID[s] == op.Session {
			return modelRegisterOp(s, modelEpoch(op.Fenced))
		}
	}
	panic("unknown session")
}

// Epochs are bytes: two bits of generation above three of counter.

func modelEpoch(e wire.Epoch) uint8 {
	if e.Generation() > 3 || e.Counter() > 7 {
		panic("the model's epochs are used up")
	}
	return uint8(e.Generation())<<3 | uint8(e.Counter())
}

func modelWireEpoch(e uint8) wire.Epoch { return wire.MakeEpoch(uint16(e>>3), uint64(e&7)) }

// modelSessionOf also knows the attempts that a rule taken away made of the real ones.
func modelSessionOf(s wire.SessionID) sid {
	if s.Instance == modelSessionID[3].Instance {
		return 3
	}
	return sid(s.Attempt % 8)
}

// vacated makes the life's real list of vacancies; all of them are due.
func (x *modelNodeState) vacated() *vacated {
	v := &vacated{}
	if x.vacant != 0 {
		v.add(modelClient, wire.Epoch(x.vacant), 0)
	}
	return v
}

func (b *modelClaimBook) closing(id uint16) bool {
	b.load(id)
	return len(b.real.closing(modelClient)) > 0
}

// proposer makes the node's real proposer from its state; keep brings the state up to it. It says no if the model's
// bounds are passed.
func (x *modelNodeState) proposer() *proposer {
	p := &proposer{}
	for _, op := range x.queue {
		if op != 0 {
			p.queue = append(p.queue, operation{Op: modelRealOp(op)})
		}
	}
	if x.inflight && !x.early {
		p.inflight = uint64(x.seq)
	}
	if x.refused {
		p.refused = []wire.ClientID{modelClient}
	}
	if x.phase != modelLiving {
		p.ended = errEnded
	}
	return p
}

func (x *modelNodeState) keep(p *proposer) bool {
	if len(p.queue) > modelBatch {
		return false
	}
	x.queue = [modelBatch]uint8{}
	for i := range p.queue {
		x.queue[i] = modelOp(p.queue[i].Op)
	}
	x.refused = len(p.refused) > 0
	return true
}

func (x *modelNodeState) add(op uint8) bool {
	p := x.proposer()
	p.add(operation{Op: modelRealOp(op)})
	return x.keep(p)
}

// takeBatch puts what is queued in flight.
func (x *modelNodeState) takeBatch() bool {
	p := x.proposer()
	ops, err := p.take(context.Background(), uint64(x.seq)+1)
	if err != nil || !x.keep(p) {
		return false
	}
	x.seq, x.inflight, x.told = uint8(p.inflight), true, 0
	x.ops = [modelBatch]uint8{}
	for i := range ops {
		x.ops[i] = modelOp(ops[i].Op)
	}
	return true
}

// modelNow is the moment at which a state is looked at; times in it are relative to this.
const modelNow = 1000 * time.Second

func modelAgo(n uint8) time.Duration { return modelNow - time.Duration(n)*time.Second }

func (m *model) seconds(n uint8) time.Duration { return time.Duration(n) * time.Second }

func (m *model) holder(x *modelNodeState) *leaseHolder {
	h := &leaseHolder{length: m.seconds(m.cfg.length + m.cfg.longer), margin: m.seconds(m.holderMargin())}
	if x.lease > 0 {
		h.ends.Store(int64(modelNow + m.seconds(x.lease)))
	}
	return h
}

func (m *model) holderMargin() uint8 {
	if m.without == ruleHolderMargin || m.without == ruleMargin {
		return 0
	}
	return m.cfg.margin
}

func (m *model) grantorMargin() uint8 {
	if m.without == ruleGrantorMargin || m.without == ruleMargin {
		return 0
	}
	return m.cfg.margin
}

// grantor makes the leader's real grantor from its state; keepGrants brings the state up to it.
func (m *model) grantor(x *modelNodeState) *grantor {
	g := newGrantor(uint64(x.leads), m.seconds(m.cfg.length), m.seconds(m.grantorMargin()))
	for n, s := range x.grants {
		if s.present {
			g.granted[modelNodeID(uint8(n))] = &grant{incarnation: wire.Incarnation(s.inc), renewed: modelAgo(s.age), expiring: s.expiring}
		}
	}
	return g
}

func (m *model) keepGrants(x *modelNodeState, g *grantor) {
	for n := range x.grants {
		e := g.granted[modelNodeID(uint8(n))]
		if e == nil {
			x.grants[n] = modelGrantState{}
			continue
		}
		age := min((modelNow-e.renewed)/time.Second, time.Duration(m.oldest()))
		x.grants[n] = modelGrantState{inc: uint8(e.incarnation), age: uint8(age), expiring: e.expiring, present: true}
	}
}

// oldest is an age past which nothing changes any more.
func (m *model) oldest() uint8 { return m.cfg.length + m.cfg.margin + 1 }

func modelNodeID(n uint8) wire.NodeID { return wire.NodeID(n + 1) }

// members is the applied table as the grantor reads it, as far as leases are followed.
func (m *model) members(t *modelTableState) []member {
	out := make([]member, 0, modelNodes)
	for n, s := range t.nodes {
		if m.cfg.renews&(1<<n) == 0 {
			continue
		}
		out = append(out, member{node: modelNodeID(uint8(n)), incarnation: wire.Incarnation(s.inc), live: s.live})
	}
	return out
}
