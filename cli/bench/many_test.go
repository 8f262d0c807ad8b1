package bench

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"imroute/node/client"
)

// Every copy that is missing, came twice or late, and every message that did not reach all, is a problem of a group's run.
func TestGroupJudge(t *testing.T) {
	good := func() *group {
		g := &group{
			o: GroupOptions{Members: 2, Senders: 1, Size: MinSize}, books: make([]ledger, 2), members: newFleet(0, "m"), senders: newFleet(0, "s"),
			latency: newStripes(1), answers: newStripes(1), codes: map[string]int64{"timeout": 1},
		}
		b := make([]byte, MinSize)
		for i := range g.books {
			g.books[i].next = make([]uint32, 1)
			for seq := range uint32(3) {
				stamp{seq: seq}.put(b)
				g.take(i, b)
			}
		}
		g.sent.Store(3)
		g.reached.Store(6)
		return g
	}
	g, r := good(), Result{}
	if g.judge(&r, &GroupResult{Members: 2}); len(r.Problems) > 0 || g.copies.Load() != 6 || r.Group.Messages != 3 {
		t.Fatalf("%q, %+v", r.Problems, r.Group)
	}
	again := make([]byte, MinSize)
	for want, spoil := range map[string]func(*group){
		"1 message was lost":        func(g *group) { g.reached.Store(7) },
		"1 message arrived twice":   func(g *group) { g.take(1, again) },
		"1 message arrived damaged": func(g *group) { g.take(0, again[:3]) },
		"behind a later one": func(g *group) {
			b := make([]byte, MinSize)
			for _, seq := range []uint32{4, 3} {
				stamp{seq: seq}.put(b)
				g.take(0, b)
			}
		},
		"did not reach all 2 members: 1 timeout": func(g *group) { g.short.Store(1) },
		"1 session was lost":                     func(g *group) { g.senders.moved.Store(1) },
	} {
		g, r := good(), Result{}
		spoil(g)
		if g.judge(&r, &GroupResult{Members: 2}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], want) {
			t.Errorf("%q, want one with %q", r.Problems, want)
		}
	}
}

// Requests that nobody answered or that were carried out twice are problems, and how the instances share them is told.
func TestServiceJudge(t *testing.T) {
	v := &service{
		o: ServiceOptions{Instances: 2, Askers: 1, Size: MinSize}, instances: newFleet(0, "v/"), askers: newFleet(0, "a"),
		done: make([]carried, 1), handled: make([]atomic.Int64, 2), latency: newStripes(1), failed: map[string]int64{},
	}
	handle := func(instance int, seq uint32) {
		b := make([]byte, MinSize)
		stamp{seq: seq}.put(b)
		if answer, err := v.handler(instance)(t.Context(), client.Request{Payload: b}); err != nil || !bytes.Equal(answer, b) {
			t.Fatal(answer, err)
		}
	}
	for seq := range uint32(100) {
		handle(min(int(seq)/75, 1), seq)
	}
	var r Result
	if v.judge(&r); len(r.Problems) > 0 || r.Service.LeastShare != 0.5 || r.Service.MostShare != 1.5 {
		t.Fatalf("%q, %+v", r.Problems, r.Service)
	}
	handle(1, 64) // the other one had it
	if _, err := v.handler(0)(t.Context(), client.Request{Payload: []byte("short")}); err != nil {
		t.Fatal(err)
	}
	v.failed["unknown"] = 2
	v.askers.moved.Store(1)
	r = Result{}
	v.judge(&r)
	if got := strings.Join(r.Problems, "; "); got != "2 requests were not answered: 2 unknown; 1 request was carried out twice; 1 request or answer arrived damaged; 1 session was lost" {
		t.Error(got)
	}
}
