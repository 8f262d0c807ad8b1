package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// leaderCall asks whoever leads, wherever that is.
type leaderCall struct {
	self   wire.NodeID
	leader func() (wire.NodeID, bool) // as Raft here knows
	call   func(ctx context.Context, to wire.NodeID, kind wire.CallKind, req []byte) ([]byte, error)

	// leaderChange waits until what leader says may be another answer than before; false: ctx ended. Its argument is what it
	// returned last, zero at first. nil: nobody is told.
	leaderChange func(ctx context.Context, known store.Leadership) (store.Leadership, bool)

	hint atomic.Uint64 // the node that somebody named as leader last
}

// verdict is what every answer of the leader begins with.
type verdict interface {
	Verdict() (code wire.Code, leader wire.NodeID)
}

// once makes one attempt. The answer's code is for the caller to judge, except that NotLeader is an error here.
//
// A leader that dies closes no connection, so the answer is waited for no longer than Raft here knows of no other leader. What
// was asked may have taken effect, as with any call that fails on its way.
func (c *leaderCall) once(ctx context.Context, kind wire.CallKind, req any, reply verdict) error {
	to, ok := c.leader()
	known := to
	if hint := wire.NodeID(c.hint.Swap(0)); hint != 0 && (!ok || to == c.self && hint != c.self) {
		to, ok = hint, true
	}
	if !ok {
		return &wire.Error{Code: wire.Unavailable, Text: "no leader is known: fewer than a majority of the voters can talk to each other"}
	}
	b, err := wire.Marshal(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.leaderChange != nil && to != c.self {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			c.watchLeader(ctx, known, to, cancel)
		}()
		defer func() { cancel(nil); <-watched }()
	}
	if b, err = c.call(ctx, to, kind, b); err != nil {
		if errors.Is(context.Cause(ctx), errNotLeader) {
			err = errNotLeader
		}
		return fmt.Errorf("asking the leader %s: %w", to, err)
	}
	if err := wire.Unmarshal(b, reply); err != nil {
		return fmt.Errorf("answer of the leader %s: %w", to, err)
	}
	if code, leader := reply.Verdict(); code == wire.NotLeader {
		if leader != 0 && leader != to {
			c.hint.Store(uint64(leader))
		}
		return errNotLeader
	}
	return nil
}

// watchLeader ends a call to to once Raft here knows of a leader that is neither it nor known.
func (c *leaderCall) watchLeader(ctx context.Context, known, to wire.NodeID, end context.CancelCauseFunc) {
	var seen store.Leadership
	for ok := true; ok; {
		if now, is := c.leader(); is && now != known && now != to {
			end(errNotLeader)
			return
		}
		seen, ok = c.leaderChange(ctx, seen)
	}
}

// until repeats the question until it is answered with something else than "not leader", "not ready" or "outcome unknown",
// or ctx ends. Only for questions that may be asked twice. perTry bounds one attempt.
func (c *leaderCall) until(ctx context.Context, kind wire.CallKind, req any, reply verdict, perTry time.Duration) error {
	wait := 5 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, perTry)
		err := c.once(try, kind, req, reply)
		cancel()
		if err == nil {
			code, _ := reply.Verdict()
			if code != wire.NotReady && code != wire.Unknown && code != wire.Unavailable && code != wire.Overloaded {
				return nil
			}
			err = &wire.Error{Code: code}
		}
		if ctx.Err() != nil || !sleep(ctx, wait/2+rand.N(wait)) {
			return &wire.Error{Code: wire.Unavailable, Text: fmt.Sprintf("no answer from a leader in time (%v): check `imctl cluster health`", lastCause(ctx, err))}
		}
		wait = min(2*wait, 200*time.Millisecond)
	}
}

// lastCause prefers what went wrong last over the bare end of the context.
func lastCause(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	return context.Cause(ctx)
}

// propose brings a command to the leader until the state machine has answered it.
func (c *leaderCall) propose(ctx context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) {
	b, err := raftfsm.Encode(cmd)
	if err != nil {
		return raftfsm.Result{}, err
	}
	var reply wire.ProposeReply
	if err := c.until(ctx, wire.CallPropose, wire.ProposeRequest{Command: b}, &reply, proposeTry); err != nil {
		return raftfsm.Result{}, err
	}
	if reply.Code != wire.OK {
		return raftfsm.Result{}, &wire.Error{Code: reply.Code, Text: reply.Text}
	}
	return raftfsm.DecodeResult(reply.Result)
}

// proposeTry bounds one attempt to propose: past it the leader is asked again, who may be another by then.
const proposeTry = 3 * time.Second

// located is the answer of a linearizable read.
type located struct {
	route raftfsm.Route
	found bool
	index uint64 // at which it was read

	devices bool // not found, but devices of that user are
}

// read asks who owns these clients, as one question. The answers come from the leader's table: a follower learns of a
// commit up to 100 ms late when nothing else is going on, and nobody should wait for that.
func (c *leaderCall) read(ctx context.Context, clients []wire.ClientID) ([]located, error) {
	out := make([]located, 0, len(clients))
	for part := range slices.Chunk(clients, wire.MaxRead) {
		var reply wire.ReadReply
		if err := c.until(ctx, wire.CallRead, wire.ReadRequest{Clients: part}, &reply, time.Second); err != nil {
			return nil, err
		}
		if reply.Code != wire.OK || len(reply.Owners) != len(part) {
			return nil, &wire.Error{Code: reply.Code, Text: "linearizable read"}
		}
		for i, o := range reply.Owners {
			out = append(out, located{
				found: o.Node != 0, index: reply.Index, devices: o.Devices > 0,
				route: raftfsm.Route{Client: part[i], Node: o.Node, Incarnation: o.Incarnation, Session: o.Session, Epoch: o.Epoch},
			})
		}
	}
	return out, nil
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
