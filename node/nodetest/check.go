package nodetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// Evidence is all that checkers judge by.
type Evidence struct {
	History  Snapshot
	Journals map[string][]JournalLine // by node; each in the order of writing
	Timings  Timings
}

// Violation is a promise that was not kept.
type Violation struct {
	Check string // the checker's name
	Text  string
}

func (v Violation) String() string { return v.Check + ": " + v.Text }

// checker looks for violations of one promise of ARCHITECTURE.md's Guarantees. It is a pure function.
type checker struct {
	name  string
	check func(e *Evidence) []string
}

func checkers() []checker {
	return []checker{
		{"lease", checkLease},
		{"one-owner", checkOneOwner},
		{"routes", checkRoutes},
		{"delivered", checkDelivered},
		{"order", checkOrder},
		{"duplicates", checkDuplicates},
		{"answered", checkAnswered},
		{"kicked", checkKicked},
		{"served", checkServed},
	}
}

// maxReports bounds what one checker says: the first ones tell enough.
const maxReports = 10

// Check runs every checker.
func Check(e *Evidence) []Violation {
	var out []Violation
	for _, c := range checkers() {
		found := c.check(e)
		if n := len(found); n > maxReports {
			found = append(found[:maxReports:maxReports], fmt.Sprintf("and %d more", n-maxReports))
		}
		for _, text := range found {
			out = append(out, Violation{c.name, text})
		}
	}
	return out
}

// life names an incarnation: a node and a number that the table gave it.
type life struct {
	node string
	inc  wire.Incarnation
}

// checkLease (G3, G7): nothing is written, and no Delivered is answered, by a look at the lease that no lease covers. The
// look happened somewhere between Checked and At, so it is enough that a lease which had been granted by At had not run out
// at Checked.
func checkLease(e *Evidence) []string {
	var out []string
	for _, node := range sortedKeys(e.Journals) {
		until := map[wire.Incarnation]time.Duration{} // of the leases granted so far
		dropped := map[wire.Incarnation]time.Duration{}
		for _, l := range e.Journals[node] {
			switch l.Event {
			case journalLease:
				until[l.Incarnation] = max(until[l.Incarnation], l.Until)
			case journalDrop:
				dropped[l.Incarnation] = l.At
			case journalWrite, journalTold:
				if at := dropped[l.Incarnation]; at != 0 && l.Checked > at {
					out = append(out, fmt.Sprintf("%s, incarnation %d: %s of %v to %s %v after the incarnation was given up", node, l.Incarnation, l.Event, l.IDs, l.Client, l.Checked-at))
				} else if u := until[l.Incarnation]; l.Checked >= u {
					out = append(out, fmt.Sprintf("%s, incarnation %d: %s of %v to %s at %v, %v past its lease", node, l.Incarnation, l.Event, l.IDs, l.Client, l.Checked, l.Checked-u))
				}
			}
		}
	}
	return out
}

// tenure is what the journals tell of one epoch of one client.
type tenure struct {
	client  string
	epoch   wire.Epoch
	by      life
	opened  time.Duration // 0: never
	fenced  time.Duration // 0: never
	written []time.Duration
	session string
}

