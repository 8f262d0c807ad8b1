package nodetest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"imroute/mesh/wire"
)

// routeKind is what an operation on one client's route does.
type routeKind uint8

const (
	routeSet  routeKind = iota // a registration with that epoch took effect
	routeEnd                   // the route with that epoch went, if it was still there
	routeRead                  // a linearizable read found that epoch; 0: no route
)

type routeOp struct {
	kind  routeKind
	epoch wire.Epoch
	what  string
}

// routeState is one client's row as a single copy would have it.
type routeState struct{ now, highest wire.Epoch }

// routeModel is the sequential specification of one client's route.
func routeModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return routeState{} },
		Step: func(state, input, _ any) (bool, any) {
			s, op := state.(routeState), input.(routeOp)
			switch op.kind {
			case routeSet:
				return op.epoch > s.highest, routeState{op.epoch, op.epoch} // epochs only rise
			case routeEnd:
				if s.now == op.epoch {
					s.now = 0
				}
				return true, s
			}
			return s.now == op.epoch, s
		},
		DescribeOperation: func(input, _ any) string { return input.(routeOp).what },
	}
}

// linearizableWait bounds the search for one client.
const linearizableWait = 30 * time.Second

// checkRoutes (G1, G4): registrations, ends of routes and linearizable reads of each client behave as on one copy. Reads are
// look-ups and the sends that were answered `offline`. A registration is known by the journal of whoever opened it, and took
// effect between the dialling and the opening; one that nobody opened, and only a read saw, may have done so at any time.
// A route may go, without anybody's word, from the moment on at which its owner fenced it, lost its lease, or was ended.
func checkRoutes(e *Evidence) []string {
	byClient, _ := tenures(e)
	dials := map[uint64]time.Duration{}
	for _, s := range e.History.SDKs {
		if s.Instance != 0 {
			dials[s.Instance] = s.Dial
		}
	}
	ends := earliestEnds(e)
	ops := map[string][]porcupine.Operation{}
	known := map[string]map[wire.Epoch]bool{}
	add := func(client string, op routeOp, call, ret time.Duration) {
		ops[client] = append(ops[client], porcupine.Operation{Input: op, Call: int64(call), Return: int64(max(call, ret))})
	}
	const forever = time.Duration(math.MaxInt64)
	for client, ts := range byClient {
		known[client] = map[wire.Epoch]bool{}
		next := forever // opening of a higher epoch, after which an end has no effect any more
		for i := len(ts) - 1; i >= 0; i-- {
			t := ts[i]
			known[client][t.epoch] = true
			set := forever
			if t.opened != 0 {
				set = t.opened
			} else if t.fenced != 0 {
				set = t.fenced // it was answered, and closed at once
			}
			add(client, routeOp{routeSet, t.epoch, fmt.Sprintf("%s registers epoch %d", t.by.node, t.epoch)}, dials[instanceOf(t.session)], set)
			gone := forever
			if t.fenced != 0 {
				gone = t.fenced
			}
			if at, ok := ends[t.by]; ok {
				gone = min(gone, at)
			}
			if gone != forever {
				add(client, routeOp{routeEnd, t.epoch, fmt.Sprintf("epoch %d ends", t.epoch)}, gone, next)
			}
			if t.opened != 0 {
				next = min(next, t.opened)
			}
		}
	}
	reads := func(client string, epoch wire.Epoch, what string, call, ret time.Duration) {
		add(client, routeOp{routeRead, epoch, what}, call, ret)
		if epoch != 0 && !known[client][epoch] {
			if known[client] == nil {
				known[client] = map[wire.Epoch]bool{}
			}
			known[client][epoch] = true
			add(client, routeOp{routeSet, epoch, fmt.Sprintf("somebody registers epoch %d", epoch)}, 0, forever)
			add(client, routeOp{routeEnd, epoch, fmt.Sprintf("epoch %d ends", epoch)}, 0, forever)
		}
	}
	for _, l := range e.History.Lookups {
		reads(l.Client, l.Epoch, fmt.Sprintf("a look-up at %s finds epoch %d", l.Asked, l.Epoch), l.Call, l.Return)
	}
	for _, s := range e.History.Sends {
		if s.Ack != wire.AckNone && s.Return != 0 && s.Code == wire.Offline {
			reads(s.To, 0, fmt.Sprintf("%v of %s hears offline", s.ID, s.From), s.Call, s.Return)
		}
		if r, ok := e.History.Refused[s.ID]; ok && s.Ack == wire.AckNone && r.Code == wire.Offline {
			reads(s.To, 0, fmt.Sprintf("%v of %s hears offline", s.ID, s.From), s.Call, r.At)
		}
	}
	var out []string
	for _, client := range slices.Sorted(maps.Keys(ops)) {
		switch result, info := porcupine.CheckOperationsVerbose(routeModel(), ops[client], linearizableWait); result {
		case porcupine.Illegal:
			out = append(out, fmt.Sprintf("%s: not linearizable. %s", client, explain(ops[client], info)))
		case porcupine.Unknown:
			out = append(out, fmt.Sprintf("%s: not decided within %v (%d operations)", client, linearizableWait, len(ops[client])))
		}
	}
	return out
}

