package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// lead is what a node does while it leads: it proposes for others, confirms its term, grants leases and ends those that
// ran out, and keeps the Raft configuration in step with the table (upkeep.go). It serves nothing of a term until its
// barrier in that term, an entry of ours, was applied here: until then this table may lack what an earlier leader
// acknowledged.
type lead struct {
	n       *Node
	log     *slog.Logger
	confirm *confirmer
	present atomic.Pointer[grantor] // of the term led, past its barrier; nil: not leading

	mu    sync.Mutex
	loads map[wire.NodeID]load // what renewals told; forgotten with the leadership
}

// load is what a node said of itself with its last renewal.
type load struct {
	wire.NodeLoad
	at time.Duration
}

const (
	expiryTick = 50 * time.Millisecond
	upkeepTick = 250 * time.Millisecond
)

func newLead(n *Node) *lead {
	l := &lead{n: n, log: n.log.With("part", "lead"), loads: map[wire.NodeID]load{}}
	l.confirm = &confirmer{
		self: n.id, leading: l.term, timeout: max(n.cfg.Timings.Election, 250*time.Millisecond),
		took: func(d time.Duration) { n.metrics.observe.ConfirmTerm.Observe(d.Seconds()) },
		voters: func() (ids []wire.NodeID, err error) {
			members, _, err := n.store.Members()
			for _, m := range members {
				if m.Voter {
					ids = append(ids, m.ID)
				}
			}
			return ids, err
		},
		ask: func(ctx context.Context, to wire.NodeID, q wire.ConfirmRequest) (r wire.ConfirmReply, err error) {
			return r, n.ask(ctx, to, wire.CallConfirm, q, &r)
		},
	}
	return l
}

// term is the term that this node leads past its barrier, as far as it knows itself.
func (l *lead) term() (uint64, bool) {
	g := l.present.Load()
	if g == nil || !l.n.store.IsLeader() || l.n.store.Term() != g.term {
		return 0, false
	}
	return g.term, true
}

// run follows the leadership until ctx ends.
func (l *lead) run(ctx context.Context) error {
	var seen store.Leadership
	for {
		var err error
		if seen, err = l.n.store.WaitLeadership(ctx, seen); err != nil {
			return nil // ctx ended
		}
		if !seen.Leading {
			continue
		}
		// The leadership may outlast a failure to serve (a transfer that came to nothing, a slow disk): nothing would change
		// then that could be waited for.
		for err := l.serve(ctx, seen.Term); ; err = l.serve(ctx, seen.Term) {
			if ctx.Err() != nil {
				return nil
			}
			if !l.leads(seen.Term) {
				l.log.Info("no longer leading", "term", seen.Term, "why", err)
				break
			}
			l.log.Warn("leading, but the barrier did not get through; trying again", "term", seen.Term, "err", err)
			if !sleep(ctx, expiryTick) {
				return nil
			}
		}
	}
}

// leads tells whether this node, as far as Raft here knows, leads that term. Once it does not it never will again.
func (l *lead) leads(term uint64) bool { return l.n.store.Term() == term && l.n.store.IsLeader() }

