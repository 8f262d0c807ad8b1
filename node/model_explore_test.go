package node

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
)

// finding is the outcome of an exploration.
type modelFinding struct {
	states    int
	depth     int
	complete  bool // every state within the bounds was seen
	violation string
	trace     []action
}

var modelSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// fingerprint stands for a state: of a million states two agree with a probability of 10⁻²⁶.
func modelFingerprint(w *modelWorld) [2]uint64 {
	return [2]uint64{maphash.Comparable(modelSeeds[0], *w), maphash.Comparable(modelSeeds[1], *w)}
}

func newModel(cfg modelConfig, without modelRule) *model {
	return &model{cfg: cfg, without: without, book: modelNewClaimBook(without), logs: modelNewLogBook(without, cfg.reject)}
}

// begin is the start, or where the steps of the configuration lead from there.
func (m *model) begin() modelWorld {
	w := m.start()
	for i, a := range m.cfg.begin {
		found, next := false, w
		m.emit = func(by action, reached *modelWorld) {
			if by == a {
				found, next = true, *reached
			}
		}
		m.sessionSteps(&w)
		m.lifeSteps(&w)
		if !found {
			panic(fmt.Sprintf("step %d cannot be made: %s", i+1, a))
		}
		w = next
		m.check(&w)
	}
	return w
}

// explore visits the states of a configuration breadth first, so that the first violation found has the shortest trace.
func modelExplore(cfg modelConfig, without modelRule) modelFinding {
	m := newModel(cfg, without)
	type reached struct {
		w  modelWorld
		id uint32
	}
	type origin struct {
		from uint32
		by   action
	}
	first := m.begin()
	seen := map[[2]uint64]struct{}{modelFingerprint(&first): {}}
	origins := []origin{{}}
	layer := []reached{{first, 0}}
	f := modelFinding{}
	var next []reached
	var from uint32
	m.emit = func(by action, w *modelWorld) {
		if f.violation != "" {
			return
		}
		m.check(w)
		h := modelFingerprint(w)
		if _, ok := seen[h]; ok && m.violation == "" {
			return
		}
		seen[h] = struct{}{}
		origins = append(origins, origin{from, by})
		f.violation = m.violation
		next = append(next, reached{*w, uint32(len(origins) - 1)})
	}
	last := uint32(0)
	for len(layer) > 0 && f.violation == "" && len(origins) < cfg.limit {
		next = nil
		for i := range layer {
			from, last = layer[i].id, layer[i].id
			w := &layer[i].w
			progress := m.sessionSteps(w)
			progress = m.lifeSteps(w) || progress
			if f.violation != "" {
				last = uint32(len(origins) - 1)
				break
			}
			if !progress && !cfg.timed && !cfg.raft { // what waits for an election or a clock is not stuck
				if m.checkRest(w); m.violation != "" {
					f.violation = m.violation
					break
				}
			}
		}
		layer = next
		f.depth++
	}
	f.states, f.complete = len(origins), len(layer) == 0
	if f.violation != "" {
		for ; last != 0; last = origins[last].from {
			f.trace = append([]action{origins[last].by}, f.trace...)
		}
		f.trace = append(slices.Clone(cfg.begin), f.trace...)
	}
	return f
}

// walk follows one random way from the start for so many steps. It sees less than explore does, but from further away.
func (m *model) walk(seed uint64, steps int) (f modelFinding) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := m.start()
	for f.depth < steps && f.violation == "" {
		n := 0
		var chosen modelWorld
		var by action
		m.emit = func(a action, next *modelWorld) {
			if n++; rng.IntN(n) == 0 {
				chosen, by = *next, a
			}
		}
		progress := m.sessionSteps(&w)
		progress = m.lifeSteps(&w) || progress
		if !progress && !m.cfg.timed && !m.cfg.raft {
			m.checkRest(&w)
		}
		if f.violation = m.violation; f.violation != "" || n == 0 {
			break
		}
		w = chosen
		m.check(&w)
		f.depth++
		f.trace = append(f.trace, by)
		f.violation = m.violation
	}
	f.states = f.depth
	return f
}

// story is the trace in words.
func (f modelFinding) story() string {
	var b strings.Builder
	for i, a := range f.trace {
		fmt.Fprintf(&b, "\n%3d  %s", i+1, a)
	}
	return b.String()
}

