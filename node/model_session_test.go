package node

import "imroute/raftfsm"

// The steps of sessions, batches and takeovers, in the order in which life.go, proposer.go and takeover.go make them.

// sessionSteps emits what can happen next; it reports whether any of it happens by itself.
func (m *model) sessionSteps(w *world) (progress bool) {
	try := func(a action, step func(w *world) bool) bool { return m.try(w, a, step) }
	must := func(a action, step func(w *world) bool) {
		if try(a, step) {
			progress = true
		}
	}
	for s := sid(1); s <= modelSessions; s++ {
		a := func(kind uint8) action { return action{kind, uint8(s), m.cfg.place[s-1], 0} }
		try(a(actLogin), func(w *world) bool { return m.login(w, s) })
		try(a(actDisconnect), func(w *world) bool { return m.disconnect(w, s) })
		must(a(actJoin), func(w *world) bool { return m.join(w, s) })
		must(a(actClosed), func(w *world) bool { return m.closed(w, s) })
	}
	for i := range uint8(len(w.revokes)) {
		r := &w.revokes[i]
		a := func(kind uint8) action { return action{kind, i + 1, r.node, r.epoch} }
		must(a(actRevoke), func(w *world) bool { return m.revoke(w, i, false) })
		try(a(actRevokeLater), func(w *world) bool { return m.revoke(w, i, true) })
		try(a(actReask), func(w *world) bool { return m.reask(w, i) })
		must(a(actRevokeDone), func(w *world) bool { return m.revokeDone(w, i) })
		must(a(actFenced), func(w *world) bool { return m.fenced(w, i) })
	}
	try(action{kind: actKick}, m.kick)
	for n := range uint8(modelNodes) {
		a := func(kind uint8) action { return action{kind, n, 0, 0} }
		must(a(actTake), func(w *world) bool { return m.take(w, n) })
		must(a(actAnswer), func(w *world) bool { return m.answer(w, n) })
		must(a(actTell), func(w *world) bool { return m.tell(w, n) })
		for x := range uint8(modelNodes) {
			must(action{actPropose, n, x, 0}, func(w *world) bool { return m.proposeBatch(w, n, x) })
		}
		try(a(actCopy), func(w *world) bool { return m.copyBatch(w, n) })
		try(action{actLate, n, 0, 0}, func(w *world) bool { return m.lateArrives(w, n) })
	}
	return progress
}

func (m *model) login(w *world, s sid) bool {
	z, n := &w.sess[s-1], m.cfg.place[s-1]
	x := &w.nodes[n]
	if z.stage != absent || m.cfg.only != 0 && m.cfg.only&setOf(s) == 0 || x.phase != living || !m.holds(w, n) {
		return false
	}
	if s == 2 && w.sess[0].stage == absent { // attempts of one instance come in order
		return false
	}
	*z = sessState{stage: registering, gate: inside, inc: x.inc}
	x.claim = m.book.do(claimCall{id: x.claim, fn: claimBegin, s: s}).id
	return x.add(registerOp(s, 0))
}

// close is Session.Close.
func (m *model) close(w *world, s sid) {
	z := &w.sess[s-1]
	if z.gate != inside {
		return
	}
	z.gate = closing
	if r := &w.revokes[s-1]; r.stage == revokeAsked {
		*r = revokeState{}
	}
	if m.without == ruleUnregisterAfterFence {
		m.unregisterEnded(w, s)
	}
}

func (m *model) disconnect(w *world, s sid) bool {
	if w.left.disconnects == 0 || w.sess[s-1].gate != inside {
		return false
	}
	w.left.disconnects--
	m.close(w, s)
	return true
}

// join: the writer ends, Fenced is closed.
func (m *model) join(w *world, s sid) bool {
	z := &w.sess[s-1]
	if z.gate != closing {
		return false
	}
	z.gate = joined
	return true
}

// closed is life.closed.
func (m *model) closed(w *world, s sid) bool {
	z := &w.sess[s-1]
	if z.gate != joined {
		return false
	}
	z.gate = gone
	return m.unregisterEnded(w, s)
}

