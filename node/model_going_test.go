package node

import "imroute/raftfsm"

// The steps of nodes that go for good or for a while, in the order in which node.go, drain.go and recover.go make them.

const modelEverybody = 1<<modelNodes - 1 // a set of nodes

// mayGo: in worlds without Raft the leader stays.
func (m *model) mayGo(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	return x.phase == modelLiving && x.stopping == 0 && x.leaving == 0 && (m.cfg.raft || n != m.cfg.leader)
}

func (m *model) closeAllAt(w *modelWorld, n uint8) {
	for s := sid(1); s <= modelSessions; s++ {
		if m.cfg.place[s-1] == n {
			m.close(w, s)
		}
	}
}

// fencedAt: no session of the node can be written to; gone: life.closed was called for each as well.
func (m *model) fencedAt(w *modelWorld, n uint8, gone bool) bool {
	for s := sid(1); s <= modelSessions; s++ {
		if g := w.sess[s-1].gate; m.cfg.place[s-1] == n && g != modelOutside && g != modelGone && (gone || g != modelJoined) {
			return false
		}
	}
	return true
}

// stop is Node.shutdown up to the closing of the gateway.
func (m *model) stop(w *modelWorld, n uint8) bool {
	if w.left.stops == 0 || !m.mayGo(w, n) {
		return false
	}
	w.left.stops--
	w.nodes[n].stopping = 1
	m.closeAllAt(w, n)
	return true
}

// saysDown: the moment of Node.sayDown.
func (m *model) saysDown(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	return x.phase == modelLiving && x.stopping == 1 && (m.fencedAt(w, n, true) || m.without == ruleDownAfterSessions)
}

// down: NodeDown is proposed; whether it is answered or not, the process ends. Until then it goes on renewing its lease.
func (m *model) down(w *modelWorld, n, x uint8) bool {
	l := &w.nodes[x]
	if !m.saysDown(w, n) || l.leads == 0 || !l.ready {
		return false
	}
	c := &w.nodes[n]
	c.stopping = 2
	return m.propose(w, x, modelEntry{kind: raftfsm.KindNodeDown, node: n, inc: c.inc})
}

// downLate: the process does not wait for its NodeDown any longer, which arrives at some later time.
func (m *model) downLate(w *modelWorld, n uint8) bool {
	if w.left.lates == 0 || w.late != 0 || !m.saysDown(w, n) {
		return false
	}
	w.left.lates--
	w.late = m.logs.intern(modelEntry{kind: raftfsm.KindNodeDown, node: n, inc: w.nodes[n].inc})
	m.dies(w, n)
	return true
}

// gone: the process of a node that was stopped ends.
func (m *model) gone(w *modelWorld, n uint8) bool {
	if w.nodes[n].stopping != 2 {
		return false
	}
	m.dies(w, n)
	return true
}

// drain is Node.leave up to its first CloseAll. The node's own table may be behind, so logins are refused later.
func (m *model) drain(w *modelWorld, n, x uint8) bool {
	l := &w.nodes[x]
	if w.left.leaves == 0 || !m.mayGo(w, n) || l.leads == 0 || !l.ready {
		return false
	}
	w.left.leaves--
	w.nodes[n].leaving = 1
	m.closeAllAt(w, n)
	return m.propose(w, x, modelEntry{kind: raftfsm.KindNodeDrain, node: n})
}

// leaveClose: from here on the node takes no logins.
func (m *model) leaveClose(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if x.phase != modelLiving || x.leaving != 1 {
		return false
	}
	if x.leaving = 2; m.without != ruleLeaveCloses {
		m.closeAllAt(w, n)
	}
	return true
}

// leave is Node.removeSelf.
func (m *model) leave(w *modelWorld, n, x uint8) bool {
	c, l := &w.nodes[n], &w.nodes[x]
	if c.phase != modelLiving || c.leaving != 2 || c.leads != 0 || l.leads == 0 || !l.ready || !m.fencedAt(w, n, false) && m.without != ruleLeaveCloses {
		return false
	}
	c.leaving = 3
	return m.propose(w, x, modelEntry{kind: raftfsm.KindNodeRemove, node: n, by: n + 1})
}

// remove: an operator has a node removed from elsewhere, at whatever time.
func (m *model) remove(w *modelWorld, n, x uint8) bool {
	l := &w.nodes[x]
	if w.left.removes == 0 || l.leads == 0 || !l.ready || n == m.cfg.leader || m.committed(w).nodes[n].removed {
		return false
	}
	w.left.removes--
	return m.propose(w, x, modelEntry{kind: raftfsm.KindNodeRemove, node: n, by: m.cfg.leader + 1})
}

// recover: a majority is lost for good. All processes are stopped, and what goes on is the table of a node that had received
// nothing since the start; its first command begins a new generation.
func (m *model) recover(w *modelWorld, n uint8) bool {
	if w.left.recovers == 0 || m.cfg.raft || n != m.cfg.leader {
		return false
	}
	w.left.recovers--
	for i := range uint8(modelNodes) {
		m.dies(w, i)
	}
	w.base, w.late, w.revokes = m.first, 0, [modelSessions + 1]modelRevokeState{}
	l := &w.nodes[n]
	l.leads, l.ready = l.term, true
	return m.without == ruleGeneration || m.propose(w, n, modelEntry{kind: raftfsm.KindRecover, seq: 1})
}
