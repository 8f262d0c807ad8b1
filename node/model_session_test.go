package node

import (
	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// The steps of sessions, batches and takeovers, in the order in which life.go, proposer.go and takeover.go make them.

// sessionSteps emits what can happen next; it reports whether any of it happens by itself.
func (m *model) sessionSteps(w *modelWorld) (progress bool) {
	try := func(a action, step func(w *modelWorld) bool) bool { return m.try(w, a, step) }
	must := func(a action, step func(w *modelWorld) bool) {
		if try(a, step) {
			progress = true
		}
	}
	for s := sid(1); s <= modelSessions; s++ {
		a := func(kind uint8) action { return action{kind, uint8(s), m.cfg.place[s-1], 0} }
		try(a(actLogin), func(w *modelWorld) bool { return m.login(w, s) })
		try(a(actDisconnect), func(w *modelWorld) bool { return m.disconnect(w, s) })
		must(a(actJoin), func(w *modelWorld) bool { return m.join(w, s) })
		must(a(actClosed), func(w *modelWorld) bool { return m.closed(w, s) })
	}
	for i := range uint8(len(w.revokes)) {
		r := &w.revokes[i]
		a := func(kind uint8) action { return action{kind, i + 1, r.node, r.epoch} }
		must(a(actRevoke), func(w *modelWorld) bool { return m.revoke(w, i, false) })
		try(a(actRevokeLater), func(w *modelWorld) bool { return m.revoke(w, i, true) })
		try(a(actReask), func(w *modelWorld) bool { return m.reask(w, i) })
		must(a(actRevokeDone), func(w *modelWorld) bool { return m.revokeDone(w, i) })
		must(a(actFenced), func(w *modelWorld) bool { return m.fenced(w, i) })
	}
	try(action{kind: actKick}, m.kick)
	for n := range uint8(modelNodes) {
		a := func(kind uint8) action { return action{kind, n, 0, 0} }
		must(a(actTake), func(w *modelWorld) bool { return m.take(w, n) })
		must(a(actAnswer), func(w *modelWorld) bool { return m.answer(w, n) })
		must(a(actTell), func(w *modelWorld) bool { return m.tell(w, n) })
		for x := range uint8(modelNodes) {
			must(action{actPropose, n, x, 0}, func(w *modelWorld) bool { return m.proposeBatch(w, n, x) })
		}
		must(a(actDue), func(w *modelWorld) bool { return m.vacancyDue(w, n) })
		must(a(actVacate), func(w *modelWorld) bool { return m.vacate(w, n) })
		try(a(actCopy), func(w *modelWorld) bool { return m.copyBatch(w, n) })
		try(action{actLate, n, 0, 0}, func(w *modelWorld) bool { return m.lateArrives(w, n) })
	}
	return progress
}

func (m *model) login(w *modelWorld, s sid) bool {
	z, n := &w.sess[s-1], m.cfg.place[s-1]
	x := &w.nodes[n]
	if z.stage != modelAbsent || m.cfg.only != 0 && m.cfg.only&modelSetOf(s) == 0 || x.phase != modelLiving || !m.holds(w, n) || x.stopping != 0 || x.leaving > 1 {
		return false
	}
	if s == 2 && w.sess[0].stage == modelAbsent { // attempts of one instance come in order
		return false
	}
	*z = modelSessState{stage: modelRegistering, gate: modelInside, inc: x.inc}
	x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimBegin, s: s}).id
	return x.add(modelRegisterOp(s, 0))
}

// close is Session.Close.
func (m *model) close(w *modelWorld, s sid) {
	z := &w.sess[s-1]
	if z.gate != modelInside {
		return
	}
	z.gate = modelClosing
	if r := &w.revokes[s-1]; r.stage == modelRevokeAsked {
		*r = modelRevokeState{}
	}
	if m.without == ruleUnregisterAfterFence {
		m.unregisterEnded(w, s)
	}
}

func (m *model) disconnect(w *modelWorld, s sid) bool {
	if w.left.disconnects == 0 || w.sess[s-1].gate != modelInside {
		return false
	}
	w.left.disconnects--
	m.close(w, s)
	return true
}

