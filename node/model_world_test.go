package node

import (
	"fmt"
	"math/bits"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// The protocol of leases, terms and takeovers as an explicit-state model. What is decided is decided by the program's own
// functions (claims, proposer, leaseHolder, grantor, confirms, isMajority, raftfsm.Table); the model adds what surrounds
// them: the order in which life.go, takeover.go and lead.go call them, a Raft whose elections and replications are single
// steps, messages that arrive late, twice or never, clocks that drift, and one crash.

const (
	modelNodes    = 3
	modelSessions = 3
	modelWindow   = 6 // entries that some node has not applied yet, at most
	modelBatch    = 4 // operations of a batch, at most
	modelLives    = 3 // incarnations of a node, at most
)

// sid is a session: 1 to 3, 0 for none. Sessions 1 and 2 are attempts of one SDK instance, 3 is another instance.
type sid uint8

var (
	modelClient    = wire.ClientID{ID: "alice"}
	modelSessionID = [...]wire.SessionID{1: {Instance: 1, Attempt: 1}, 2: {Instance: 1, Attempt: 2}, 3: {Instance: 2, Attempt: 1}}
)

// world is one state. It is comparable and holds no pointers: logs are ids of interned entries, tables are ids of
// interned applied prefixes, claims are ids of interned claims. Times are relative to the clock of their node.
type modelWorld struct {
	base     uint16 // the table that every node has applied
	late     uint16 // a command that is still on its way though nobody waits for it: may enter the log at any time
	baseTerm uint8  // of the last entry in base
	elected  uint8  // the highest term that ever had a leader
	nodes    [modelNodes]modelNodeState
	sess     [modelSessions]modelSessState
	revokes  [modelSessions + 1]modelRevokeState // by the session that asks; the last one: a kick, or a copy that comes late
	left     modelBudget

	owned     bool  // the client had a row
	delivered uint8 // the highest epoch under which somebody could be delivered to
}

// budget is what the world may still do to the nodes.
type modelBudget struct{ crashes, elections, lates, lateRevokes, disconnects, expiries, kicks, reasks, renewals, losses, ends, stops, leaves, removes, recovers uint8 }

type modelNodeState struct {
	// Raft
	log           [modelWindow]uint16 // entries after base
	last, applied uint8               // how many of them it has, and has applied
	term, leads   uint8               // leads: the term that it believes to lead; 0: none
	ready         bool                // its barrier was applied and its grantor made
	grants        [modelNodes]modelGrantState
	round         modelRoundState
	next          uint8 // renewals that wait for the next round, as a set of nodes
	decided       modelDecision
	phase         modelPhase
	boot, inc     uint8
	seq           uint8 // of the last batch taken
	inflight      bool
	ops, queue    [modelBatch]uint8
	results       [modelBatch]modelOpAnswer
	told          uint8 // steps of life.answered that were done, plus one; 0: no answer yet
	refused       bool  // proposer.refused names the client
	claim         uint16
	lease         uint8 // how long it still holds
	leaseOf       uint8 // the incarnation that it was granted to
	renew         modelRenewState
	clock         uint8 // ahead of the slowest
	vacant, due   uint8 // life.vacated: the epoch whose row is left to somebody, and the same as vacate found it due
	lost          bool  // in worlds without time: its incarnation was expired, so its lease is over
	stopping      uint8 // Node.shutdown: 1 sessions are being closed, 2 NodeDown was proposed
	leaving       uint8 // Node.leave: 1 drained, 2 takes no logins any more, 3 its removal was proposed
	early         bool  // (a rule taken away:) the batch counts as answered before its sessions were told
}

type modelPhase uint8

const (
	modelCrashed modelPhase = iota
	modelRising             // proposing NodeUp with boot
	modelLiving             // liveOnce waits for the end of the life
	modelEnding             // from the end of the life's context to the close of its last session
)

type modelGrantState struct {
	inc, age          uint8
	expiring, present bool
}

// decision is a NodeExpire that was decided and not proposed yet.
type modelDecision struct{ node, inc, term uint8 }

type modelRoundState struct {
	on            bool
	yes, who      uint8 // sets of nodes: that confirmed, whose renewals wait
	answers       uint8 // whose yes is on its way
	electedBefore uint8
}

type modelRenewState struct {
	stage          modelRenewStage
	inc            uint8
	sent, received uint8 // ago, by the clocks of the node and of the leader
	leader, term   uint8
	electedBefore  uint8 // when it was received
	_              uint8
}

type modelRenewStage uint8

const (
	modelNoRenewal modelRenewStage = iota
	modelRenewSent
	modelRenewReceived
	modelRenewConfirmed
	modelRenewGranted
	modelRenewRefused
)

// opAnswer is the state machine's answer to one operation and what claims.learn made of it.
type modelOpAnswer struct {
	code, epoch, node, inc uint8
	open                   bool
	close                  uint8 // set of sessions
}

type modelSessState struct {
	stage  modelStage
	gate   modelGate
	opened bool // Session.Open came before Close: its writer may write messages
	inc    uint8
	epoch  uint8 // under which it was opened
}

// stage is how far Login has come.
type modelStage uint8

const (
	modelAbsent modelStage = iota
	modelRegistering
	modelFencing
	modelWelcomed
	modelTurnedAway // told why
)

// gate is the gateway's side of a session.
type modelGate uint8

const (
	modelOutside modelGate = iota
	modelInside
	modelClosing // Close was called, the writer may still be writing
	modelJoined  // Fenced is closed
	modelGone    // Backend.Closed was called
)

type modelRevokeState struct {
	stage            modelRevokeStage
	node, inc, epoch uint8
	wait             uint8 // set of sessions that the handler waits for
	kick             bool  // nobody is about to register
}

type modelRevokeStage uint8

const (
	modelNoRevoke modelRevokeStage = iota
	modelRevokeAsked
	modelRevokeWaits
	modelRevokeAnswered
)

// settings of one exploration: how far the world goes, and which rule is taken away.
type modelConfig struct {
	name       string
	place      [modelSessions]uint8 // the node of each session
	registered bool                 // session 1 is open at the start
	only       uint8                // sessions that take part, as a set; 0: all
	leader     uint8
	elect      [][2]uint8 // who may be elected by whose vote; nil: anybody by anybody's
	cut        uint8      // two nodes that cannot reach each other, as a set
	timed      bool       // leases and clocks; otherwise a node holds a lease exactly while its incarnation lives
	raft       bool       // elections, replication; otherwise an entry is applied everywhere as it is proposed
	deaf       uint8      // holders that no Revoke reaches, as a set
	moves      bool       // whoever takes a client over registers in time: the client is never without a row
	slow       bool       // something may come between vacate's finding what is due and its acting on it
	reject     bool       // a second login is refused
	longer     uint8      // a holder's own lease is longer than the leader's
	renews     uint8      // nodes whose leases are followed, as a set
	length     uint8
	margin     uint8
	spread     uint8 // clocks are never further apart
	budget     modelBudget
	begin      []action // steps that are made first, so that what needs many of them is found among few
	limit      int      // states
}

// model explores one configuration under one set of rules.
type model struct {
	cfg     modelConfig
	without modelRule
	book    *modelClaimBook
	first   uint16 // the table at the start
	logs    *modelLogBook

	emit      func(by action, next *modelWorld) // next is the model's own and valid during the call
	scratch   modelWorld
	violation string
}

// try makes a step in a copy of the state and emits it if it can happen.
func (m *model) try(w *modelWorld, by action, step func(w *modelWorld) bool) bool {
	m.scratch = *w
	ok := step(&m.scratch)
	if ok {
		m.emit(by, &m.scratch)
	}
	return ok
}

// action names a step, for the trace.
type action struct{ kind, a, b, c uint8 }

func (m *model) broken(format string, args ...any) {
	if m.violation == "" {
		m.violation = fmt.Sprintf(format, args...)
	}
}

func (m *model) start() modelWorld {
	var w modelWorld
	w.left = m.cfg.budget
	w.elected = 1
	path := []modelEntry{{kind: raftfsm.KindInit, reject: m.cfg.reject}}
	for n := range uint8(modelNodes) {
		path = append(path, modelEntry{kind: raftfsm.KindNodeJoin, node: n}, modelEntry{kind: raftfsm.KindNodeUp, node: n, boot: 1, term: 1})
	}
	w.baseTerm = 1
	for n := range w.nodes {
		x := &w.nodes[n]
		x.term, x.phase, x.boot, x.inc = 1, modelLiving, 1, 1
		if m.cfg.timed {
			x.lease, x.leaseOf = m.cfg.length-m.cfg.margin, 1
		}
	}
	l := &w.nodes[m.cfg.leader]
	l.leads, l.ready = 1, true
	for n := range l.grants {
		if m.cfg.renews&(1<<n) != 0 {
			l.grants[n] = modelGrantState{inc: 1, present: true}
		}
	}
	if m.cfg.registered {
		at := m.cfg.place[0]
		path = append(path, modelEntry{kind: raftfsm.KindBatch, node: at, inc: 1, seq: 1, term: 1, ops: [modelBatch]uint8{modelRegisterOp(1, 0)}})
		x := &w.nodes[at]
		x.seq = 1
		x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimBegin, s: 1}).id
		x.claim = m.book.do(modelClaimCall{id: x.claim, fn: modelClaimLearn, s: 1, epoch: 1}).id
		w.sess[0] = modelSessState{stage: modelWelcomed, gate: modelInside, opened: true, inc: 1, epoch: 1}
	}
	for _, e := range path {
		w.base = m.logs.apply(w.base, m.logs.intern(e))
	}
	m.first = w.base
	w.delivered = m.highestDelivered(&w)
	return w
}

