package nodetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"imroute/mesh/wire"
)

// at is a moment of the histories below: 100 to 900 are within a run.
func at(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func id(counter uint64) wire.MessageID { return wire.MessageID{Instance: 7, Counter: counter} }

// session is the text of a session of the SDK with that instance.
func session(instance uint64) string {
	return wire.SessionID{Instance: instance, Attempt: 1}.String()
}

// good is a run without fault: bob is on n1 under epoch 1, moves to n2 under epoch 2, and gets a message on each.
func good() *Evidence {
	return &Evidence{
		Timings: FastTimings(),
		History: Snapshot{
			Ended: at(10_000),
			SDKs: []SDK{
				{Number: 0, Client: "alice", Instance: 7, Dial: at(100), States: []SDKState{{At: at(110), Connected: true, Epoch: 9}}},
				{Number: 1, Client: "bob", Instance: 8, Dial: at(100), States: []SDKState{{At: at(121), Connected: true, Epoch: 1}}},
				{Number: 2, Client: "bob", Instance: 9, Dial: at(400), States: []SDKState{{At: at(421), Connected: true, Epoch: 2}}},
			},
			Sends: []Send{
				{SDK: 0, From: "alice", To: "bob", ID: id(1), Ack: wire.AckClient, Timeout: at(1000), Call: at(200), Return: at(230), Code: wire.Delivered},
				{SDK: 0, From: "alice", To: "bob", ID: id(2), Ack: wire.AckOwner, Timeout: at(1000), Call: at(210), Return: at(230), Code: wire.Delivered},
				{SDK: 0, From: "alice", To: "bob", ID: id(3), Ack: wire.AckOwner, Timeout: at(1000), Call: at(500), Return: at(530), Code: wire.Delivered},
				{SDK: 0, From: "alice", To: "carol", ID: id(4), Ack: wire.AckOwner, Timeout: at(1000), Call: at(500), Return: at(530), Code: wire.Offline},
			},
			Received: []Received{
				{SDK: 1, To: "bob", From: "alice", ID: id(1), Epoch: 1, At: at(216)},
				{SDK: 1, To: "bob", From: "alice", ID: id(2), Epoch: 1, At: at(217)},
				{SDK: 2, To: "bob", From: "alice", ID: id(3), Epoch: 2, At: at(516)},
			},
			Lookups: []Lookup{
				{Client: "bob", Asked: "n3", Call: at(90), Return: at(95)},
				{Client: "bob", Asked: "n3", Call: at(200), Return: at(205), Epoch: 1},
				{Client: "bob", Asked: "n3", Call: at(500), Return: at(505), Epoch: 2},
				{Client: "bob", Asked: "n3", Call: at(800), Return: at(805)},
			},
			Kicks: []Kick{{Client: "bob", Epoch: 2, Call: at(600), Return: at(620)}},
		},
		Journals: map[string][]JournalLine{
			"n1": {
				{At: at(10), Event: journalUp, Incarnation: 1},
				{At: at(20), Event: journalLease, Incarnation: 1, Checked: at(15), Until: at(1865)},
				{At: at(120), Event: journalOpen, Incarnation: 1, Client: "bob", Epoch: 1, Session: session(8)},
				{At: at(212), Event: journalWrite, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(211), IDs: []wire.MessageID{id(1), id(2)}},
				{At: at(214), Event: journalTold, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(213), IDs: []wire.MessageID{id(2)}},
				{At: at(218), Event: journalTold, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(217), IDs: []wire.MessageID{id(1)}},
				{At: at(410), Event: journalFence, Incarnation: 1, Client: "bob", Epoch: 1},
				{At: at(5000), Event: journalLease, Incarnation: 1, Checked: at(4990), Until: at(7000)},
			},
			"n2": {
				{At: at(20), Event: journalLease, Incarnation: 4, Checked: at(15), Until: at(1865)},
				{At: at(420), Event: journalOpen, Incarnation: 4, Client: "bob", Epoch: 2, Session: session(9)},
				{At: at(512), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(511), IDs: []wire.MessageID{id(3)}},
				{At: at(514), Event: journalTold, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(513), IDs: []wire.MessageID{id(3)}},
				{At: at(610), Event: journalFence, Incarnation: 4, Client: "bob", Epoch: 2},
			},
		},
	}
}

func TestCheckersAcceptGoodRun(t *testing.T) {
	if found := Check(good()); len(found) > 0 {
		t.Fatal(found)
	}
}

// add appends lines to a node's journal.
func (e *Evidence) add(node string, lines ...JournalLine) {
	e.Journals[node] = append(e.Journals[node], lines...)
}

func TestCheckersRefuseBadRuns(t *testing.T) {
	for _, bad := range []struct {
		check, name string
		spoil       func(e *Evidence)
	}{
		{"lease", "a write past the lease", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(1900), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(1866), IDs: []wire.MessageID{id(8)}})
		}},
		{"lease", "an answer past the lease", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(1900), Event: journalTold, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(1866), IDs: []wire.MessageID{id(3)}})
		}},
		{"lease", "a write by the lease of another incarnation", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(5100), Event: journalWrite, Incarnation: 2, Client: "bob", Epoch: 3, Checked: at(5090), IDs: []wire.MessageID{id(8)}})
		}},
		{"lease", "a write by an incarnation that was given up", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(700), Event: journalDrop, Incarnation: 4},
				JournalLine{At: at(710), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(705), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "the former owner delivers after the next one opened", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(440), Event: journalWrite, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(430), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "delivery after the fence", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(416), Event: journalWrite, Incarnation: 1, Client: "bob", Epoch: 1, Checked: at(415), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "two nodes with one epoch", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(430), Event: journalOpen, Incarnation: 1, Client: "bob", Epoch: 2, Session: session(8)})
		}},
		{"one-owner", "a session that was never opened", func(e *Evidence) {
			e.add("n1", JournalLine{At: at(30), Event: journalWrite, Incarnation: 1, Client: "dave", Epoch: 3, Checked: at(30), IDs: []wire.MessageID{id(8)}})
		}},
		{"one-owner", "an SDK sees epochs fall", func(e *Evidence) {
			s := &e.History.SDKs[1]
			s.States = append(s.States, SDKState{At: at(300)}, SDKState{At: at(310), Connected: true, Epoch: 1})
		}},
		{"routes", "offline although the route was there all the time", func(e *Evidence) {
			e.History.Sends = append(e.History.Sends, Send{From: "alice", To: "bob", ID: id(9), Ack: wire.AckOwner, Call: at(200), Return: at(300), Code: wire.Offline, Timeout: at(1000)})
		}},
		{"routes", "the same, of a message without acknowledgement", func(e *Evidence) {
			e.History.Sends = append(e.History.Sends, Send{From: "alice", To: "bob", ID: id(9), Call: at(200), Timeout: at(1000)})
			e.History.Refused = []Refusal{{ID: id(9), At: at(300), Code: wire.Offline}}
		}},
		{"routes", "a stale look-up", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(450), Return: at(460), Epoch: 1})
		}},
		{"routes", "a look-up that finds what is not registered yet", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(200), Return: at(210), Epoch: 2})
		}},
		{"routes", "a route that comes back", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups,
				Lookup{Client: "bob", Call: at(650), Return: at(655)}, Lookup{Client: "bob", Call: at(700), Return: at(710), Epoch: 2})
		}},
		{"routes", "two reads that nobody's registration explains", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups,
				Lookup{Client: "eve", Call: at(100), Return: at(110), Epoch: 20}, Lookup{Client: "eve", Call: at(200), Return: at(210), Epoch: 19})
		}},
		{"delivered", "the client never had it", func(e *Evidence) { e.History.Received = e.History.Received[1:] }},
		{"delivered", "the owner never said so", func(e *Evidence) { e.Journals["n2"][3].IDs = nil }},
		{"order", "the later one first", func(e *Evidence) {
			r := e.History.Received
			r[0], r[1] = r[1], r[0]
		}},
		{"duplicates", "written twice to one session", func(e *Evidence) {
			e.Journals["n2"][2].IDs = append(e.Journals["n2"][2].IDs, id(3))
		}},
		{"duplicates", "handed out twice", func(e *Evidence) { e.History.Received = append(e.History.Received, e.History.Received[2]) }},
		{"answered", "never", func(e *Evidence) { e.History.Sends[3].Return = 0 }},
		{"answered", "too late", func(e *Evidence) { e.History.Sends[3].Return = at(9000) }},
		{"kicked", "delivery after the kick", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(641), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 2, Checked: at(640), IDs: []wire.MessageID{id(8)}})
		}},
	} {
		e := good()
		bad.spoil(e)
		var checks []string
		for _, v := range Check(e) {
			checks = append(checks, v.Check)
		}
		if !strings.Contains(strings.Join(checks, " "), bad.check) {
			t.Errorf("%s: not found by %q; found: %v", bad.name, bad.check, Check(e))
		}
	}
}