// serve leads one term to its end. It fails before that only if there is no grantor yet: a term has one grantor, because
// what it marked as expiring may still be in the log.
func (l *lead) serve(ctx context.Context, term uint64) error {
	barrier, err := raftfsm.Encode(&raftfsm.Command{Kind: raftfsm.KindNoop})
	if err != nil {
		return err
	}
	if !mutate.NoBarrier {
		if _, _, err := l.n.store.Propose(ctx, barrier); err != nil {
			return err
		}
	}
	if err := l.beginGeneration(ctx); err != nil {
		return err
	}
	if !l.leads(term) {
		return errNotLeader
	}
	g := newGrantor(term, l.n.cfg.Timings.Lease, l.n.cfg.Timings.Margin)
	if mutate.NoGrace {
		g.observe(now()-2*(g.length+g.margin), l.members())
	}
	g.observe(now(), l.members())
	l.present.Store(g)
	defer l.present.Store(nil)
	l.log.Info("leading", "term", term)
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	var upkeepAt time.Duration
	for {
		if _, ok := l.term(); !ok {
			return errNotLeader
		}
		at := now()
		g.observe(at, l.members())
		for _, m := range g.expired(at, l.members()) {
			if err := l.expire(ctx, term, m); err != nil {
				l.log.Warn("expiring a node failed, it is tried again", "node", l.n.nameOf(m.node), "err", err)
				break
			}
		}
		if at >= upkeepAt {
			if err := l.n.upkeep(ctx); err != nil && !errors.Is(err, store.ErrNotLeader) {
				l.log.Warn("membership upkeep failed, it is tried again", "err", err)
			}
			upkeepAt = now() + upkeepTick
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *lead) expire(ctx context.Context, term uint64, m member) error {
	cmd := &raftfsm.Command{Kind: raftfsm.KindNodeExpire, Node: m.node, Incarnation: m.incarnation, Term: term}
	report := l.n.lostWith(m.node, m.incarnation)
	r, err := l.apply(ctx, cmd)
	report(err == nil && r.Code == wire.OK)
	if err != nil {
		return err
	}
	if r.Code == wire.OK {
		l.n.metrics.expiries.Add(1)
		l.log.Warn("lease ran out, the node's routes are void", slog.Group("audit", "event", "expire", "node", l.n.nameOf(m.node), "id", m.node, "incarnation", uint64(m.incarnation)))
	}
	return nil
}

// members lists the table's nodes for the grantor.
func (l *lead) members() []member {
	nodes := l.n.fsm.Nodes()
	out := make([]member, 0, len(nodes))
	for _, node := range nodes {
		out = append(out, memberOf(node))
	}
	return out
}

func memberOf(n raftfsm.Node) member {
	return member{node: n.ID, incarnation: n.Incarnation, live: n.State != raftfsm.Down, removed: n.Role == raftfsm.RoleRemoved}
}

// apply proposes a command of this leader's own and returns the state machine's answer.
func (l *lead) apply(ctx context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) {
	if err := l.n.fsm.Check(cmd); err != nil {
		return raftfsm.Result{}, &wire.Error{Code: wire.BadRequest, Text: err.Error()}
	}
	b, err := raftfsm.Encode(cmd)
	if err != nil {
		return raftfsm.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTry)
	defer cancel()
	r, _, err := l.n.store.Propose(ctx, b)
	if err != nil {
		return raftfsm.Result{}, err
	}
	return r.(raftfsm.Result), nil
}

// The leader's side of the control calls.

func (l *lead) handleRenew(ctx context.Context, from wire.NodeID, q *wire.RenewRequest) (*wire.RenewReply, error) {
	received := now()
	term, ok := l.term()
	if !ok {
		return &wire.RenewReply{Code: l.notLeader(), Leader: l.leader()}, nil
	}
	if err := l.confirm.confirm(ctx, term); err != nil && !mutate.GrantUnconfirmed {
		if errors.Is(err, errNotLeader) {
			return &wire.RenewReply{Code: wire.NotLeader, Leader: l.leader()}, nil
		}
		return &wire.RenewReply{Code: wire.Unavailable}, nil
	}
	g := l.present.Load()
	if g == nil || g.term != term {
		return &wire.RenewReply{Code: wire.NotLeader, Leader: l.leader()}, nil
	}
	node, ok := l.n.fsm.Node(from)
	if !ok {
		return &wire.RenewReply{Code: wire.NotMember}, nil
	}
	code := g.renew(received, memberOf(node), q.Incarnation)
	reply := &wire.RenewReply{Code: code, LeaseMS: uint32(g.length / time.Millisecond), Applied: l.n.fsm.Applied()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loads[from] = load{wire.NodeLoad{Node: from, Clients: q.Clients, Applied: q.Applied, Version: q.Version, Incarnation: q.Incarnation, Features: q.Features, Closed: q.Closed || code != wire.OK}, received}
	for id, v := range l.loads {
		if _, member := l.n.fsm.Node(id); !member {
			delete(l.loads, id)
			continue
		}
		v.AgeMS = uint32(max(now()-v.at, 0) / time.Millisecond)
		reply.Nodes = append(reply.Nodes, v.NodeLoad)
	}
	if code != wire.OK {
		l.n.metrics.refusedGrants.Add(1)
	}
	return reply, nil
}

// heard is what node said last, in this leadership.
func (l *lead) heard(node wire.NodeID) (load, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.loads[node]
	return v, ok
}

func (l *lead) handleRead(ctx context.Context, _ wire.NodeID, q *wire.ReadRequest) (*wire.ReadReply, error) {
	if len(q.Clients) > wire.MaxRead {
		return nil, wire.Errorf(wire.BadRequest, "%d clients in one read: at most %d", len(q.Clients), wire.MaxRead)
	}
	term, ok := l.term()
	if !ok {
		return &wire.ReadReply{Code: l.notLeader(), Leader: l.leader()}, nil
	}
	index := l.n.store.CommitIndex()
	switch err := l.confirm.confirm(ctx, term); {
	case errors.Is(err, errNotLeader) && !mutate.ReadUnconfirmed:
		return &wire.ReadReply{Code: wire.NotLeader, Leader: l.leader()}, nil
	case err != nil && !mutate.ReadUnconfirmed:
		return &wire.ReadReply{Code: wire.Unavailable}, nil
	}
	if err := l.n.fsm.WaitApplied(ctx, index); err != nil {
		return &wire.ReadReply{Code: wire.Unavailable}, nil
	}
	reply := &wire.ReadReply{Code: wire.OK, Index: index, Term: term, Owners: make([]wire.Owner, len(q.Clients))}
	for i, c := range q.Clients {
		if r, ok := l.n.fsm.Lookup(c); ok {
			reply.Owners[i] = wire.Owner{Node: r.Node, Incarnation: r.Incarnation, Epoch: r.Epoch, Session: r.Session}
		} else if strings.IndexByte(c.ID, '/') < 0 && c.ID != "" {
			reply.Owners[i].Devices = uint32(len(l.n.fsm.Devices(c, nil)))
		}
	}
	return reply, nil
}

// handlePropose checks a command of another node before it may enter the log.
func (l *lead) handlePropose(ctx context.Context, from wire.NodeID, q *wire.ProposeRequest) (*wire.ProposeReply, error) {
	if _, ok := l.term(); !ok {
		return &wire.ProposeReply{Code: l.notLeader(), Leader: l.leader()}, nil
	}
	cmd, err := l.n.fsm.Decode(q.Command)
	if err == nil {
		err = l.n.fsm.Check(cmd)
	}
	if err == nil && ownBusiness(cmd.Kind) && cmd.Node != from {
		err = errors.New(cmd.Kind.String() + " of another node")
	}
	if err == nil && cmd.Kind == raftfsm.KindNodeExpire {
		err = errors.New("only a leader expires nodes, by its own timers")
	}
	if err != nil {
		return &wire.ProposeReply{Code: wire.BadRequest, Text: err.Error()}, nil
	}
	if cmd.Kind == raftfsm.KindFeatureLevel {
		if err := l.mayRaise(cmd.Level); err != nil {
			return &wire.ProposeReply{Code: wire.Refused, Text: err.Error()}, nil
		}
	}
	report, former := func(bool) {}, wire.Incarnation(0)
	if cmd.Kind == raftfsm.KindNodeUp { // the node comes back before its lease ran out: its former sessions died with it
		var live bool
		if former, live = l.n.fsm.Incarnation(from); live {
			report = l.n.lostWith(from, former)
		}
	}
	r, index, err := l.n.store.Propose(ctx, q.Command)
	result, _ := r.(raftfsm.Result)
	report(err == nil && result.Incarnation > former) // not for a copy of a NodeUp that was agreed before
	switch {
	case errors.Is(err, store.ErrNotLeader):
		return &wire.ProposeReply{Code: wire.NotLeader, Leader: l.leader()}, nil
	case errors.Is(err, store.ErrOverloaded):
		return &wire.ProposeReply{Code: wire.Overloaded}, nil
	case err != nil:
		return &wire.ProposeReply{Code: wire.Unknown, Text: err.Error()}, nil
	}
	b, err := r.(raftfsm.Result).Encode()
	if err != nil {
		return nil, err
	}
	return &wire.ProposeReply{Code: wire.OK, Index: index, Result: b}, nil
}

// ownBusiness: commands that a node proposes for itself only.
func ownBusiness(k raftfsm.Kind) bool {
	return k == raftfsm.KindBatch || k == raftfsm.KindNodeUp || k == raftfsm.KindNodeDown
}

// notLeader tells a leader that is not past its barrier from somebody who does not lead.
func (l *lead) notLeader() wire.Code {
	if l.n.store.IsLeader() {
		return wire.NotReady
	}
	return wire.NotLeader
}

func (l *lead) leader() wire.NodeID {
	id, _ := l.n.store.Leader()
	return id
}
