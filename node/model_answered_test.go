package node

import (
	"testing"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// The model makes the steps of life.answered by itself, to look in between. Here the real one runs through every small
// batch, and both must come to the same end.

// modelSession is a session whose writer ends as soon as it is closed.
type modelSession struct {
	s      sid
	epoch  wire.Epoch
	fenced chan struct{}
	closed bool
}

func (s *modelSession) Result(uint64, wire.Code, string, string) {}
func (s *modelSession) Client() wire.ClientID                    { return modelClient }
func (s *modelSession) ID() wire.SessionID                       { return modelSessionID[s.s] }

func (s *modelSession) DeliverHeld(*wire.Forward, gateway.Receipt, *gateway.Held) wire.Code {
	return wire.NotOwner
}

func (s *modelSession) Open(e wire.Epoch) {
	if !s.closed {
		s.epoch = e
	}
}

func (s *modelSession) Close(wire.Code, string) {
	if !s.closed {
		s.closed = true
		close(s.fenced)
	}
}
func (s *modelSession) Fenced() <-chan struct{} { return s.fenced }

// TestModelMirrorsAnswered goes through batches of registrations of three sessions, each answered with an epoch or not, with
// and without a session that is open before, a Revoke on the way and a session that ended meanwhile.
func TestModelMirrorsAnswered(t *testing.T) {
	const outcomes = 3 // of an operation: not in the batch, registered, held
	for before := range 2 {
		for revoked := range uint8(5) {
			for ended := range sid(modelSessions + 1) {
				for code := range modelPow(outcomes, modelSessions) {
					var results []modelOpAnswer
					var ops []uint8
					epoch := uint8(1)
					for s, rest := sid(1), code; s <= modelSessions; s, rest = s+1, rest/outcomes {
						if before == 1 && s == 1 {
							continue
						}
						switch rest % outcomes {
						case 1:
							epoch++
							results = append(results, modelOpAnswer{code: uint8(raftfsm.OpOK), epoch: epoch})
						case 2:
							results = append(results, modelOpAnswer{code: uint8(raftfsm.OpHeld), epoch: 1, node: modelNodeB, inc: 1})
						default:
							continue
						}
						ops = append(ops, modelRegisterOp(s, 0))
					}
					if len(ops) == 0 {
						continue
					}
					real := modelAnsweredReal(ops, results, before == 1, revoked, ended)
					if model := answeredModel(ops, results, before == 1, revoked, ended); real != model {
						t.Fatalf("ops %v answered %+v, session 1 open before: %v, epochs up to %d revoked, session %d ended:\nreal  %+v\nmodel %+v",
							ops, results, before == 1, revoked, ended, real, model)
					}
				}
			}
		}
	}
}

// outcome is what can be seen after a batch was answered.
type modelOutcome struct {
	opened [modelSessions + 1]uint8 // the epoch of each session
	closed [modelSessions + 1]bool
	queue  [modelBatch]uint8
	found  sid
}

func modelAnsweredReal(ops []uint8, results []modelOpAnswer, before bool, revoked uint8, ended sid) (o modelOutcome) {
	l := &life{incarnation: 1, claims: newClaims[session](), proposer: newProposer(1, 1)}
	all := map[sid]*modelSession{}
	for s := sid(1); s <= modelSessions; s++ {
		all[s] = &modelSession{s: s, fenced: make(chan struct{})}
	}
	if before {
		l.claims.begin(modelClient, all[1])
		l.claims.learn(modelClient, all[1], 1)
		all[1].Open(1)
	}
	var batch []operation
	r := raftfsm.Result{Code: wire.OK}
	for i, op := range ops {
		s := all[modelOpSession(op)]
		l.claims.begin(modelClient, s)
		batch = append(batch, operation{Op: modelRealOp(op), session: s, answer: make(chan answer, 1)})
		r.Ops = append(r.Ops, raftfsm.OpResult{Code: raftfsm.OpCode(results[i].code), Epoch: wire.Epoch(results[i].epoch), Node: modelNodeID(results[i].node)})
	}
	if revoked != 0 {
		if s, had := l.claims.revoke(modelClient, wire.Epoch(revoked), 1); had {
			s.Close(wire.Replaced, "")
		}
	}
	if ended != 0 {
		all[ended].Close(wire.ConnectionLost, "")
		l.closed(all[ended])
	}
	l.answered(batch, r)
	for s, z := range all {
		o.opened[s], o.closed[s] = uint8(z.epoch), z.closed
	}
	for i, op := range l.proposer.queue {
		o.queue[i] = modelOp(op.Op)
	}
	if s, ok := l.claims.current(modelClient); ok {
		o.found = s.(*modelSession).s
	}
	return o
}

func answeredModel(ops []uint8, results []modelOpAnswer, before bool, revoked uint8, ended sid) (o modelOutcome) {
	m := &model{book: modelNewClaimBook(modelAllRules), logs: modelNewLogBook(modelAllRules, false)}
	var w modelWorld
	x := &w.nodes[modelNodeA]
	x.phase, x.inc, x.inflight, x.seq, x.told = modelLiving, 1, true, 1, 1
	begin := func(s sid) {
		x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimBegin, s: s}).id
		w.sess[s-1] = modelSessState{stage: modelRegistering, gate: modelInside, inc: 1}
	}
	for s := range w.sess {
		w.sess[s].gate = modelInside
		w.sess[s].inc = 1
	}
	join := func() {
		for s := sid(1); s <= modelSessions; s++ {
			m.join(&w, s)
		}
	}
	if before {
		begin(1)
		x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimLearn, s: 1, epoch: 1}).id
		w.sess[0] = modelSessState{stage: modelWelcomed, gate: modelInside, opened: true, inc: 1, epoch: 1}
	}
	copy(x.ops[:], ops)
	copy(x.results[:], results)
	for _, op := range ops {
		begin(modelOpSession(op))
	}
	if revoked != 0 {
		a := m.book.do(modelClaimCall{id: x.claim, fn: modelClaimRevoke, epoch: revoked, inflight: 1})
		x.claim = a.id
		for s := sid(1); s <= modelSessions; s++ {
			if a.close&modelSetOf(s) != 0 {
				m.close(&w, s)
			}
		}
		join()
	}
	if ended != 0 {
		m.close(&w, ended)
		join()
		m.closed(&w, ended)
	}
	for x.told != 0 {
		m.tell(&w, modelNodeA)
		join()
	}
	for s := sid(1); s <= modelSessions; s++ {
		z := &w.sess[s-1]
		o.opened[s], o.closed[s] = z.epoch, z.gate != modelInside
		for e := uint8(1); e < 8; e++ {
			if m.book.finds(x.claim, s, e) {
				o.found = s
			}
		}
	}
	o.queue = x.queue
	return o
}