func (m *model) unregisterEnded(w *world, s sid) bool {
	x := &w.nodes[m.cfg.place[s-1]]
	if x.inc != w.sess[s-1].inc || x.phase != living && x.phase != ending {
		return true // that life is over
	}
	a := m.book.do(claimCall{id: x.claim, fn: claimEnded, s: s})
	x.claim = a.id
	return a.epoch == 0 || x.add(a.epoch)
}

func (m *model) take(w *world, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != living || x.inflight && !x.early || x.queue[0] == 0 {
		return false
	}
	if x.early { // the sessions of the former batch are still to be told
		return false
	}
	return x.takeBatch()
}

func (x *nodeState) batch(n uint8) entry {
	return entry{kind: raftfsm.KindBatch, node: n, inc: x.inc, seq: x.seq, ops: x.ops}
}

// proposeBatch: an attempt of the proposer reaches x, which believes to lead and is past its barrier.
func (m *model) proposeBatch(w *world, n, x uint8) bool {
	c, l := &w.nodes[n], &w.nodes[x]
	if c.phase != living || !c.inflight || c.told != 0 || l.leads == 0 || !l.ready {
		return false
	}
	if t := m.applied(w, x); t.nodes[n].inc > c.inc || t.nodes[n].inc == c.inc && (t.nodes[n].seq >= c.seq || !t.nodes[n].live) {
		return false // a copy changes nothing
	}
	return m.propose(w, x, c.batch(n))
}

// copyBatch: a copy of the batch stays on its way for longer than anybody waits.
func (m *model) copyBatch(w *world, n uint8) bool {
	c := &w.nodes[n]
	if w.left.lates == 0 || w.late != 0 || c.phase != living || !c.inflight || c.told != 0 {
		return false
	}
	w.left.lates--
	w.late = m.logs.intern(c.batch(n))
	return true
}

func (m *model) lateArrives(w *world, x uint8) bool {
	if w.late == 0 || w.nodes[x].leads == 0 || !w.nodes[x].ready {
		return false
	}
	e := m.logs.entries[w.late]
	w.late = 0
	return m.propose(w, x, e)
}

