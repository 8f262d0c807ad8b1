package node

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// maxBatch bounds the operations of one entry: a thousand make the cost of an entry small for each, and an Apply of that many
// still takes no more than some milliseconds.
const maxBatch = raftfsm.MaxOps

// operation is one registration or removal on its way through a batch.
type operation struct {
	raftfsm.Op
	session session     // of a Register
	answer  chan answer // of a Register: capacity 1; answered exactly once

	told func(raftfsm.OpResult, error) // of a Join or Leave: called exactly once, must not block
}

// answer of the state machine to one operation, or why there is none.
type answer struct {
	raftfsm.OpResult
	index    uint64
	tookOver bool  // another SDK instance's session here was closed for it
	err      error // the incarnation ended before the operation was answered
}

// proposer brings this incarnation's registrations to the leader: one batch in flight, the next filling meanwhile. A batch
// whose outcome is unknown is sent again unchanged until it is answered or the incarnation ends: the state machine
// answers a copy as it answered the original. One proposer serves one incarnation.
type proposer struct {
	node        wire.NodeID
	incarnation wire.Incarnation
	propose     func(ctx context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) // until answered, or ctx ends
	answered    func(ops []operation, r raftfsm.Result)                                 // in op order; returns when every session was told

	mu       sync.Mutex
	queue    []operation
	flying   []operation // of the batch in flight
	inflight uint64      // seq of the batch whose sessions are not all told yet; 0: none
	index    uint64      // of the last batch answered
	refused  []wire.ClientID
	ended    error
	wake     chan struct{} // capacity 1

	stats *proposerStats
}

func newProposer(node wire.NodeID, inc wire.Incarnation) *proposer {
	return &proposer{node: node, incarnation: inc, wake: make(chan struct{}, 1)}
}

// add queues an operation. The queue holds at most one operation per open or opening session and one per topic, so the limits
// on sessions and memberships bound it. After the end of the incarnation the operation is answered at once.
func (p *proposer) add(op operation) {
	p.mu.Lock()
	if p.ended != nil {
		err := p.ended
		p.mu.Unlock()
		op.fail(err)
		return
	}
	p.queue = append(p.queue, op)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (op *operation) fail(err error) {
	if op.answer != nil {
		op.answer <- answer{err: err}
	}
	if op.told != nil {
		op.told(raftfsm.OpResult{}, err)
	}
}

// revoking runs decide (claims.revoke) with the number of the batch whose answers may still bring refused epochs; no batch
// starts or ends meanwhile.
func (p *proposer) revoking(client wire.ClientID, decide func(inflight uint64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	decide(p.inflight)
	if p.inflight != 0 {
		p.refused = append(p.refused, client)
	}
}

// together runs decide and queues the operation it returns, if any (none with an answer), in one step: no batch starts or
// ends and no Revoke takes a session away in between.
func (p *proposer) together(decide func() *operation) {
	p.mu.Lock()
	op := decide()
	if op != nil && p.ended == nil {
		p.queue = append(p.queue, *op)
	}
	p.mu.Unlock()
	if op != nil {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// run proposes until ctx ends or the incarnation is over, then answers what is left with the cause and returns it. forget is told which refusals are obsolete.
func (p *proposer) run(ctx context.Context, forget func(seq uint64, clients []wire.ClientID)) error {
	var err error
	for seq := uint64(1); err == nil; seq++ {
		var ops []operation
		if ops, err = p.take(ctx, seq); err != nil {
			break
		}
		cmd := &raftfsm.Command{Kind: raftfsm.KindBatch, Node: p.node, Incarnation: p.incarnation, Seq: seq, Ops: make([]raftfsm.Op, len(ops))}
		for i := range ops {
			cmd.Ops[i] = ops[i].Op
		}
		var r raftfsm.Result
		started := time.Now()
		if r, err = p.propose(ctx, cmd); err == nil && (r.Code != wire.OK || len(r.Ops) != len(ops)) {
			err = &wire.Error{Code: wire.BadIncarnation, Text: fmt.Sprintf("batch %d of incarnation %d: %s %s", seq, p.incarnation, r.Code, r.Text)}
		}
		if err != nil {
			for i := range ops {
				ops[i].fail(err)
			}
			break
		}
		p.stats.batch(len(ops), time.Since(started))
		p.answered(ops, r)
		p.mu.Lock()
		clients := p.refused
		p.refused, p.inflight, p.flying, p.index = nil, 0, nil, max(p.index, r.Index)
		p.mu.Unlock()
		forget(seq, clients)
		// Whoever is ready to run may have another operation: one that comes a moment after the batch was taken waits for a
		// whole round of it.
		runtime.Gosched()
	}
	p.mu.Lock()
	left := p.queue
	p.queue, p.flying, p.ended = nil, nil, err
	p.mu.Unlock()
	for i := range left {
		left[i].fail(err)
	}
	return err
}

// take waits for operations and marks them as in flight under seq.
func (p *proposer) take(ctx context.Context, seq uint64) ([]operation, error) {
	for {
		p.mu.Lock()
		if n := min(len(p.queue), maxBatch); n > 0 {
			ops := p.queue[:n:n]
			if p.queue = p.queue[n:]; len(p.queue) == 0 {
				p.queue = nil
			}
			p.inflight, p.flying = seq, ops
			p.mu.Unlock()
			return ops, nil
		}
		p.mu.Unlock()
		select {
		case <-p.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
