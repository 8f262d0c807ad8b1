package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

const (
	drainSpread = 5 * time.Second  // over which the goaways are spread
	drainGrace  = 10 * time.Second // from a client's goaway to its kick
)

// runDrain empties the node's sessions while the table says Draining, until ctx ends.
func (n *Node) runDrain(ctx context.Context) error {
	changes := n.fsm.Subscribe(64, raftfsm.NodeChanged)
	defer changes.Close()
	for {
		node, ok := n.fsm.Node(n.id)
		draining := ok && node.Drain
		if was := n.drainIntent.Swap(draining); draining {
			if !was {
				n.log.Info("draining: clients are told where else to go")
			}
			n.admission.draining(true)
			n.emptySessions(ctx)
		} else if was {
			n.log.Info("drain cancelled")
			n.admission.draining(false)
		}
		for {
			e, err := changes.Next(ctx)
			if err != nil {
				return nil // ctx ended
			}
			if e.Kind == raftfsm.Resync || e.Kind == raftfsm.NodeChanged && e.Node.ID == n.id {
				break
			}
		}
	}
}

// admission lets logins in while the node has a lease, or lost it a short while ago only, and is not draining. It learns of
// the two from different sides.
type admission struct {
	gateway *gateway.Gateway // fixed by Open

	mu              sync.Mutex
	hasLease, drain bool
}

func (a *admission) leased(v bool)   { a.change(&a.hasLease, v) }
func (a *admission) draining(v bool) { a.change(&a.drain, v) }

func (a *admission) change(what *bool, v bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*what = v
	switch {
	case a.drain:
		a.gateway.SetAccepting(false, wire.Draining)
	case !a.hasLease:
		a.gateway.SetAccepting(false, wire.NoQuorum)
	default:
		a.gateway.SetAccepting(true, 0)
	}
}

// emptySessions tells every session to go, some at a time; the gateway kicks those that are still here after drainGrace.
func (n *Node) emptySessions(ctx context.Context) {
	var all []*gateway.Session
	n.gateway.Sessions(func(s *gateway.Session) bool {
		all = append(all, s)
		return true
	})
	const steps = 50
	for i := range steps {
		if node, ok := n.fsm.Node(n.id); !ok || !node.Drain {
			return // cancelled
		}
		for _, s := range all[len(all)*i/steps : len(all)*(i+1)/steps] {
			s.Goaway(wire.Draining, drainGrace)
		}
		if len(all) == 0 || !sleep(ctx, min(drainSpread, time.Duration(len(all))*time.Millisecond)/steps) {
			return
		}
	}
}

// askedToLeave has the node leave, and go on with that after a restart.
func (n *Node) askedToLeave(by wire.NodeID) error {
	if !n.leaveAsked.CompareAndSwap(false, true) {
		return nil
	}
	n.log.Info("audit", "event", "leave", "asked_at", n.nameOf(by))
	if err := n.dir.SetLeaving(datadir.AskedLeave); err != nil {
		return n.fail(fmt.Errorf("remembering that this node leaves: %w", err))
	}
	n.leaveNow <- struct{}{} // never blocks: leaveAsked lets one in at a time
	return nil
}

// resumeLeaving goes on with what a former process was asked to do, unless the drain was cancelled meanwhile. The table holds
// this start, so it holds whatever was agreed before.
func (n *Node) resumeLeaving() error {
	was, err := n.dir.Leaving()
	if err != nil || was == datadir.Stays || !n.leaveAsked.CompareAndSwap(false, true) {
		return err
	}
	if was == datadir.DrainAgreed && !n.draining() {
		n.leaveAsked.Store(false)
		return n.dir.SetLeaving(datadir.Stays)
	}
	n.log.Info("this node was asked to leave before it was restarted, and goes on with that", "hint", "`imctl node drain --cancel` takes it back")
	n.leaveNow <- struct{}{}
	return nil
}

// draining is what this node's table says.
func (n *Node) draining() bool {
	node, ok := n.fsm.Node(n.id)
	return ok && node.Drain
}

// errStays ends a leave that was taken back.
var errStays = errors.New("the drain was cancelled, so this node stays")

