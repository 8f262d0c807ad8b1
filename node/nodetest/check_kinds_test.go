package nodetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"imroute/mesh/wire"
)

// Each kind of complaint that a checker knows, by words that tell it from the others, and a history that earns it.
func TestEveryKindOfComplaint(t *testing.T) {
	covered := map[string]bool{}
	for _, kind := range []struct {
		check, says string
		spoil       func(e *Evidence)
	}{
		{"lease", "past its lease", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(5200), Event: journalOpen, Incarnation: 1, Client: "dave", Epoch: 3, Session: session(8)},
				JournalLine{At: at(7010), Event: journalWrite, Incarnation: 1, Client: "dave", Epoch: 3, Checked: at(7001), IDs: []wire.MessageID{id(8)}})
		}},
		{"lease", "told of", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(7010), Event: journalTold, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(7001), IDs: []wire.MessageID{id(8)}})
		}},
		{"lease", "after the incarnation was given up", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(700), Event: journalDrop, Incarnation: 4},
				JournalLine{At: at(710), Event: journalTold, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(705), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "had it", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(430), Event: journalFence, Incarnation: 1, Client: "bob", Epoch: 2})
		}},
		{"one-owner", "opened twice", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(421), Event: journalOpen, Incarnation: 4, Client: "bob", Epoch: 2, Session: session(9)})
		}},
		{"one-owner", "a session that was not open", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(5100), Event: journalWrite, Incarnation: 1, Client: "dave", Epoch: 3, Checked: at(5090), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "had opened epoch 2", func(e *Evidence) {
			e.Journals["n1"] = slices.DeleteFunc(e.Journals["n1"], func(l JournalLine) bool { return l.Event == journalFence })
			e.add("n1", JournalLine{At: at(440), Event: journalWrite, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(430), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "after it had fenced it", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(416), Event: journalWrite, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(415), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "was followed by one with epoch", func(e *Evidence) {
			s := &e.History.SDKs[0]
			s.States = append(s.States, SDKState{At: at(850)}, SDKState{At: at(860), Connected: true, Epoch: 3})
		}},
		{"routes", "before it was registered", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(300), Return: at(310), Epoch: 2})
		}},
		{"routes", "had been known at", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(450), Return: at(460), Epoch: 1})
		}},
		{"routes", "cannot have followed the registrations before it", func(e *Evidence) {
			e.History.SDKs[1].Dial = at(450) // epoch 1 is asked for when epoch 2 is open already
			for i := range e.Journals["n1"] {
				if l := &e.Journals["n1"][i]; l.Client == "bob" && l.Epoch == 1 {
					l.At, l.Checked = l.At+at(345), l.Checked+at(345)
				}
			}
			e.History.Lookups = append(e.History.Lookups[:1], e.History.Lookups[2:]...)
		}},
		{"routes", "which cannot have ended before", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(550), Return: at(555)})
		}},
		{"delivered", "but no owner said so", func(e *Evidence) { e.Journals["n2"][3].IDs = nil }},
		{"delivered", "which never had it", func(e *Evidence) { e.History.Received = e.History.Received[1:] }},
		{"order", "received", func(e *Evidence) {
			r := e.History.Received
			r[0], r[1] = r[1], r[0]
		}},
		{"duplicates", "was written twice", func(e *Evidence) {
			e.Journals["n2"][2].IDs = append(e.Journals["n2"][2].IDs, id(3))
		}},
		{"duplicates", "twice by one SDK", func(e *Evidence) { e.History.Received = append(e.History.Received, e.History.Received[2]) }},
		{"answered", "was never answered", func(e *Evidence) { e.History.Sends[2].Return = 0 }},
		{"answered", "its time-out was", func(e *Evidence) { e.History.Sends[2].Return = at(9000) }},
		{"kicked", "was kicked from epoch 2", func(e *Evidence) {
			e.Journals["n2"] = slices.DeleteFunc(e.Journals["n2"], func(l JournalLine) bool { return l.Event == journalFence })
			e.History.Lookups = e.History.Lookups[:3]
			e.add("n2", JournalLine{At: at(641), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(640), IDs: []wire.MessageID{id(8)}})
		}},
	} {
		e := good()
		kind.spoil(e)
		found := Check(e)
		said := false
		for _, v := range found {
			said = said || v.Check == kind.check && strings.Contains(v.Text, kind.says)
		}
		if !said {
			t.Errorf("%s does not say %q; found: %v", kind.check, kind.says, found)
		}
		covered[kind.check] = true
	}
	covered["served"] = true // by TestServedRefusesBadRuns, whose histories are of another kind
	for _, c := range checkers() {
		if !covered[c.name] {
			t.Errorf("nothing shows that %s can complain", c.name)
		}
	}
}

// The search has its own word for what the one-pass decision would let through.
func TestSearchExplains(t *testing.T) {
	ops := []porcupine.Operation{
		{Input: routeOp{set: 1, epoch: 1, reads: 1, what: "n1 registers epoch 1"}, Call: int64(at(1)), Return: int64(at(2))},
		{Input: routeOp{set: 2, epoch: 2, what: "n2 registers epoch 2"}, Call: int64(at(3)), Return: int64(at(4))},
		{Input: routeOp{epoch: 1, what: "a look-up finds epoch 1"}, Call: int64(at(5)), Return: int64(at(6))},
	}
	result, info := porcupine.CheckOperationsVerbose(routeModel(map[wire.Epoch]time.Duration{}), ops, linearizableWait)
	if result != porcupine.Illegal {
		t.Fatalf("%v: a read of what was replaced is accepted", result)
	}
	if text := explain(ops, info); !strings.Contains(text, "can be ordered") || !strings.Contains(text, "? [") {
		t.Errorf("%s", text)
	}
}

func TestCheckBoundsWhatItSays(t *testing.T) {
	e := good()
	for i := range maxReports + 5 {
		e.History.Received = append(e.History.Received, Received{SDK: 9, To: "x", ID: id(uint64(i/2 + 100))})
		e.History.Received = append(e.History.Received, Received{SDK: 9, To: "x", ID: id(uint64(i/2 + 100))})
	}
	found := Check(e)
	if len(found) != maxReports+1 || !strings.HasPrefix(found[maxReports].Text, "and ") {
		t.Errorf("%d complaints, the last: %s", len(found), fmt.Sprint(found[len(found)-1]))
	}
}