// answer: the state machine's answer to the batch comes back.
func (m *model) answer(w *world, n uint8) bool {
	x := &w.nodes[n]
	t := m.committed(w)
	if x.phase != living && x.phase != ending || !x.inflight || x.told != 0 || t.nodes[n].inc != x.inc || t.nodes[n].seq != x.seq {
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
func (m *model) forget(x *nodeState) {
	if x.refused {
		x.refused = false
		x.claim = m.book.do(claimCall{id: x.claim, fn: claimForget, inflight: x.seq}).id
	}
}

// tell makes the next step of life.answered: each registration is learnt in op order, then each is told.
func (m *model) tell(w *world, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != living && x.phase != ending || x.told == 0 {
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
	x.inflight, x.early, x.told, x.ops, x.results = false, false, 0, [modelBatch]uint8{}, [modelBatch]opAnswer{}
	return true
}

func (m *model) learn(w *world, x *nodeState, i uint8) {
	r := &x.results[i]
	if !isRegister(x.ops[i]) || raftfsm.OpCode(r.code) != raftfsm.OpOK {
		return
	}
	s := opSession(x.ops[i])
	a := m.book.do(claimCall{id: x.claim, fn: claimLearn, s: s, epoch: r.epoch})
	x.claim, r.open, r.close = a.id, a.open, a.wait
	for c := sid(1); c <= modelSessions; c++ {
		if a.close&setOf(c) != 0 {
			m.close(w, c)
		}
	}
	if !a.open {
		m.close(w, s)
	}
}

func (m *model) allJoined(w *world, set uint8) bool {
	for s := sid(1); s <= modelSessions; s++ {
		if g := w.sess[s-1].gate; set&setOf(s) != 0 && (g == inside || g == closing) {
			return false
		}
	}
	return true
}

func (m *model) tellOne(w *world, x *nodeState, i uint8) bool {
	r := &x.results[i]
	if !isRegister(x.ops[i]) {
		return true
	}
	s := opSession(x.ops[i])
	z := &w.sess[s-1]
	switch raftfsm.OpCode(r.code) {
	case raftfsm.OpOK:
		if !m.allJoined(w, r.close) && m.without != ruleFenceBeforeOpen {
			return false
		}
		if r.open {
			if z.gate == inside {
				z.stage, z.opened, z.epoch = welcomed, true, r.epoch
			}
			return true
		}
		if !m.allJoined(w, setOf(s)) {
			return false
		}
		return m.without == ruleUnregisterUnwanted || x.add(r.epoch)
	case raftfsm.OpHeld:
		if z.gate == inside {
			z.stage = fencing
			w.revokes[s-1] = revokeState{stage: revokeAsked, node: r.node, inc: r.inc, epoch: r.epoch}
		}
	default:
		if z.gate == inside {
			z.stage = turnedAway
			m.close(w, s)
		}
	}
	return true
}

// revoke: the holder begins to handle a Revoke; later: another copy of it is still on its way.
func (m *model) revoke(w *world, i uint8, later bool) bool {
	r := &w.revokes[i]
	x := &w.nodes[r.node]
	last := &w.revokes[modelSessions]
	if r.stage != revokeAsked || m.cfg.noRevoke || x.phase == crashed {
		return false
	}
	if later {
		if w.left.lateRevokes == 0 || last.stage != noRevoke {
			return false
		}
		w.left.lateRevokes--
		*last = *r
	}
	r.stage, r.wait = revokeWaits, 0
	if x.phase != living && x.phase != ending || x.inc != r.inc {
		return m.revokeDone(w, i) // that incarnation's process is gone
	}
	p := x.proposer()
	var a claimAnswer
	p.revoking(modelClient, func(inflight uint64) {
		a = m.book.do(claimCall{id: x.claim, fn: claimRevoke, epoch: r.epoch, inflight: uint8(inflight)})
	})
	if !x.keep(p) {
		return false
	}
	x.claim = a.id
	if m.without != ruleFenceBeforeAnswer {
		r.wait = a.wait
	}
	for s := sid(1); s <= modelSessions; s++ {
		if a.close&setOf(s) != 0 {
			m.close(w, s)
		}
	}
	return true
}

// reask: the asker has waited long enough for this answer, and the handler's context ends. It asks again if it is still
// there.
func (m *model) reask(w *world, i uint8) bool {
	r := &w.revokes[i]
	if w.left.reasks == 0 || r.stage != revokeWaits {
		return false
	}
	w.left.reasks--
	r.stage, r.wait = revokeAsked, 0
	if i == modelSessions || w.sess[i].stage != fencing || w.sess[i].gate != inside {
		*r = revokeState{}
	}
	return true
}

// revokeDone: what the handler waits for is fenced; it unregisters and answers.
func (m *model) revokeDone(w *world, i uint8) bool {
	r := &w.revokes[i]
	if r.stage != revokeWaits || !m.allJoined(w, r.wait) {
		return false
	}
	x := &w.nodes[r.node]
	if x.phase == living && x.inc == r.inc && !x.add(r.epoch) {
		return false
	}
	r.stage, r.wait = revokeAnswered, 0
	if i == modelSessions || w.sess[i].stage != fencing || w.sess[i].gate != inside {
		*r = revokeState{}
	}
	return true
}

// fenced: Node.fence returns, by the holder's answer or by the end of its incarnation, and the session registers again.
func (m *model) fenced(w *world, i uint8) bool {
	if i == modelSessions {
		return false
	}
	z, n, r := &w.sess[i], m.cfg.place[i], w.revokes[i]
	x := &w.nodes[n]
	if z.stage != fencing || z.gate != inside || x.phase != living || r.stage == noRevoke {
		return false
	}
	h := m.applied(w, n).nodes[r.node]
	if r.stage != revokeAnswered && h.inc <= r.inc && (h.inc != r.inc || h.live) {
		return false
	}
	z.stage = registering
	w.revokes[i] = revokeState{}
	return x.add(registerOp(sid(i+1), r.epoch))
}

// kick is a Revoke with no registration behind it.
func (m *model) kick(w *world) bool {
	row, last := m.committed(w).row, &w.revokes[modelSessions]
	if w.left.kicks == 0 || last.stage != noRevoke || !row.live {
		return false
	}
	w.left.kicks--
	*last = revokeState{stage: revokeAsked, node: row.node, inc: row.inc, epoch: row.epoch}
	return true
}
