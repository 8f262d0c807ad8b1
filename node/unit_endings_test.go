package node

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// Many wait for the end of one incarnation: there is one goroutine for them, which is gone with the last of them.
func TestEndingsAreShared(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	fsm := raftfsm.NewFSM(raftfsm.FSMConfig{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	e := newEndings(fsm)
	want := func(n int) {
		t.Helper()
		if len(e.of) != n {
			t.Fatalf("%d incarnations are watched, want %d", len(e.of), n)
		}
	}
	never := func() { t.Error("told of an end that was none") }
	watch := func(inc wire.Incarnation, tell func()) (done func()) {
		_, done = e.watch(2, inc, tell)
		return done
	}
	leave, leaveAgain, leaveOther := watch(1, never), watch(1, never), watch(2, never)
	want(2)
	leave()
	want(2)
	leaveAgain()
	want(1)
	leaveOther()
	want(0)

	log := entries{t: t, fsm: fsm}
	log.apply(&raftfsm.Command{Kind: raftfsm.KindInit, ClusterID: 7})
	log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 2, Name: "n2"})
	log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeUp, Node: 2, Boot: 1})
	up, _ := fsm.Node(2)
	const many = 25
	var told atomic.Int64
	all := make(chan struct{})
	for range many {
		defer watch(up.Incarnation, func() {
			if told.Add(1) == many {
				close(all)
			}
		})()
	}
	gone := watch(up.Incarnation, never)
	gone()
	log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeDown, Node: 2, Incarnation: up.Incarnation})
	late := make(chan struct{})
	defer watch(up.Incarnation, func() { close(late) })()
	for _, c := range []chan struct{}{all, late} {
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d were told of the end", told.Load(), many)
		}
	}
}

// A crowd that waits for one end is told of it at a pace, and who has left by then holds nobody up.
func TestEndingsArePaced(t *testing.T) {
	for _, leave := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fsm := raftfsm.NewFSM(raftfsm.FSMConfig{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
			log := entries{t: t, fsm: fsm}
			log.apply(&raftfsm.Command{Kind: raftfsm.KindInit, ClusterID: 7})
			log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 2, Name: "n2"})
			log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeUp, Node: 2, Boot: 1})
			up, _ := fsm.Node(2)
			e := newEndings(fsm)
			many := 2_000 * runtime.GOMAXPROCS(0)
			var told sync.WaitGroup
			var n atomic.Int64
			var done []func()
			for range many {
				told.Add(1)
				_, d := e.watch(2, up.Incarnation, func() { n.Add(1); told.Done() })
				done = append(done, d)
			}
			start := time.Now()
			log.apply(&raftfsm.Command{Kind: raftfsm.KindNodeDown, Node: 2, Incarnation: up.Incarnation})
			if leave {
				synctest.Wait()
			} else {
				told.Wait()
			}
			for _, d := range done {
				d()
			}
			took := time.Since(start)
			switch {
			case leave && (took > 5*time.Millisecond || n.Load() > int64(many)/2):
				t.Errorf("%d of %d were told although they had left, which took %s", n.Load(), many, took)
			case !leave && (took < 50*time.Millisecond || took > 2*time.Second):
				t.Errorf("%d were told within %s", many, took)
			}
		})
	}
}

// However many want to ask one holder, so many do at a time, and who does not get a place is told that it takes longer.
func TestTurns(t *testing.T) {
	all := make(turns, 1)
	if err := all.take(t.Context(), func() { t.Error("has to wait for a free place") }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := all.take(ctx, func() { cancel(errEnded) }); !errors.Is(err, errEnded) {
		t.Fatalf("a place that is taken was given again, or the wait did not end with its context: %v", err)
	}
	all.pass()
	if err := all.take(t.Context(), func() { t.Error("has to wait for a place that was given back") }); err != nil {
		t.Fatal(err)
	}
}
