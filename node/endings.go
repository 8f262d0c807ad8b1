package node

import (
	"context"
	"maps"
	"slices"
	"sync"

	"imroute/mesh/wire"
	"imroute/node/pace"
	"imroute/raftfsm"
)

// endings tells those who wait for it that an incarnation has ended. They share a goroutine: all clients of a node that died
// log in elsewhere at once, and wait for the same.
type endings struct {
	fsm *raftfsm.FSM
	mu  sync.Mutex
	of  map[incarnationOf]*ending
}

type incarnationOf struct {
	node        wire.NodeID
	incarnation wire.Incarnation
}

type ending struct {
	asking  turns
	stop    context.CancelFunc
	stopped chan struct{}
	waiting map[*func()]struct{}
}

func newEndings(fsm *raftfsm.FSM) *endings {
	return &endings{fsm: fsm, of: make(map[incarnationOf]*ending)}
}

// maxAsking is how many ask one holder at a time: when it does not answer they all find that out together, and try again.
const maxAsking = 128

// turns are places for those who ask.
type turns chan struct{}

// take waits for a place, which pass gives back; wait is called first if there is none. The error is ctx's cause.
func (t turns) take(ctx context.Context, wait func()) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	wait()
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turns) pass() { <-t }

// watch has tell called when that incarnation has ended in the table, unless done is called before, as it has to be in the end.
// tell must not wait; it may still be under way when done has returned. asking is shared by all who watch.
func (e *endings) watch(node wire.NodeID, inc wire.Incarnation, tell func()) (asking turns, done func()) {
	key := incarnationOf{node, inc}
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.of[key]
	if w == nil {
		ctx, stop := context.WithCancel(context.Background())
		w = &ending{stop: stop, stopped: make(chan struct{}), asking: make(turns, maxAsking), waiting: make(map[*func()]struct{})}
		e.of[key] = w
		go e.await(ctx, key, w)
	}
	w.waiting[&tell] = struct{}{}
	return w.asking, func() { e.left(key, w, &tell) }
}

func (e *endings) await(ctx context.Context, key incarnationOf, w *ending) {
	defer close(w.stopped)
	if e.fsm.WaitIncarnationEnd(ctx, key.node, key.incarnation) != nil {
		return
	}
	e.mu.Lock()
	if e.of[key] == w {
		delete(e.of, key) // who comes now gets a goroutine that ends at once
	}
	all := slices.Collect(maps.Keys(w.waiting))
	e.mu.Unlock()
	var p pace.Pacer
	for _, tell := range all {
		e.mu.Lock()
		_, waits := w.waiting[tell]
		e.mu.Unlock()
		if waits { // who has left meanwhile holds nobody up: a node that closes waits for this
			p.Next()
			(*tell)()
		}
	}
}

func (e *endings) left(key incarnationOf, w *ending, tell *func()) {
	e.mu.Lock()
	delete(w.waiting, tell)
	last := len(w.waiting) == 0
	if last && e.of[key] == w {
		delete(e.of, key)
	}
	e.mu.Unlock()
	if last {
		w.stop()
		<-w.stopped
	}
}