// join: the writer ends, Fenced is closed.
func (m *model) join(w *modelWorld, s sid) bool {
	z := &w.sess[s-1]
	if z.gate != modelClosing {
		return false
	}
	z.gate = modelJoined
	return true
}

// closed is life.closed.
func (m *model) closed(w *modelWorld, s sid) bool {
	z := &w.sess[s-1]
	if z.gate != modelJoined {
		return false
	}
	z.gate = modelGone
	return m.unregisterEnded(w, s)
}

func (m *model) unregisterEnded(w *modelWorld, s sid) bool {
	x := &w.nodes[m.cfg.place[s-1]]
	if x.inc != w.sess[s-1].inc || x.phase != modelLiving && x.phase != modelEnding {
		return true // that life is over
	}
	a := m.book.do(modelClaimCall{id: x.claim, fn: modelClaimEnded, s: s})
	x.claim = a.id
	return a.epoch == 0 || m.giveUp(x, a.epoch)
}

// giveUp is life.giveUp.
func (m *model) giveUp(x *modelNodeState, epoch uint8) bool {
	return x.vacated().covers(modelClient, wire.Epoch(epoch)) || x.add(epoch)
}

// vacancyDue: vacate finds that the time of a vacancy is over.
func (m *model) vacancyDue(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if !m.cfg.slow || x.phase != modelLiving || x.due != 0 || m.without == ruleVacate {
		return false
	}
	due, _ := x.vacated().over(0)
	x.due = uint8(due[modelClient])
	return x.due != 0
}

// vacate is a turn of life.vacate.
func (m *model) vacate(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelLiving || x.vacant == 0 && x.due == 0 || m.cfg.moves || m.without == ruleVacate {
		return false
	}
	v := x.vacated()
	due := x.due
	if !m.cfg.slow {
		list, _ := v.over(0)
		due = uint8(list[modelClient])
	}
	if due == 0 {
		return false
	}
	x.due = 0
	closing := m.book.closing(x.claim) && m.without != ruleVacateAfterFence
	row := m.applied(w, n).row
	forget, unregister := isOver(wire.Epoch(due), closing, wire.Epoch(row.epoch), row.live)
	if !forget {
		return false // next time
	}
	if v.forget(modelClient, wire.Epoch(due)); m.without == ruleVacateKeepsHigher {
		clear(v.ids)
	}
	x.vacant = uint8(v.ids[modelClient].epoch)
	return !unregister || x.add(due)
}

func (m *model) take(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelLiving || x.inflight && !x.early || x.queue[0] == 0 {
		return false
	}
	if x.early { // the sessions of the former batch are still to be told
		return false
	}
	return x.takeBatch()
}

func (x *modelNodeState) batch(n uint8) modelEntry {
	return modelEntry{kind: raftfsm.KindBatch, node: n, inc: x.inc, seq: x.seq, ops: x.ops}
}

// proposeBatch: an attempt of the proposer reaches x, which believes to lead and is past its barrier.
func (m *model) proposeBatch(w *modelWorld, n, x uint8) bool {
	c, l := &w.nodes[n], &w.nodes[x]
	if c.phase != modelLiving || !c.inflight || c.told != 0 || l.leads == 0 || !l.ready {
		return false
	}
	if t := m.applied(w, x); t.nodes[n].removed || t.nodes[n].inc > c.inc || t.nodes[n].inc == c.inc && (t.nodes[n].seq >= c.seq || !t.nodes[n].live) {
		return false // a copy changes nothing
	}
	return m.propose(w, x, c.batch(n))
}

// copyBatch: a copy of the batch stays on its way for longer than anybody waits.
func (m *model) copyBatch(w *modelWorld, n uint8) bool {
	c := &w.nodes[n]
	if w.left.lates == 0 || w.late != 0 || c.phase != modelLiving || !c.inflight || c.told != 0 {
		return false
	}
	w.left.lates--
	w.late = m.logs.intern(c.batch(n))
	return true
}

