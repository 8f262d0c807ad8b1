package raftfsm

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"

	"imroute/mesh/wire"
)

// waiters are goroutines that wait for an applied index.
type waiters struct {
	stopped chan struct{} // closed when nothing more will be applied
	n       atomic.Int64  // how many wait or are about to; lets wake go past without the lock
	mu      sync.Mutex
	heap    waiterHeap // guarded by mu
}

type waiter struct {
	index uint64
	ready chan struct{}
	at    int // in the heap; -1 once woken
}

type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].index < h[j].index }

func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *waiterHeap) Push(x any) {
	w := x.(*waiter)
	w.at = len(*h)
	*h = append(*h, w)
}

func (h *waiterHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.at = -1
	return w
}

// wake is called after the applied index was stored.
func (ws *waiters) wake(index uint64) {
	if ws.n.Load() == 0 {
		return
	}
	ws.mu.Lock()
	for len(ws.heap) > 0 && ws.heap[0].index <= index {
		close(heap.Pop(&ws.heap).(*waiter).ready)
	}
	ws.mu.Unlock()
}

// Applied is the index of the last entry this node's table has applied.
func (f *FSM) Applied() uint64 { return f.applied.Load() }

// WaitApplied returns once the table has applied index, with ctx's cause when ctx ends first, or with an error wrapping
// ErrStopped.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	if f.applied.Load() >= index {
		return nil
	}
	ws := &f.waiters
	ws.n.Add(1) // before applied is read again: wake reads them the other way round
	defer ws.n.Add(-1)
	w := &waiter{index: index, ready: make(chan struct{})}
	ws.mu.Lock()
	if f.applied.Load() >= index {
		ws.mu.Unlock()
		return nil
	}
	heap.Push(&ws.heap, w)
	ws.mu.Unlock()
	var err error
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-ws.stopped:
		err = *f.failed.Load()
	}
	ws.mu.Lock()
	if w.at >= 0 {
		heap.Remove(&ws.heap, w.at)
	}
	ws.mu.Unlock()
	return err
}

// WaitIncarnationEnd returns once that incarnation of a node has ended in the table: a later one began, or the node is Down or
// removed. An incarnation or node that this table has not heard of yet has not ended. The error is ctx's cause, or wraps
// ErrStopped.
func (f *FSM) WaitIncarnationEnd(ctx context.Context, id wire.NodeID, inc wire.Incarnation) error {
	for {
		f.metaMu.RLock()
		ended := f.table.ended(id, inc)
		changed := f.changed
		f.metaMu.RUnlock()
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.waiters.stopped:
			return *f.failed.Load()
		}
	}
}

func (t *Table) ended(id wire.NodeID, inc wire.Incarnation) bool {
	m := t.nodes[id]
	if m == nil {
		_, removed := t.removed[id]
		return removed
	}
	return m.Incarnation > inc || m.Incarnation == inc && m.State == Down
}