// holds: the node has a lease now.
func (m *model) holds(w *modelWorld, n uint8) bool {
	x := &w.nodes[n]
	if m.cfg.timed {
		h := m.holder(x)
		return h.holds(modelNow)
	}
	return x.phase == modelLiving && !x.lost
}

// mayBeDeliveredTo: the session's writer may write a message now.
func (m *model) mayBeDeliveredTo(w *modelWorld, s sid) bool {
	z := &w.sess[s-1]
	return z.opened && (z.gate == modelInside || z.gate == modelClosing) && w.nodes[m.cfg.place[s-1]].phase != modelCrashed && m.holds(w, m.cfg.place[s-1])
}

func (m *model) highestDelivered(w *modelWorld) (epoch uint8) {
	for s := sid(1); s <= modelSessions; s++ {
		if m.mayBeDeliveredTo(w, s) {
			epoch = max(epoch, w.sess[s-1].epoch)
		}
	}
	return epoch
}

// check is what must hold in every state.
func (m *model) check(w *modelWorld) {
	t := m.committed(w)
	if t.wrong != "" {
		m.broken("%s", t.wrong)
	}
	if m.cfg.moves && w.owned && !t.row.live {
		m.broken("a client that only moves is without a route")
	}
	w.owned = w.owned || t.row.live
	var who sid
	for s := sid(1); s <= modelSessions; s++ {
		if !m.mayBeDeliveredTo(w, s) {
			continue
		}
		z, n := &w.sess[s-1], m.cfg.place[s-1]
		if who != 0 {
			m.broken("G2: sessions %d and %d may be delivered to at the same time", who, s)
		}
		who = s
		switch {
		case !t.row.live:
			m.broken("session %d may be delivered to under epoch %d, but nobody owns the client in the table", s, z.epoch)
		case t.row.node != n || t.row.inc != z.inc:
			m.broken("session %d may be delivered to under epoch %d, but the table passed the client on to %s at epoch %d", s, z.epoch, modelNodeName(t.row.node), t.row.epoch)
		case t.row.epoch < z.epoch:
			m.broken("session %d may be delivered to under epoch %d, but the table says %d", s, z.epoch, t.row.epoch)
		}
		if z.epoch < w.delivered {
			m.broken("epochs go backwards: session %d may be delivered to under %d after %d", s, z.epoch, w.delivered)
		}
	}
	w.delivered = max(w.delivered, m.highestDelivered(w))
	if m.cfg.timed {
		for n := range w.nodes {
			x := &w.nodes[n]
			switch {
			case x.lease == 0 || x.phase != modelLiving:
			case x.leaseOf != x.inc:
				m.broken("%s lives in incarnation %d with a lease that was granted to incarnation %d", modelNodeName(uint8(n)), x.inc, x.leaseOf)
			case t.nodes[n].inc != x.inc || !t.nodes[n].live:
				m.broken("%s holds a lease of incarnation %d, which has ended in the table", modelNodeName(uint8(n)), x.inc)
			}
		}
	}
}