// tenures collects the epochs of every client, rising.
func tenures(e *Evidence) (map[string][]*tenure, []string) {
	type key struct {
		client string
		epoch  wire.Epoch
	}
	byKey := map[key]*tenure{}
	out := map[string][]*tenure{}
	var wrong []string
	for _, node := range sortedKeys(e.Journals) {
		for _, l := range e.Journals[node] {
			if l.Event != journalOpen && l.Event != journalFence && l.Event != journalWrite {
				continue
			}
			k, by := key{l.Client, l.Epoch}, life{node, l.Incarnation}
			t := byKey[k]
			if t == nil {
				t = &tenure{client: l.Client, epoch: l.Epoch, by: by}
				byKey[k] = t
				out[l.Client] = append(out[l.Client], t)
			}
			if t.by != by {
				wrong = append(wrong, fmt.Sprintf("%s, epoch %d: both %s (incarnation %d) and %s (incarnation %d) had it", l.Client, l.Epoch, t.by.node, t.by.inc, node, l.Incarnation))
				continue
			}
			switch l.Event {
			case journalOpen:
				if t.opened != 0 {
					wrong = append(wrong, fmt.Sprintf("%s, epoch %d: opened twice at %s", l.Client, l.Epoch, node))
				}
				t.opened, t.session = l.At, l.Session
			case journalFence:
				if t.fenced == 0 {
					t.fenced = l.At
				}
			case journalWrite:
				t.written = append(t.written, l.Checked)
				if t.opened == 0 {
					wrong = append(wrong, fmt.Sprintf("%s, epoch %d: %s wrote to a session that was not open", l.Client, l.Epoch, node))
				}
			}
		}
	}
	for _, ts := range out {
		slices.SortFunc(ts, func(a, b *tenure) int { return cmp.Compare(a.epoch, b.epoch) })
	}
	return out, wrong
}

// checkOneOwner (G2): of one client only one session is delivered to at a time, and never again an earlier one once a later
// one is open. What was written is judged by when the owner looked at its lease.
func checkOneOwner(e *Evidence) []string {
	byClient, out := tenures(e)
	for _, client := range sortedKeys(byClient) {
		ts := byClient[client]
		var next *tenure // of those with a higher epoch, the one that opened first
		for i := len(ts) - 1; i >= 0; i-- {
			t := ts[i]
			for _, at := range t.written {
				if next != nil && at > next.opened {
					out = append(out, fmt.Sprintf("%s: %s delivered under epoch %d, %v after %s had opened epoch %d", client, t.by.node, t.epoch, at-next.opened, next.by.node, next.epoch))
				}
				if t.fenced != 0 && at > t.fenced {
					out = append(out, fmt.Sprintf("%s: %s delivered under epoch %d, %v after it had fenced it", client, t.by.node, t.epoch, at-t.fenced))
				}
			}
			if t.opened != 0 && (next == nil || t.opened < next.opened) {
				next = t
			}
		}
	}
	return append(out, checkSDKEpochs(e)...)
}

// checkSDKEpochs: the sessions of one SDK have rising epochs, as it sees them.
func checkSDKEpochs(e *Evidence) []string {
	var out []string
	for _, s := range e.History.SDKs {
		var last wire.Epoch
		for _, st := range s.States {
			if st.Connected && st.Epoch <= last {
				out = append(out, fmt.Sprintf("%s: its session with epoch %d was followed by one with epoch %d", s.Client, last, st.Epoch))
			}
			if st.Connected {
				last = st.Epoch
			}
		}
	}
	return out
}

// checkDelivered (G3): what was answered as delivered was written by an owner that found its lease to hold afterwards, and
// if the client's own acknowledgement was asked for, its application had it.
func checkDelivered(e *Evidence) []string {
	type receipt struct {
		client string
		id     wire.MessageID
	}
	had, told := map[receipt]bool{}, map[receipt]bool{}
	for _, r := range e.History.Received {
		had[receipt{r.To, r.ID}] = true
	}
	for _, lines := range e.Journals {
		for _, l := range lines {
			if l.Event == journalTold {
				for _, id := range l.IDs {
					told[receipt{l.Client, id}] = true
				}
			}
		}
	}
	var out []string
	for _, s := range e.History.Sends {
		if s.Code != wire.Delivered || s.Return == 0 {
			continue
		}
		r := receipt{s.To, s.ID}
		if !told[r] {
			out = append(out, fmt.Sprintf("%v from %s to %s was answered as delivered, but no owner said so", s.ID, s.From, s.To))
		}
		if s.Ack == wire.AckClient && !had[r] {
			out = append(out, fmt.Sprintf("%v from %s to %s was answered as acknowledged by the client, which never had it", s.ID, s.From, s.To))
		}
	}
	return out
}