// What must not count as a violation, however odd it looks.
func TestCheckersAllow(t *testing.T) {
	for _, odd := range []struct {
		name string
		make func(e *Evidence)
	}{
		{"offline while the lease was lost and nobody said anything", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "bob", Call: at(900), Return: at(905)})
		}},
		{"a look just before a lease that had been granted when it ended", func(e *Evidence) {
			e.add("n2", JournalLine{At: at(3000), Event: journalLease, Incarnation: 4, Checked: at(2990), Until: at(4000)},
				JournalLine{At: at(3001), Event: journalOpen, Incarnation: 4, Client: "bob", Epoch: 5, Session: session(9)},
				JournalLine{At: at(3002), Event: journalWrite, Incarnation: 4, Client: "bob", Epoch: 5, Checked: at(2995), IDs: []wire.MessageID{id(8)}})
		}},
		{"overtaking after the sender lost its session", func(e *Evidence) {
			e.History.SDKs[0].States = append(e.History.SDKs[0].States, SDKState{At: at(212)}, SDKState{At: at(214), Connected: true, Epoch: 10})
			r := e.History.Received
			r[0], r[1] = r[1], r[0]
		}},
		{"a registration that only reads saw", func(e *Evidence) {
			e.History.Lookups = append(e.History.Lookups, Lookup{Client: "eve", Call: at(100), Return: at(110), Epoch: 20}, Lookup{Client: "eve", Call: at(200), Return: at(210)})
		}},
	} {
		e := good()
		odd.make(e)
		if found := Check(e); len(found) > 0 {
			t.Errorf("%s: %v", odd.name, found)
		}
	}
}