// checkRest is what must hold when nothing is under way any more: nobody is left waiting, and rows and sessions agree.
func (m *model) checkRest(w *modelWorld) {
	t := m.committed(w)
	owner := sid(0)
	for s := sid(1); s <= modelSessions; s++ {
		z, n := &w.sess[s-1], m.cfg.place[s-1]
		switch {
		case z.gate == modelOutside || z.gate == modelGone:
		case z.gate != modelInside:
			m.broken("stuck: session %d never ends closing", s)
		case z.stage != modelWelcomed:
			m.broken("stuck: session %d is connected and waits for its registration for ever", s)
		case !t.row.live || t.row.node != n || t.row.inc != z.inc || t.row.epoch != z.epoch:
			m.broken("stuck: session %d was welcomed under epoch %d and is connected, but the table does not name it", s, z.epoch)
		case !m.book.finds(w.nodes[n].claim, s, z.epoch):
			m.broken("stuck: session %d is connected under epoch %d, but its node does not find it", s, z.epoch)
		default:
			owner = s
		}
	}
	if t.row.live && owner == 0 && w.nodes[t.row.node].phase == modelLiving && w.nodes[t.row.node].inc == t.row.inc {
		m.broken("stuck: the table names %s at epoch %d for ever, but no session is there", modelNodeName(t.row.node), t.row.epoch)
	}
}

func modelNodeName(n uint8) string { return string(rune('A' + n)) }

func modelSetOf(s sid) uint8 { return 1 << s }

func modelCount(set uint8) int { return bits.OnesCount8(set) }