// checkOrder (G5): what one sender session sent reaches an SDK of the recipient in sending order. Messages between whose
// sending and receiving the sender lost its session are not compared.
func checkOrder(e *Evidence) []string {
	sends := map[wire.MessageID]*Send{}
	for i := range e.History.Sends {
		s := &e.History.Sends[i]
		sends[s.ID] = s
	}
	type pair struct {
		sdk      int
		instance uint64
	}
	highest := map[pair]Received{}
	var out []string
	for _, r := range e.History.Received {
		k := pair{r.SDK, r.ID.Instance}
		last, ok := highest[k]
		if !ok || r.ID.Counter > last.ID.Counter {
			highest[k] = r
			continue
		}
		if r.ID.Counter == last.ID.Counter {
			continue // a duplicate, which is another promise
		}
		s := sends[r.ID]
		if s != nil && lostSession(e, s.SDK, s.Call, r.At) {
			continue
		}
		out = append(out, fmt.Sprintf("%s received %v of %s (epoch %d, at %v) after %v (epoch %d, at %v)", r.To, r.ID, r.From, r.Epoch, r.At, last.ID, last.Epoch, last.At))
	}
	return out
}

// lostSession tells whether an SDK was without a session at any time between two moments.
func lostSession(e *Evidence, sdk int, from, to time.Duration) bool {
	if sdk < 0 || sdk >= len(e.History.SDKs) {
		return false
	}
	connected := false
	for _, st := range e.History.SDKs[sdk].States {
		switch {
		case st.At <= from:
			connected = st.Connected
		case st.At <= to:
			return true
		}
	}
	return !connected
}

// checkDuplicates (G6): no message is written twice under one epoch, and no SDK hands one out twice.
func checkDuplicates(e *Evidence) []string {
	type written struct {
		client string
		epoch  wire.Epoch
		id     wire.MessageID
	}
	var out []string
	seen := map[written]string{}
	for _, node := range sortedKeys(e.Journals) {
		for _, l := range e.Journals[node] {
			if l.Event != journalWrite {
				continue
			}
			for _, id := range l.IDs {
				w := written{l.Client, l.Epoch, id}
				if by, twice := seen[w]; twice {
					out = append(out, fmt.Sprintf("%v was written twice to %s under epoch %d, by %s and %s", id, l.Client, l.Epoch, by, node))
				}
				seen[w] = node
			}
		}
	}
	type handed struct {
		sdk int
		id  wire.MessageID
	}
	had := map[handed]bool{}
	for _, r := range e.History.Received {
		h := handed{r.SDK, r.ID}
		if had[h] {
			out = append(out, fmt.Sprintf("%s was handed %v twice by one SDK", r.To, r.ID))
		}
		had[h] = true
	}
	return out
}

// answerSlack is how much later than its time-out a send may be answered on a slow machine.
const answerSlack = 3 * time.Second

// checkAnswered (G8): who asked for an acknowledgement hears something within its time-out.
func checkAnswered(e *Evidence) []string {
	var out []string
	for _, s := range e.History.Sends {
		if s.Ack == wire.AckNone {
			continue
		}
		switch end := s.Return; {
		case end == 0 && e.History.Ended-s.Call > s.Timeout+answerSlack:
			out = append(out, fmt.Sprintf("%v from %s to %s was never answered", s.ID, s.From, s.To))
		case end != 0 && end-s.Call > s.Timeout+answerSlack:
			out = append(out, fmt.Sprintf("%v from %s to %s was answered (%s) after %v; its time-out was %v", s.ID, s.From, s.To, s.Code, end-s.Call, s.Timeout))
		}
	}
	return out
}

// checkKicked: once a kick succeeded nothing is delivered under that epoch or an earlier one.
func checkKicked(e *Evidence) []string {
	byClient, _ := tenures(e)
	var out []string
	for _, k := range e.History.Kicks {
		for _, t := range byClient[k.Client] {
			if t.epoch > k.Epoch {
				continue
			}
			for _, at := range t.written {
				if at > k.Return {
					out = append(out, fmt.Sprintf("%s was kicked from epoch %d, but %s delivered under epoch %d %v later", k.Client, k.Epoch, t.by.node, t.epoch, at-k.Return))
				}
			}
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