func (m *model) lateArrives(w *modelWorld, x uint8) bool {
	if w.late == 0 || w.nodes[x].leads == 0 || !w.nodes[x].ready {
		return false
	}
	e := m.logs.entries[w.late]
	w.late = 0
	return m.propose(w, x, e)
}

// answer: the state machine's answer to the batch comes back.
func (m *model) answer(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	t := m.committed(w)
	if x.phase != modelLiving && x.phase != modelEnding || !x.inflight || x.told != 0 || t.nodes[n].inc != x.inc || t.nodes[n].seq != x.seq {
		return false
	}
	x.results, x.told = t.nodes[n].results, 1
	switch m.without {
	case ruleBatchTold:
		x.early = true
		m.forget(x)
	case ruleKeepRefusal:
		m.forget(x)
	}
	return true
}

// forget is the end of a turn of proposer.run.
func (m *model) forget(x *modelNodeState) {
	if x.refused {
		x.refused = false
		x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimForget, inflight: x.seq}).id
	}
}

// tell makes the next step of life.answered: each registration is learnt in op order, then each is told.
func (m *model) tell(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelLiving && x.phase != modelEnding || x.told == 0 {
		return false
	}
	k := uint8(0)
	for k < modelBatch && x.ops[k] != 0 {
		k++
	}
	i := x.told - 1
	if i < k {
		if m.without == ruleAnswersInOrder {
			i = k - 1 - i
		}
		m.learn(w, x, i)
	} else if !m.tellOne(w, x, i-k) {
		return false
	}
	if x.told++; x.told <= 2*k {
		return true
	}
	m.forget(x)
	x.inflight, x.early, x.told, x.ops, x.results = false, false, 0, [modelBatch]uint8{}, [modelBatch]modelOpAnswer{}
	return true
}

func (m *model) learn(w *modelWorld, x *modelNodeState, i uint8) {
	r := &x.results[i]
	if !modelIsRegister(x.ops[i]) || raftfsm.OpCode(r.code) != raftfsm.OpOK {
		return
	}
	s := modelOpSession(x.ops[i])
	a := m.book.do(modelClaimCall{id: x.claim, fn: modelClaimLearn, s: s, epoch: r.epoch})
	x.claim, r.open, r.close = a.id, a.open, a.wait
	for c := sid(1); c <= modelSessions; c++ {
		if a.close&modelSetOf(c) != 0 {
			m.close(w, c)
		}
	}
	if !a.open {
		m.close(w, s)
	}
}

func (m *model) allJoined(w *modelWorld, set uint8) bool {
	for s := sid(1); s <= modelSessions; s++ {
		if g := w.sess[s-1].gate; set&modelSetOf(s) != 0 && (g == modelInside || g == modelClosing) {
			return false
		}
	}
	return true
}

func (m *model) tellOne(w *modelWorld, x *modelNodeState, i uint8) bool {
	r := &x.results[i]
	if !modelIsRegister(x.ops[i]) {
		return true
	}
	s := modelOpSession(x.ops[i])
	z := &w.sess[s-1]
	switch raftfsm.OpCode(r.code) {
	case raftfsm.OpOK:
		if !m.allJoined(w, r.close) && m.without != ruleFenceBeforeOpen {
			return false
		}
		if r.open {
			if z.gate == modelInside {
				z.stage, z.opened, z.epoch = modelWelcomed, true, r.epoch
			}
			return true
		}
		if !m.allJoined(w, modelSetOf(s)) {
			return false
		}
		if m.without == ruleLeaveRowUnlearnt {
			return x.add(r.epoch)
		}
		return m.without == ruleUnregisterUnwanted || m.giveUp(x, r.epoch)
	case raftfsm.OpHeld:
		if z.gate == modelInside {
			z.stage = modelFencing
			w.revokes[s-1] = modelRevokeState{stage: modelRevokeAsked, node: r.node, inc: r.inc, epoch: r.epoch}
		}
	default:
		if z.gate == modelInside {
			z.stage = modelTurnedAway
			m.close(w, s)
		}
	}
	return true
}

