package node

import (
	"slices"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// The steps of incarnations, leaders, leases and clocks, in the order in which life.go, lead.go and confirm.go make them.

func (m *model) lifeSteps(w *modelWorld) (progress bool) {
	try := func(a action, step func(w *modelWorld) bool) bool { return m.try(w, a, step) }
	for n := range uint8(modelNodes) {
		a := func(kind uint8) action { return action{kind, n, 0, 0} }
		must := func(kind uint8, step func(w *modelWorld, n uint8) bool) {
			if try(a(kind), func(w *modelWorld) bool { return step(w, n) }) {
				progress = true
			}
		}
		may := func(kind uint8, step func(w *modelWorld, n uint8) bool) {
			try(a(kind), func(w *modelWorld) bool { return step(w, n) })
		}
		must(actEnd, m.watchEnd)
		must(actOver, m.lifeOver)
		must(actRestart, m.restart)
		must(actUp, m.up)
		may(actCrash, m.crash)
		if m.cfg.deaf&(1<<n) != 0 { // or whoever asks it would wait for ever
			must(actExpireNow, m.expireNow)
		} else if m.cfg.deaf == 0 {
			may(actExpireNow, m.expireNow)
		}
		may(actGiveUp, m.endItself)
		may(actStop, m.stop)
		must(actGone, m.gone)
		may(actDownLate, m.downLate)
		must(actLeaveClose, m.leaveClose)
		may(actRecover, m.recover)
		if m.cfg.raft {
			must(actServe, m.serve)
		}
		if m.cfg.timed {
			may(actTick, m.tick)
			may(actSend, m.sendRenewal)
			may(actRound, m.startRound)
			may(actDecide, m.decide)
			may(actReply, m.takeReply)
			may(actLose, m.giveUpRenewal)
			may(actMark, m.mark)
			may(actExpire, m.proposeExpire)
		}
		for x := range uint8(modelNodes) {
			for _, s := range []struct {
				kind uint8
				step func(w *modelWorld, n, x uint8) bool
			}{{actDown, m.down}, {actDrain, m.drain}, {actLeave, m.leave}, {actRemove, m.remove}} {
				if try(action{s.kind, n, x, 0}, func(w *modelWorld) bool { return s.step(w, n, x) }) && (s.kind == actDown || s.kind == actLeave) {
					progress = true
				}
			}
			if try(action{actProposeUp, n, x, 0}, func(w *modelWorld) bool { return m.proposeUp(w, n, x) }) {
				progress = true
			}
			if !m.cfg.raft {
				continue
			}
			if try(action{actReplicate, n, x, 0}, func(w *modelWorld) bool { return m.replicate(w, n, x) }) {
				progress = true
			}
			try(action{actElect, n, x, 0}, func(w *modelWorld) bool {
				if w.left.elections == 0 || m.cfg.elect != nil && !slices.Contains(m.cfg.elect, [2]uint8{n, x}) {
					return false
				}
				w.left.elections--
				return m.elect(w, n, x)
			})
			if m.cfg.timed {
				try(action{actReceive, n, x, 0}, func(w *modelWorld) bool { return m.receive(w, n, x) })
				try(action{actAsk, n, x, 0}, func(w *modelWorld) bool { return m.ask(w, n, x) })
				try(action{actConfirm, n, x, 0}, func(w *modelWorld) bool { return m.confirm(w, n, x) })
			}
		}
	}
	return progress
}

// watchEnd: the node's own table says that its incarnation is over.
func (m *model) watchEnd(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	t := m.applied(w, n).nodes[n]
	if x.phase != modelLiving || !t.removed && (t.inc == x.inc && t.live || t.inc < x.inc) {
		return false
	}
	m.endLife(w, n)
	return true
}

// endLife is liveOnce after the end of the life's context: the lease is dropped, all sessions are closed.
func (m *model) endLife(w *modelWorld, n uint8) {
	x := &w.nodes[n]
	x.phase = modelEnding
	if m.without != ruleDropLease {
		x.lease = 0
	}
	for s := sid(1); s <= modelSessions; s++ {
		if m.cfg.place[s-1] == n {
			m.close(w, s)
		}
	}
}

// endItself: the life ends for a reason of its own, with the lease still there.
func (m *model) endItself(w *modelWorld, n uint8) bool {
	if w.left.ends == 0 || w.nodes[n].phase != modelLiving || m.cfg.renews&(1<<n) == 0 {
		return false
	}
	w.left.ends--
	m.endLife(w, n)
	return true
}

// lifeOver: all sessions are fenced and all goroutines of the life have ended; the boot counter is raised.
func (m *model) lifeOver(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelEnding || x.told != 0 || x.boot == modelLives {
		return false
	}
	for s := sid(1); s <= modelSessions; s++ {
		z := &w.sess[s-1]
		if m.cfg.place[s-1] != n || z.gate == modelOutside || z.gate == modelGone {
			continue
		}
		if z.gate == modelJoined {
			z.gate = modelGone
		} else if m.without != ruleCloseBeforeBoot {
			return false
		}
	}
	if x.renew.stage != modelNoRenewal {
		m.loseRenewal(w, n)
	}
	if x.stopping != 0 || m.applied(w, n).nodes[n].removed { // no further life
		m.dies(w, n)
		return true
	}
	m.rise(x)
	if m.without != ruleDropLease && m.without != ruleDropLeaseLast {
		x.lease, x.leaseOf = 0, 0
	}
	return true
}

// rise: a process without an incarnation, that proposes its NodeUp.
func (m *model) rise(x *modelNodeState) {
	x.phase, x.inc = modelRising, 0
	x.boot++
	x.vacant, x.due, x.lost, x.stopping, x.leaving = 0, 0, false, 0, 0
	x.seq, x.inflight, x.told, x.refused, x.early, x.claim = 0, false, 0, false, false, 0
	x.ops, x.queue, x.results = [modelBatch]uint8{}, [modelBatch]uint8{}, [modelBatch]modelOpAnswer{}
}

func (m *model) crash(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if w.left.crashes == 0 || x.phase == modelCrashed || !m.cfg.raft && n == m.cfg.leader {
		return false
	}
	w.left.crashes--
	m.dies(w, n)
	return true
}

// dies: the process is gone.
func (m *model) dies(w *modelWorld, n uint8) {
	x := &w.nodes[n]
	m.depose(w, n)
	for s := sid(1); s <= modelSessions; s++ {
		z := &w.sess[s-1]
		if m.cfg.place[s-1] == n && z.gate != modelOutside {
			*z = modelSessState{stage: z.stage, gate: modelGone}
			w.revokes[s-1] = modelRevokeState{}
		}
	}
	for i := range w.revokes {
		if r := &w.revokes[i]; r.stage == modelRevokeWaits && r.node == n {
			r.stage, r.wait = modelRevokeAsked, 0
		}
	}
	m.loseRenewal(w, n)
	*x = modelNodeState{log: x.log, last: x.last, applied: x.applied, term: x.term, boot: x.boot}
	m.setClocks(w)
}

func (m *model) restart(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelCrashed || m.committed(w).nodes[n].removed {
		return false
	}
	m.rise(x)
	m.setClocks(w)
	return true
}

func (m *model) proposeUp(w *modelWorld, n, x uint8) bool {
	c, l := &w.nodes[n], &w.nodes[x]
	if c.phase != modelRising || l.leads == 0 || !l.ready || m.applied(w, x).nodes[n].boot >= c.boot || m.applied(w, x).nodes[n].removed {
		return false
	}
	return m.propose(w, x, modelEntry{kind: raftfsm.KindNodeUp, node: n, boot: c.boot})
}

// up: the NodeUp was answered and applied here; a life begins.
func (m *model) up(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	t := m.applied(w, n).nodes[n]
	if x.phase != modelRising || t.boot != x.boot {
		return false
	}
	x.phase, x.inc = modelLiving, t.inc
	return true
}

// expireNow ends an incarnation in worlds without time.
func (m *model) expireNow(w *modelWorld, n uint8) bool {
	t := m.committed(w).nodes[n]
	if m.cfg.timed || w.left.expiries == 0 || !t.live || w.nodes[m.cfg.leader].leads == 0 {
		return false
	}
	w.left.expiries--
	if x := &w.nodes[n]; x.inc == t.inc {
		x.lost = true
	}
	return m.propose(w, m.cfg.leader, modelEntry{kind: raftfsm.KindNodeExpire, node: n, inc: t.inc, decided: w.nodes[m.cfg.leader].leads})
}

// serve: the barrier of the term was applied; the grantor is made.
func (m *model) serve(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.leads == 0 || x.ready || !m.pastBarrier(w, n) && m.without != ruleBarrier {
		return false
	}
	x.ready = true
	g := m.grantor(x)
	g.observe(modelNow, m.members(m.applied(w, n)))
	m.keepGrants(x, g)
	if m.without == ruleBarrierRenews {
		for i := range x.grants {
			x.grants[i].age = m.oldest()
		}
	}
	return true
}

// tick: a node's clock goes on, no further ahead of the slowest than the settings allow.
func (m *model) tick(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if m.cfg.timed && m.cfg.spread == 0 { // all clocks go alike
		for i := range w.nodes {
			m.advance(w, uint8(i))
		}
		return n == 0
	}
	if !m.cfg.timed || x.phase == modelCrashed || x.clock == m.cfg.spread {
		return false
	}
	x.clock++
	m.advance(w, n)
	m.setClocks(w)
	return true
}

func (m *model) advance(w *modelWorld, n uint8) {
	x := &w.nodes[n]
	x.lease -= min(x.lease, 1)
	for i := range x.grants {
		if g := &x.grants[i]; g.present {
			g.age = min(g.age+1, m.oldest())
		}
	}
	for i := range w.nodes {
		r := &w.nodes[i].renew
		if r.stage != modelNoRenewal && i == int(n) {
			r.sent = min(r.sent+1, m.cfg.length+m.cfg.longer)
		}
		if (r.stage == modelRenewReceived || r.stage == modelRenewConfirmed) && r.leader == n {
			r.received = min(r.received+1, m.oldest())
		}
	}
}

// setClocks measures the clocks of living processes from the slowest one.
func (m *model) setClocks(w *modelWorld) {
	if !m.cfg.timed {
		return
	}
	low := uint8(255)
	for n := range w.nodes {
		if w.nodes[n].phase != modelCrashed {
			low = min(low, w.nodes[n].clock)
		}
	}
	for n := range w.nodes {
		if x := &w.nodes[n]; x.phase != modelCrashed {
			x.clock -= low
		}
	}
}

func (m *model) sendRenewal(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if !m.cfg.timed || m.cfg.renews&(1<<n) == 0 || x.phase != modelLiving || x.renew.stage != modelNoRenewal || w.left.renewals == 0 {
		return false
	}
	w.left.renewals--
	x.renew = modelRenewState{stage: modelRenewSent, inc: x.inc}
	return true
}

// receive: the renewal of n reaches x, which believes to lead; it joins the next round of ConfirmTerm.
func (m *model) receive(w *modelWorld, n, x uint8) bool {
	r, l := &w.nodes[n].renew, &w.nodes[x]
	if r.stage != modelRenewSent || !m.linked(n, x) || l.leads == 0 || !l.ready {
		return false
	}
	r.stage, r.received, r.leader, r.term, r.electedBefore = modelRenewReceived, 0, x, l.leads, w.elected
	switch {
	case m.without == ruleConfirm:
		r.stage = modelRenewConfirmed
	case m.without == ruleNextRound && l.round.on:
		l.round.who |= 1 << n
	default:
		l.next |= 1 << n
	}
	return true
}

func (m *model) startRound(w *modelWorld, x uint8) bool {
	l := &w.nodes[x]
	if l.leads == 0 || !l.ready || l.round.on || l.next == 0 {
		return false
	}
	l.round = modelRoundState{on: true, yes: 1 << x, who: l.next, electedBefore: w.elected}
	l.next = 0
	return true
}

// ask: voter y reads the question of x's round; its answer is on its way.
func (m *model) ask(w *modelWorld, x, y uint8) bool {
	l, v := &w.nodes[x], &w.nodes[y]
	if !l.round.on || !m.linked(x, y) || v.phase == modelCrashed || (l.round.yes|l.round.answers)&(1<<y) != 0 {
		return false
	}
	if !confirms(wire.ConfirmReply{Nonce: 1, Term: uint64(v.term)}, 1, uint64(l.leads)) {
		return false
	}
	l.round.answers |= 1 << y
	return true
}

// confirm: voter y's answer arrives.
func (m *model) confirm(w *modelWorld, x, y uint8) bool {
	l := &w.nodes[x]
	if !l.round.on || l.round.answers&(1<<y) == 0 {
		return false
	}
	l.round.answers &^= 1 << y
	l.round.yes |= 1 << y
	if !isMajority(modelCount(l.round.yes), modelNodes) {
		return true
	}
	if l.round.electedBefore > l.leads {
		m.broken("ConfirmTerm confirmed term %d, though term %d had a leader when the round began", l.leads, l.round.electedBefore)
	}
	for n := range w.nodes {
		if r := &w.nodes[n].renew; l.round.who&(1<<n) != 0 && r.stage == modelRenewReceived && r.leader == x && r.term == l.leads {
			r.stage = modelRenewConfirmed
		}
	}
	l.round = modelRoundState{}
	return true
}

// decide: the leader grants or refuses the renewal of n, which was confirmed.
func (m *model) decide(w *modelWorld, n uint8) bool {
	r := &w.nodes[n].renew
	if r.stage != modelRenewConfirmed {
		return false
	}
	l := &w.nodes[r.leader]
	if l.leads != r.term || !l.ready {
		*r = modelRenewState{}
		return true
	}
	g := m.grantor(l)
	t := m.applied(w, r.leader).nodes[n]
	code := g.renew(modelAgo(r.received), member{node: modelNodeID(n), incarnation: wire.Incarnation(t.inc), live: t.live}, wire.Incarnation(r.inc))
	m.keepGrants(l, g)
	*r = modelRenewState{stage: modelRenewRefused, inc: r.inc, sent: r.sent, electedBefore: r.electedBefore, term: r.term}
	if code == wire.OK {
		r.stage = modelRenewGranted
		if r.electedBefore > r.term {
			m.broken("the leader of term %d granted a lease asked for after term %d had a leader", r.term, r.electedBefore)
		}
	}
	r.electedBefore, r.term = 0, 0
	return true
}

// takeReply: the node hears the leader's answer. The goroutine that renews ends after the life's context does.
func (m *model) takeReply(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	r := x.renew
	if r.stage != modelRenewGranted && r.stage != modelRenewRefused {
		return false
	}
	x.renew = modelRenewState{}
	if r.stage == modelRenewRefused {
		if x.phase == modelLiving {
			m.endLife(w, n)
		}
		return true
	}
	h := m.holder(x)
	sent := modelAgo(r.sent)
	if m.without == ruleFromSendTime {
		sent = modelNow
	}
	atLeader := m.seconds(m.cfg.length)
	if m.without == ruleLeaderLength {
		atLeader = 0
	}
	h.granted(h.until(sent, atLeader))
	if left := uint8(max(0, h.left(modelNow)/time.Second)); left > 0 {
		x.lease, x.leaseOf = left, r.inc
	}
	return true
}

// giveUpRenewal: the asker has waited long enough.
func (m *model) giveUpRenewal(w *modelWorld, n uint8) bool {
	if w.left.losses == 0 {
		return false
	}
	w.left.losses--
	return m.loseRenewal(w, n)
}

// loseRenewal: the asker stops waiting.
func (m *model) loseRenewal(w *modelWorld, n uint8) bool {
	r := &w.nodes[n].renew
	if r.stage == modelNoRenewal {
		return false
	}
	for i := range w.nodes {
		l := &w.nodes[i]
		l.next &^= 1 << n
		l.round.who &^= 1 << n
	}
	*r = modelRenewState{}
	return true
}

// mark is a turn of lead.serve: timers follow the table, and what has run out is marked and to be proposed.
func (m *model) mark(w *modelWorld, x uint8) bool {
	l := &w.nodes[x]
	if !m.cfg.timed || l.leads == 0 || !l.ready {
		return false
	}
	list := m.members(m.applied(w, x))
	g := m.grantor(l)
	g.observe(modelNow, list)
	before := l.grants
	var due []member
	if l.decided == (modelDecision{}) {
		due = g.expired(modelNow, list)
	}
	m.keepGrants(l, g)
	for _, d := range due {
		l.decided = modelDecision{uint8(d.node - 1), uint8(d.incarnation), l.leads}
	}
	if m.without == ruleMarkExpiring {
		for n := range l.grants {
			l.grants[n].expiring = false
		}
	}
	return len(due) > 0 || before != l.grants
}

// proposeExpire: what was decided is put into the log, in whatever term this node leads by then.
func (m *model) proposeExpire(w *modelWorld, x uint8) bool {
	l := &w.nodes[x]
	d := l.decided
	if d == (modelDecision{}) {
		return false
	}
	l.decided = modelDecision{}
	if l.leads != 0 {
		m.propose(w, x, modelEntry{kind: raftfsm.KindNodeExpire, node: d.node, inc: d.inc, decided: d.term})
	}
	return true
}