// runLeave leaves when an operator asks for it, until ctx ends.
func (n *Node) runLeave(ctx context.Context) error {
	for {
		select {
		case <-n.leaveNow:
		case <-ctx.Done():
			return nil
		}
		err := n.leave(ctx)
		if err == nil {
			// Agreed. The others may cut this node off before its own table has applied that, so it does not wait for it.
			return n.endWith(errRemoved)
		}
		if ctx.Err() != nil {
			return nil // the next process goes on with it
		}
		n.leaving.Store(false)
		if errors.Is(err, errStays) {
			n.log.Info(err.Error())
		} else {
			n.log.Error("leaving failed; ask again", "err", err)
		}
		if err := n.dir.SetLeaving(datadir.Stays); err != nil {
			return n.fail(fmt.Errorf("forgetting that this node leaves: %w", err))
		}
		n.leaveAsked.Store(false)
	}
}

// leave empties this node, hands leadership over and takes it out of the cluster; then the node ends without an error. Until it
// has stepped back as a voter, a cancelled drain ends it with errStays.
func (n *Node) leave(ctx context.Context) error {
	n.log.Info("leaving the cluster")
	r, err := n.leaderCall.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeDrain, Node: n.id})
	if err = firstError(err, r.Err()); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	if err := n.fsm.WaitApplied(ctx, r.Index); err != nil {
		return err
	}
	if err := n.dir.SetLeaving(datadir.DrainAgreed); err != nil {
		return n.fail(fmt.Errorf("remembering that this node leaves: %w", err))
	}
	for deadline := now() + drainSpread + drainGrace + 5*time.Second; n.gateway.Count() > 0 && now() < deadline && n.draining(); {
		if !sleep(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	if !n.draining() {
		return errStays
	}
	n.gateway.CloseAll(wire.Draining)
	for n.store.IsLeader() {
		if !n.draining() {
			return errStays
		}
		if config, _, err := n.store.Members(); err == nil && countVoters(config) == 1 {
			if err := n.promoteSuccessor(ctx); err != nil {
				return err
			}
		}
		if err := n.store.TransferLeadership(ctx, 0); err != nil {
			n.log.Warn("handing over leadership failed, trying again", "err", err)
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	// A voter that just went would be missed: of two, the one that stays could not even take it out of the configuration. So
	// it stops being one first.
	if r, err := n.leaderCall.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeRole, Node: n.id, Role: raftfsm.RoleNonVoter}); err != nil || r.Err() != nil {
		return fmt.Errorf("becoming a non-voter: %w", firstError(err, r.Err()))
	}
	for n.isVoter(n.id) {
		if !sleep(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	// Nobody waits for the lease of a node that removes itself, so no session may be left. One may have logged in since the
	// others were closed: this table can be behind, and a drain that it has not applied does not refuse anybody.
	n.leaving.Store(true)
	n.gateway.CloseAll(wire.Draining)
	if err := n.removeSelf(ctx); err != nil {
		return fmt.Errorf("leaving: %w", err)
	}
	return nil
}

// removeSelf proposes this node's removal until it is done. The others cut a removed node off as soon as they know, often
// before the answer is back: their word that it is no member is as good.
func (n *Node) removeSelf(ctx context.Context) error {
	cmd, err := raftfsm.Encode(&raftfsm.Command{Kind: raftfsm.KindNodeRemove, Node: n.id, By: n.id})
	if err != nil {
		return err
	}
	for {
		var reply wire.ProposeReply
		try, cancel := context.WithTimeout(ctx, proposeTry)
		err := n.leaderCall.once(try, wire.CallPropose, wire.ProposeRequest{Command: cmd}, &reply)
		cancel()
		switch {
		case err == nil && reply.Code == wire.OK:
			r, err := raftfsm.DecodeResult(reply.Result)
			if err != nil {
				return err
			}
			return r.Err()
		case err == nil && reply.Code == wire.BadRequest:
			return &wire.Error{Code: reply.Code, Text: reply.Text}
		case errors.Is(err, mesh.ErrNotMember), n.fsm.Removed(n.id):
			return nil
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