func (a action) String() string {
	n, x := modelNodeName(a.a), modelNodeName(a.b)
	asker := fmt.Sprintf("session %d's Revoke of epoch %d", a.a, a.c)
	if a.a == modelSessions+1 {
		asker = fmt.Sprintf("the late or kicking Revoke of epoch %d", a.c)
	}
	switch a.kind {
	case actLogin:
		return fmt.Sprintf("session %d logs in at %s", a.a, x)
	case actDisconnect:
		return fmt.Sprintf("session %d loses its connection; its writer may still be writing", a.a)
	case actJoin:
		return fmt.Sprintf("session %d is fenced", a.a)
	case actClosed:
		return fmt.Sprintf("%s hears that session %d is closed", x, a.a)
	case actRevoke:
		return fmt.Sprintf("%s begins to handle %s", x, asker)
	case actRevokeLater:
		return fmt.Sprintf("%s begins to handle %s, and a copy of it is still on its way", x, asker)
	case actReask:
		return fmt.Sprintf("%s was not answered in time and is sent again", asker)
	case actRevokeDone:
		return fmt.Sprintf("%s answers %s", x, asker)
	case actFenced:
		return fmt.Sprintf("session %d registers again, with epoch %d as fenced", a.a, a.c)
	case actKick:
		return "an operator kicks the client"
	case actTake:
		return n + " puts its next batch in flight"
	case actAnswer:
		return n + " hears the answer to its batch"
	case actTell:
		return n + " goes on telling the sessions of its batch"
	case actPropose:
		return fmt.Sprintf("%s's batch enters the log of %s", n, x)
	case actCopy:
		return fmt.Sprintf("a copy of %s's batch is delayed", n)
	case actLate:
		return "the delayed copy enters the log of " + n
	case actEnd:
		return n + " sees in its table that its incarnation ended"
	case actOver:
		return n + " has closed its sessions and raises its boot counter"
	case actRestart:
		return n + " is started again"
	case actUp:
		return n + " begins a new incarnation"
	case actCrash:
		return n + " crashes"
	case actExpireNow:
		return n + "'s incarnation is expired"
	case actServe:
		return n + " serves its term"
	case actTick:
		return n + "'s clock goes on"
	case actSend:
		return n + " sends a renewal"
	case actRound:
		return n + " begins a round of ConfirmTerm"
	case actDecide:
		return fmt.Sprintf("the leader decides on %s's renewal", n)
	case actReply:
		return n + " hears the answer to its renewal"
	case actLose:
		return n + "'s renewal is lost"
	case actMark:
		return n + " looks at its timers"
	case actExpire:
		return n + " proposes the NodeExpire that it decided on"
	case actProposeUp:
		return fmt.Sprintf("%s's NodeUp enters the log of %s", n, x)
	case actReplicate:
		return fmt.Sprintf("%s replicates its log to %s", n, x)
	case actElect:
		return fmt.Sprintf("%s is elected by %s", n, x)
	case actReceive:
		return fmt.Sprintf("%s's renewal arrives at %s", n, x)
	case actGiveUp:
		return n + "'s life ends for a reason of its own"
	case actDue:
		return n + " finds that the time of a row that it left to somebody is over"
	case actVacate:
		return n + " unregisters the row that it left to somebody, if it is still there"
	case actStop:
		return n + " is stopped in order and closes its sessions"
	case actDown:
		return fmt.Sprintf("%s's NodeDown enters the log of %s", n, x)
	case actDownLate:
		return n + "'s process ends while its NodeDown is still on its way"
	case actGone:
		return n + "'s process ends"
	case actDrain:
		return fmt.Sprintf("%s is told to leave and closes its sessions; its NodeDrain enters the log of %s", n, x)
	case actLeaveClose:
		return n + " takes no more logins and closes the sessions that came meanwhile"
	case actLeave:
		return fmt.Sprintf("%s's own NodeRemove enters the log of %s", n, x)
	case actRemove:
		return fmt.Sprintf("an operator's NodeRemove of %s enters the log of %s", n, x)
	case actRecover:
		return "all processes are stopped and one of them is recovered with the table of the start"
	case actAsk:
		return fmt.Sprintf("%s reads the question of %s and is still in its term", x, n)
	case actConfirm:
		return fmt.Sprintf("%s hears the answer of %s", n, x)
	}
	return fmt.Sprintf("step %d", a.kind)
}
