package nodetest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"imroute/mesh/wire"
)

// routeOp is one operation on one client's route: a registration that took effect, or a linearizable read.
type routeOp struct {
	set   int        // the registration's place among all of this client's, by rising epoch, from 1; 0: a read
	epoch wire.Epoch // registered, or found; a read of 0 found no route
	reads int        // of a registration: how many reads found its epoch
	until int64      // of a read: its return
	what  string
}

// routeState is one client's row as a single copy would have it.
type routeState struct {
	last  int        // registrations so far
	now   wire.Epoch // 0: no route
	reads int        // that have yet to find it
}

// routeModel is the sequential specification of one client's route. Epochs only rise, so the order of the registrations is
// known; and a route that went does not come back, so it stays until every read that found it was made. Both follow from the
// history, and saying so spares the search what can lead nowhere. gone tells from when on the route with an epoch may have
// ended without a word; it ends when a read finds none.
func routeModel(gone map[wire.Epoch]time.Duration) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return routeState{} },
		Step: func(state, input, _ any) (bool, any) {
			s, op := state.(routeState), input.(routeOp)
			switch {
			case op.set != 0:
				return op.set == s.last+1 && s.reads == 0, routeState{op.set, op.epoch, op.reads}
			case op.epoch == 0 && s.now != 0:
				at, may := gone[s.now]
				return may && s.reads == 0 && op.until >= int64(at), routeState{last: s.last}
			case op.epoch != 0:
				s.reads--
			}
			return s.now == op.epoch, s
		},
		DescribeOperation: func(input, _ any) string { return input.(routeOp).what },
	}
}

// linearizableWait bounds the search for one client.
const linearizableWait = 2 * time.Second

// checkRoutes (G1, G4): registrations and linearizable reads of each client behave as on one copy. Reads are look-ups and
// the sends that were answered `offline`. A registration is known by the journal of whoever opened it, and took effect
// between the dialling and the opening; one that nobody opened, and only a read saw, may have done so at any time. A route
// may go, without anybody's word, from the moment on at which its owner fenced it, lost its lease, or was ended.
func checkRoutes(e *Evidence) []string {
	byClient, _ := tenures(e)
	reads := map[string][]porcupine.Operation{}
	found := map[string]map[wire.Epoch]bool{}
	read := func(client string, epoch wire.Epoch, what string, call, ret time.Duration) {
		reads[client] = append(reads[client], porcupine.Operation{Input: routeOp{epoch: epoch, until: int64(ret), what: what}, Call: int64(call), Return: int64(ret)})
		if found[client] == nil {
			found[client] = map[wire.Epoch]bool{}
		}
		found[client][epoch] = epoch != 0
	}
	for _, l := range e.History.Lookups {
		read(l.Client, l.Epoch, fmt.Sprintf("a look-up at %s finds epoch %d", l.Asked, l.Epoch), l.Call, l.Return)
	}
	refused := map[wire.MessageID]Refusal{}
	for _, r := range e.History.Refused {
		refused[r.ID] = r
	}
	for _, s := range e.History.Sends {
		if s.Ack != wire.AckNone && s.Return != 0 && s.Code == wire.Offline {
			read(s.To, 0, fmt.Sprintf("%v of %s hears offline", s.ID, s.From), s.Call, s.Return)
		}
		if r, ok := refused[s.ID]; ok && s.Ack == wire.AckNone && r.Code == wire.Offline {
			read(s.To, 0, fmt.Sprintf("%v of %s hears offline", s.ID, s.From), s.Call, r.At)
		}
	}
	dials := map[uint64]time.Duration{}
	for _, s := range e.History.SDKs {
		if s.Instance != 0 {
			dials[s.Instance] = s.Dial
		}
	}
	ends := earliestEnds(e)
	var out []string
	for _, client := range slices.Sorted(maps.Keys(reads)) {
		sets, gone := registrations(byClient[client], found[client], dials, ends)
		if wrong := routeConflict(sets, reads[client], gone); wrong != "" {
			out = append(out, client+": "+wrong)
			continue
		}
		count(sets, reads[client])
		ops := append(sets, telling(reads[client])...)
		// Unknown is no finding: the search was too long, and the other way has decided it.
		if result, info := porcupine.CheckOperationsVerbose(routeModel(gone), ops, linearizableWait); result == porcupine.Illegal {
			out = append(out, fmt.Sprintf("%s: not linearizable. %s", client, explain(ops, info)))
		}
	}
	return out
}

