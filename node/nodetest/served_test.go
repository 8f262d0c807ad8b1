package nodetest

import (
	"testing"
	"time"

	"imroute/mesh/wire"
)

// calm is a run in which bob is at n1 from 121 to 4000 and then at n2, while operators do what is in order.
func calm() *Evidence {
	return &Evidence{History: Snapshot{
		Ended:   at(10_000),
		Orderly: []Span{{at(100), at(9000)}},
		SDKs: []SDK{
			{Number: 0, Client: "alice", Instance: 7, Dial: at(100), States: []SDKState{{At: at(110), Connected: true, Epoch: 9, Node: "n3"}}},
			{Number: 1, Client: "bob", Instance: 8, Dial: at(100), States: []SDKState{
				{At: at(121), Connected: true, Epoch: 1, Node: "n1"}, {At: at(4000), Code: wire.Draining}, {At: at(4010), Connected: true, Epoch: 2, Node: "n2"},
			}},
		},
	}}
}

func failedSend(call, ret time.Duration, code wire.Code) Send {
	return Send{SDK: 0, From: "alice", To: "bob", ID: id(1), Ack: wire.AckOwner, Timeout: at(3000), Call: call, Return: ret, Code: code}
}

func failedErrand(call time.Duration) Errand {
	return Errand{From: "alice", To: "bob", Timeout: at(5000), Call: call, Return: call + at(5000), Tries: 20, Code: wire.Unavailable}
}

func TestServedRefusesBadRuns(t *testing.T) {
	for name, spoil := range map[string]func(e *Evidence){
		"offline, and the recipient was there": func(e *Evidence) {
			e.History.Sends = []Send{failedSend(at(500), at(510), wire.Offline)}
		},
		"a time-out, and the recipient was there": func(e *Evidence) {
			e.History.Sends = []Send{failedSend(at(500), at(3500), wire.Timeout)}
		},
		"an errand to one who stayed": func(e *Evidence) { e.History.Errands = []Errand{failedErrand(at(500))} },
		"an errand to one who moved":  func(e *Evidence) { e.History.Errands = []Errand{failedErrand(at(3500))} },
	} {
		e := calm()
		if found := checkServed(e); len(found) > 0 {
			t.Fatal(found)
		}
		spoil(e)
		if found := checkServed(e); len(found) != 1 {
			t.Errorf("%s: found %v", name, found)
		}
		e.History.Orderly = []Span{{at(100), at(400)}} // then a node was killed, say
		if found := checkServed(e); len(found) != 0 {
			t.Errorf("%s, while nothing was in order: %v", name, found)
		}
	}
}

func TestServedAcceptsWhatCouldNotBe(t *testing.T) {
	for name, spoil := range map[string]func(e *Evidence){
		"the recipient moved meanwhile": func(e *Evidence) {
			e.History.Sends = []Send{failedSend(at(3000), at(5000), wire.Unavailable)}
		},
		"it went a moment later": func(e *Evidence) {
			e.History.Sends = []Send{failedSend(at(3980), at(3990), wire.Offline)}
		},
		"a queue was full": func(e *Evidence) {
			e.History.Sends = []Send{failedSend(at(500), at(510), wire.Overloaded)}
		},
		"the sender was kicked": func(e *Evidence) {
			e.History.SDKs[0].States = append(e.History.SDKs[0].States, SDKState{At: at(505), Code: wire.Kicked})
			e.History.Sends = []Send{failedSend(at(500), at(510), wire.Unknown)}
		},
		"the sender was closed": func(e *Evidence) {
			d := failedErrand(at(500))
			d.GivenUp = true
			e.History.Errands = []Errand{d}
		},
		"the recipient was hardly ever there": func(e *Evidence) {
			e.History.SDKs[1].States = []SDKState{{At: at(3100), Connected: true, Epoch: 1, Node: "n1"}}
			e.History.SDKs[1].Closed = at(3600)
			e.History.Errands = []Errand{failedErrand(at(1000))}
		},
	} {
		e := calm()
		spoil(e)
		if found := checkServed(e); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}
