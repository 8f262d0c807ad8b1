package node

import (
	"context"
	"sync"

	"imroute/mesh/wire/mutate"
)

// rounds lets many callers share one expensive question. Who asks joins the *next* round to start, never one under way:
// the answer must come from after the question was asked. At most one round runs and one waits.
type rounds[Q, A any] struct {
	ask    func(ctx context.Context, qs []Q) ([]A, error) // one round, an answer for each q; ctx ends when the rounds are closed
	closed context.Context

	mu      sync.Mutex
	running bool
	over    bool // wait was called
	next    *round[Q, A]
	wg      sync.WaitGroup
}

type round[Q, A any] struct {
	questions []Q
	done      chan struct{}
	answers   []A
	err       error
}

// newRounds: ctx ends all rounds, those waiting for them included.
func newRounds[Q, A any](ctx context.Context, ask func(context.Context, []Q) ([]A, error)) *rounds[Q, A] {
	return &rounds[Q, A]{ask: ask, closed: ctx}
}

// do waits for the answer of a round that started after the call, or for ctx.
func (r *rounds[Q, A]) do(ctx context.Context, q Q) (A, error) {
	var none A
	mine, i := r.join(q)
	if mine == nil {
		return none, context.Cause(r.closed)
	}
	select {
	case <-mine.done:
		if mine.err != nil {
			return none, mine.err
		}
		if mutate.RoundJoinedLate {
			i = min(i, len(mine.answers)-1) // it was not among the questions, and they are all the same
		}
		return mine.answers[i], nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// join returns nil when the rounds are closed.
func (r *rounds[Q, A]) join(q Q) (mine *round[Q, A], i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.closed.Err() != nil { // nobody waits for a goroutine that starts now
		return nil, 0
	}
	if r.next == nil {
		r.next = &round[Q, A]{done: make(chan struct{})}
	}
	mine, i = r.next, len(r.next.questions)
	mine.questions = append(mine.questions, q)
	if !r.running {
		r.running = true
		r.wg.Add(1)
		go r.run()
	}
	return mine, i
}

func (r *rounds[Q, A]) run() {
	defer r.wg.Done()
	for {
		r.mu.Lock()
		current := r.next
		if !mutate.RoundJoinedLate || !r.alike() {
			r.next = nil
		}
		if current == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		questions := current.questions
		r.mu.Unlock()
		current.answers, current.err = r.ask(r.closed, questions)
		if mutate.RoundJoinedLate && r.alike() {
			r.mu.Lock()
			r.next = nil
			r.mu.Unlock()
		}
		close(current.done)
	}
}

// alike: there is only one question, so a round has an answer for those as well who joined it late.
func (r *rounds[Q, A]) alike() bool {
	_, one := any(*new(Q)).(struct{})
	return one
}

// wait returns when no round runs any more; the context given at construction must have ended.
func (r *rounds[Q, A]) wait() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.wg.Wait()
}