// The one-pass decision and the search agree on small random histories.
func TestRouteConflictAgreesWithSearch(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for range 3000 {
		var ts []*tenure
		clock := 0
		for i := range 1 + random.IntN(3) {
			clock += random.IntN(6)
			te := &tenure{client: "x", epoch: wire.Epoch(i + 1), by: life{"n", wire.Incarnation(i)}, opened: at(clock + 1), session: session(uint64(i + 1))}
			if random.IntN(3) > 0 {
				te.fenced = at(clock + 1 + random.IntN(6))
			}
			ts = append(ts, te)
		}
		dials := map[uint64]time.Duration{}
		for i := range ts {
			dials[uint64(i+1)] = at(max(0, int(ts[i].opened/time.Millisecond)-random.IntN(8)))
		}
		var reads []porcupine.Operation
		found := map[wire.Epoch]bool{}
		for range 1 + random.IntN(5) {
			epoch, call := wire.Epoch(random.IntN(len(ts)+1)), random.IntN(20)
			ret := at(call + random.IntN(6))
			found[epoch] = epoch != 0
			reads = append(reads, porcupine.Operation{Input: routeOp{epoch: epoch, until: int64(ret), what: fmt.Sprint("finds ", epoch)}, Call: int64(at(call)), Return: int64(ret)})
		}
		sets, gone := registrations(ts, found, dials, nil)
		fast := routeConflict(sets, reads, gone)
		count(sets, reads)
		ops := append(sets, telling(reads)...)
		// The search may accept a little more: it lets a route end anywhere within the read that found it gone.
		if !porcupine.CheckOperations(routeModel(gone), ops) && fast == "" {
			t.Fatalf("the search refuses what the other way accepts: %+v", ops)
		}
		if fast != "" {
			refused++
		}
	}
	if refused < 100 {
		t.Errorf("only %d of 3000 histories were refused: they prove little", refused)
	}
}

func TestParseJournal(t *testing.T) {
	lines, err := parseJournal([]byte("\n\n" + `{"at":1,"event":"open","incarnation":3,"client":"bob","epoch":2}` + "\n" +
		`{"at":2,"event":"write","client":"bob","epoch":2,"ids":[{"instance":"7","counter":"8"}]}` + "\n" +
		`{"at":3,"event":"wri` + "\n\n" + // cut short by a kill
		`{"at":4,"event":"up","incarnation":4}` + "\n" + `{"at":5`))
	if err != nil || len(lines) != 3 || lines[1].Incarnation != 3 || lines[1].IDs[0] != (wire.MessageID{Instance: 7, Counter: 8}) || lines[2].Event != journalUp {
		t.Fatalf("%+v, %v", lines, err)
	}
	if _, err := parseJournal([]byte("{\n{}\n")); err == nil {
		t.Fatal("a broken line in the middle is accepted")
	}
}