// earliestEnds is, for each incarnation, from when on the table may have ended it without a word of its own: when its lease
// coverage had its first gap, its process was ended, or its journal ends its lease.
func earliestEnds(e *Evidence) map[life]time.Duration {
	out := map[life]time.Duration{}
	note := func(l life, at time.Duration) {
		if old, ok := out[l]; !ok || at < old {
			out[l] = at
		}
	}
	for node, lines := range e.Journals {
		began := map[wire.Incarnation]time.Duration{}
		until := map[wire.Incarnation]time.Duration{}
		for _, l := range lines {
			inc := life{node, l.Incarnation}
			switch l.Event {
			case journalUp:
				began[l.Incarnation] = l.At
				// It starts without a lease, and the leader counts its first one from the NodeUp; nobody is registered before.
			case journalLease:
				if u := until[l.Incarnation]; u != 0 && l.Checked >= u {
					note(inc, u)
				}
				until[l.Incarnation] = max(until[l.Incarnation], l.Until)
			case journalDrop:
				note(inc, l.At)
			}
		}
		for inc, u := range until {
			note(life{node, inc}, u)
		}
		for inc, at := range began {
			for _, p := range e.History.Processes {
				if p.Node == node && p.At >= at && (p.What == ProcessKill || p.What == ProcessStop) {
					note(life{node, inc}, p.At)
					break
				}
			}
			for next, from := range began { // a NodeUp of the same node ends what was before
				if next > inc {
					note(life{node, inc}, from)
				}
			}
		}
	}
	return out
}

// instanceOf reads the instance out of a wire.SessionID's text; 0 for anything else.
func instanceOf(session string) uint64 {
	id, _, _ := strings.Cut(session, ".")
	n, err := wire.ParseNodeID(id) // the same sixteen digits
	if err != nil {
		return 0
	}
	return uint64(n)
}

// explain names the operations around the first one that fits nowhere.
func explain(ops []porcupine.Operation, info porcupine.LinearizationInfo) string {
	longest := 0
	var done map[int]bool
	for _, part := range info.PartialLinearizations() {
		for _, seq := range part {
			if len(seq) >= longest {
				longest, done = len(seq), map[int]bool{}
				for _, i := range seq {
					done[i] = true
				}
			}
		}
	}
	var open []int
	for i := range ops {
		if !done[i] {
			open = append(open, i)
		}
	}
	slices.SortFunc(open, func(a, b int) int { return int(ops[a].Return - ops[b].Return) })
	if len(open) == 0 {
		return ""
	}
	// Around the return of the first operation that could not be placed.
	pivot := ops[open[0]].Return
	order := make([]int, len(ops))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(ops[a].Call - ops[b].Call) })
	var lines []string
	for _, i := range order {
		if ops[i].Return < pivot-int64(300*time.Millisecond) || ops[i].Call > pivot+int64(100*time.Millisecond) {
			continue
		}
		mark := " "
		if !done[i] {
			mark = "?"
		}
		end := time.Duration(ops[i].Return).String()
		if ops[i].Return == math.MaxInt64 {
			end = "open"
		}
		lines = append(lines, fmt.Sprintf("  %s [%v, %s] %s", mark, time.Duration(ops[i].Call), end, ops[i].Input.(routeOp).what))
	}
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	return fmt.Sprintf("%d of %d operations can be ordered; around the first that cannot (marked ?):\n%s", longest, len(ops), strings.Join(lines, "\n"))
}