// revoke: the holder begins to handle a Revoke; later: another copy of it is still on its way.
func (m *model) revoke(w *modelWorld, i uint8, later bool) bool {
	r := &w.revokes[i]
	x := &w.nodes[r.node]
	last := &w.revokes[modelSessions]
	if r.stage != modelRevokeAsked || m.cfg.deaf&(1<<r.node) != 0 || x.phase == modelCrashed {
		return false
	}
	if later {
		if w.left.lateRevokes == 0 || last.stage != modelNoRevoke {
			return false
		}
		w.left.lateRevokes--
		*last = *r
	}
	r.stage, r.wait = modelRevokeWaits, 0
	if x.phase != modelLiving && x.phase != modelEnding || x.inc != r.inc {
		return m.revokeDone(w, i) // that incarnation's process is gone
	}
	p := x.proposer()
	var a modelClaimAnswer
	p.revoking(modelClient, func(inflight uint64) {
		a = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimRevoke, epoch: r.epoch, inflight: uint8(inflight)})
		if v := x.vacated(); !r.kick && m.without != ruleLeaveRow {
			if m.without == ruleVacateRaises {
				clear(v.ids)
			}
			v.add(modelClient, wire.Epoch(r.epoch), 0)
			x.vacant = uint8(v.ids[modelClient].epoch)
		}
	})
	if !x.keep(p) {
		return false
	}
	x.claim = a.id
	if m.without != ruleFenceBeforeAnswer {
		r.wait = a.wait
	}
	for s := sid(1); s <= modelSessions; s++ {
		if a.close&modelSetOf(s) != 0 {
			m.close(w, s)
		}
	}
	return true
}

// reask: the asker has waited long enough for this answer, and the handler's context ends. It asks again if it is still
// there.
func (m *model) reask(w *modelWorld, i uint8) bool {
	r := &w.revokes[i]
	if w.left.reasks == 0 || r.stage != modelRevokeWaits {
		return false
	}
	w.left.reasks--
	r.stage, r.wait = modelRevokeAsked, 0
	if i == modelSessions || w.sess[i].stage != modelFencing || w.sess[i].gate != modelInside {
		*r = modelRevokeState{}
	}
	return true
}

// revokeDone: what the handler waits for is fenced; it unregisters and answers.
func (m *model) revokeDone(w *modelWorld, i uint8) bool {
	r := &w.revokes[i]
	if r.stage != modelRevokeWaits || !m.allJoined(w, r.wait) {
		return false
	}
	x := &w.nodes[r.node]
	if x.phase == modelLiving && x.inc == r.inc && (r.kick || m.without == ruleLeaveRow) && !x.add(r.epoch) {
		return false
	}
	r.stage, r.wait = modelRevokeAnswered, 0
	if i == modelSessions || w.sess[i].stage != modelFencing || w.sess[i].gate != modelInside {
		*r = modelRevokeState{}
	}
	return true
}

// fenced: Node.fence returns, by the holder's answer or by the end of its incarnation, and the session registers again.
func (m *model) fenced(w *modelWorld, i uint8) bool {
	if i == modelSessions {
		return false
	}
	z, n, r := &w.sess[i], m.cfg.place[i], w.revokes[i]
	x := &w.nodes[n]
	if z.stage != modelFencing || z.gate != modelInside || x.phase != modelLiving || r.stage == modelNoRevoke {
		return false
	}
	h := m.applied(w, n).nodes[r.node]
	if r.stage != modelRevokeAnswered && !h.removed && h.inc <= r.inc && (h.inc != r.inc || h.live) {
		return false
	}
	z.stage = modelRegistering
	w.revokes[i] = modelRevokeState{}
	return x.add(modelRegisterOp(sid(i+1), r.epoch))
}

// kick is a Revoke with no registration behind it.
func (m *model) kick(w *modelWorld) bool {
	row, last := m.committed(w).row, &w.revokes[modelSessions]
	if w.left.kicks == 0 || last.stage != modelNoRevoke || !row.live {
		return false
	}
	w.left.kicks--
	*last = modelRevokeState{stage: modelRevokeAsked, node: row.node, inc: row.inc, epoch: row.epoch, kick: true}
	return true
}
