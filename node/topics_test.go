package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// topicRig is a registry whose proposals wait until a test answers them.
type topicRig struct {
	*topics
	mu  sync.Mutex
	ops []operation
	log []raftfsm.OpKind
}

func newTopicRig() *topicRig {
	g := &topicRig{}
	g.topics = newTopics(func(op operation) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.ops = append(g.ops, op)
		g.log = append(g.log, op.Kind)
	}, func() bool { return true })
	return g
}

// answer answers the oldest proposal; false: there is none.
func (g *topicRig) answer(code raftfsm.OpCode, err error) bool {
	g.mu.Lock()
	if len(g.ops) == 0 {
		g.mu.Unlock()
		return false
	}
	op := g.ops[0]
	g.ops = g.ops[1:]
	g.mu.Unlock()
	op.told(raftfsm.OpResult{Code: code}, err)
	return true
}

var lobby = wire.Topic{Kind: wire.TopicGroup, Name: "lobby"}

func TestTopicsFirstInLastOut(t *testing.T) {
	g := newTopicRig()
	g.linger = 0
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.run(ctx) })
	defer func() { stop(); wg.Wait() }()
	a, b := &standIn{}, &standIn{}
	var told []string
	note := func(who string) func(*wire.Error) {
		return func(err *wire.Error) {
			if err != nil {
				who += " " + err.Code.String()
			}
			told = append(told, who)
		}
	}
	if !g.join(lobby, a, note("a")) || !g.join(lobby, b, note("b")) {
		t.Error("a Join was proposed, so what follows is answered later")
	}
	if len(told) != 0 || len(g.log) != 1 {
		t.Fatalf("told %v before the cluster was, by %v", told, g.log)
	}
	g.answer(raftfsm.OpOK, nil)
	g.join(lobby, a, note("a again"))
	if !slices.Equal(told, []string{"a", "b", "a again"}) || len(g.members(lobby)) != 2 {
		t.Fatalf("told %v", told)
	}
	g.leave(lobby, a)
	if g.leave(lobby, a) {
		t.Error("left twice")
	}
	g.leave(lobby, b)
	untilOr(t, "the last one out proposes Leave", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.log) != 2 || g.log[1] != raftfsm.Leave {
			return errors.New("not yet")
		}
		return nil
	})
	told = nil
	if g.join(lobby, b, note("b")) { // while the Leave is in a batch
		t.Error("whoever logs in now must wait for the Leave")
	}
	g.answer(raftfsm.OpOK, nil)
	if len(told) != 0 || g.log[len(g.log)-1] != raftfsm.Join {
		t.Fatalf("told %v by %v", told, g.log)
	}
	g.answer(raftfsm.OpOverloaded, nil)
	if !slices.Equal(told, []string{"b overloaded"}) || g.size(lobby) != 0 || g.stats() != (topicStats{}) {
		t.Errorf("told %v, %+v", told, g.stats())
	}
	told = nil
	g.join(lobby, a, note("a"))
	g.answer(0, errEnded)
	if !slices.Equal(told, []string{"a unavailable"}) || g.size(lobby) != 0 {
		t.Errorf("told %v", told)
	}
}

// TestTopicsLinger: a member that comes and goes costs one entry, and the Leave comes a while after the last one left.
func TestTopicsLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newTopicRig()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.run(ctx) })
		m := &standIn{}
		for range 50 {
			g.join(lobby, m, func(*wire.Error) {})
			g.answer(raftfsm.OpOK, nil)
			g.leave(lobby, m)
		}
		if len(g.log) != 1 {
			t.Errorf("%d entries for a member that flaps", len(g.log))
		}
		stop()
		wg.Wait()
	})
}

// TestTopicsConverge: whatever members do and however answers come, in the end the cluster has been told what is so.
func TestTopicsConverge(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		g := newTopicRig()
		g.linger = 0
		members := []*standIn{{}, {}, {}}
		joined, answered, in := 0, 0, map[*standIn]bool{}
		step := func() {
			switch m := members[rnd.IntN(3)]; rnd.IntN(5) {
			case 0, 1:
				joined++
				in[m] = true
				g.join(lobby, m, func(*wire.Error) { answered++ })
			case 2:
				delete(in, m)
				g.leave(lobby, m)
			case 3:
				g.answer(raftfsm.OpOK, nil)
			case 4:
				sweepTopics(g.topics)
			}
		}
		for range 60 {
			step()
		}
		for more := true; more; {
			sweepTopics(g.topics)
			more = g.answer(raftfsm.OpOK, nil)
		}
		lt := g.shard(lobby).by[lobby]
		if agreed := lt != nil && lt.agreed; agreed != (len(in) > 0) || g.size(lobby) != len(in) || joined != answered || int(g.count.Load()) != len(in) {
			t.Fatalf("%d members, agreed %v, size %d, count %d; %d of %d joins answered; %v", len(in), agreed, g.size(lobby), g.count.Load(), answered, joined, g.log)
		}
	}
}

// sweepTopics does what run does, for what is due.
func sweepTopics(ts *topics) {
	for {
		ts.mu.Lock()
		if len(ts.leaves) == 0 || ts.leaves[0].due > now() {
			ts.mu.Unlock()
			return
		}
		t := ts.leaves[0].topic
		ts.leaves = ts.leaves[1:]
		ts.mu.Unlock()
		ts.due(t)
	}
}

func TestTopicsClear(t *testing.T) {
	g := newTopicRig()
	ms := []*standIn{{}, {}, {}}
	var why wire.Code
	for _, m := range ms {
		g.join(lobby, m, func(err *wire.Error) {
			if err != nil {
				why = err.Code
			}
		})
	}
	if n := g.clear(lobby, wire.GroupClosed, ""); n != 3 || why != wire.GroupClosed || g.size(lobby) != 0 || g.count.Load() != 0 {
		t.Errorf("%d removed, told %v", n, why)
	}
	g.answer(raftfsm.OpOK, nil)
	if g.topics.linger < time.Millisecond || len(g.leaves) == 0 {
		t.Error("the cluster is never told that nobody is left")
	}
}