// routeConflict decides in one pass what a search may take too long for. With the order of the registrations known, the only
// freedom is when each took effect and when each route ended. The later the one and the earlier the other, the more room for
// reads that found nothing; what reads of the route itself demand bounds both. It returns "" if everything fits.
func routeConflict(sets, reads []porcupine.Operation, gone map[wire.Epoch]time.Duration) string {
	type row struct {
		set, until  int64 // latest moment of the registration, earliest of the end
		what, first string
	}
	rows := make([]row, len(sets))
	place := map[wire.Epoch]int{}
	for i, op := range sets {
		in := op.Input.(routeOp)
		place[in.epoch] = i
		rows[i] = row{set: op.Return, until: math.MaxInt64, what: in.what}
		if at, ok := gone[in.epoch]; ok {
			rows[i].until = int64(at)
		}
	}
	lastRead := make([]int64, len(sets)) // latest call of a read that found it
	for _, r := range reads {
		in := r.Input.(routeOp)
		if i, ok := place[in.epoch]; ok {
			if r.Return < sets[i].Call {
				return fmt.Sprintf("%s [%v, %v] before it was registered at %v", in.what, time.Duration(r.Call), time.Duration(r.Return), time.Duration(sets[i].Call))
			}
			rows[i].set = min(rows[i].set, r.Return)
			if r.Call > lastRead[i] {
				lastRead[i], rows[i].first = r.Call, in.what
			}
		}
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if i+1 < len(rows) {
			rows[i].set = min(rows[i].set, rows[i+1].set)
			if lastRead[i] > rows[i+1].set { // a takeover needs no end, but it ends the reads
				return fmt.Sprintf("%s, asked at %v, after %s had been known at %v", rows[i].first, time.Duration(lastRead[i]), rows[i+1].what, time.Duration(rows[i+1].set))
			}
		}
		if rows[i].until != math.MaxInt64 {
			rows[i].until = max(rows[i].until, lastRead[i])
		}
	}
	gaps := []gap{{0, math.MaxInt64, "it was never registered"}} // in which there was no route
	earliest := int64(0)
	for i := range rows {
		if earliest = max(earliest, sets[i].Call); earliest > rows[i].set {
			return fmt.Sprintf("%s cannot have followed the registrations before it: not before %v, not after %v", rows[i].what, time.Duration(earliest), time.Duration(rows[i].set))
		}
		gaps[i].to = rows[i].set
		gaps = append(gaps, gap{max(rows[i].until, earliest), math.MaxInt64, rows[i].what})
	}
	for _, r := range reads {
		in := r.Input.(routeOp)
		if in.epoch != 0 || slices.ContainsFunc(gaps, func(g gap) bool {
			return g.from != math.MaxInt64 && max(g.from, r.Call) <= min(g.to, r.Return)
		}) {
			continue
		}
		i := len(gaps) - 1
		for i > 0 && gaps[i-1].to > r.Return {
			i--
		}
		return fmt.Sprintf("%s [%v, %v], but before that there was: %s, which cannot have ended before %v", in.what, time.Duration(r.Call), time.Duration(r.Return), gaps[i].after, time.Duration(gaps[i].from))
	}
	return ""
}

// gap is the longest possible time without a route between two registrations.
type gap struct {
	from, to int64
	after    string
}

// count tells every registration how many of the reads that the search gets found it.
func count(sets, reads []porcupine.Operation) {
	found := map[wire.Epoch]int{}
	for _, r := range telling(reads) {
		found[r.Input.(routeOp).epoch]++
	}
	for i := range sets {
		op := sets[i].Input.(routeOp)
		op.reads = found[op.epoch]
		sets[i].Input = op
	}
}

// telling leaves out reads that follow from others: what a read found at some moment within a shorter one's time, which
// found the same, it may have found then. Without this the search drowns in an outage's many equal answers.
func telling(reads []porcupine.Operation) []porcupine.Operation {
	byEpoch := map[wire.Epoch][]porcupine.Operation{}
	for _, r := range reads {
		epoch := r.Input.(routeOp).epoch
		byEpoch[epoch] = append(byEpoch[epoch], r)
	}
	var out []porcupine.Operation
	for _, rs := range byEpoch {
		// Latest call first: a read is needed if it returned before every read that was called later.
		slices.SortFunc(rs, func(a, b porcupine.Operation) int {
			return cmp.Or(cmp.Compare(b.Call, a.Call), cmp.Compare(a.Return, b.Return))
		})
		first := int64(math.MaxInt64)
		for _, r := range rs {
			if r.Return < first {
				first = r.Return
				out = append(out, r)
			}
		}
	}
	return out
}

// registrations are those of one client: by its owners' journals, which come by rising epoch, and those that only reads
// found. gone is from when on each route may have ended.
func registrations(ts []*tenure, found map[wire.Epoch]bool, dials map[uint64]time.Duration, ends map[life]time.Duration) ([]porcupine.Operation, map[wire.Epoch]time.Duration) {
	const forever = time.Duration(math.MaxInt64)
	gone := map[wire.Epoch]time.Duration{}
	var ops []porcupine.Operation
	known := map[wire.Epoch]bool{}
	for _, t := range ts {
		known[t.epoch] = true
		took := forever
		switch {
		case t.opened != 0:
			took = t.opened
		case t.fenced != 0:
			took = t.fenced // it was answered, and closed at once
		}
		began := min(dials[instanceOf(t.session)], took)
		ops = append(ops, porcupine.Operation{
			Input: routeOp{epoch: t.epoch, what: fmt.Sprintf("%s registers epoch %d", t.by.node, t.epoch)}, Call: int64(began), Return: int64(took),
		})
		if t.fenced != 0 {
			gone[t.epoch] = t.fenced
		}
		if at, ok := ends[t.by]; ok && (t.fenced == 0 || at < t.fenced) {
			gone[t.epoch] = at
		}
	}
	for epoch, is := range found {
		if is && !known[epoch] {
			ops = append(ops, porcupine.Operation{Input: routeOp{epoch: epoch, what: fmt.Sprintf("somebody registers epoch %d", epoch)}, Return: int64(forever)})
			gone[epoch] = 0
		}
	}
	slices.SortFunc(ops, func(a, b porcupine.Operation) int {
		return cmp.Compare(a.Input.(routeOp).epoch, b.Input.(routeOp).epoch)
	})
	for i := range ops {
		op := ops[i].Input.(routeOp)
		op.set = i + 1
		ops[i].Input = op
	}
	return ops, gone
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
