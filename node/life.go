package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/node/gateway"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// life is one incarnation of this node, from the NodeUp that began it until every session of it is closed. A Revoke that
// names another incarnation is answered at once because of that: nothing of it is left.
type life struct {
	n           *Node
	incarnation wire.Incarnation
	claims      *claims[session]
	proposer    *proposer
	vacated     vacated
	topics      *topics
	comparing   chan struct{}   // capacity 1: taken while the sessions are compared with the table
	ctx         context.Context // ends with the incarnation
	end         context.CancelCauseFunc
	wg          sync.WaitGroup
}

// errEnded: the incarnation is over; the node comes up anew.
var errEnded = errors.New("the incarnation ended")

// errNotYet: the table does not have this node yet, as at its founding.
var errNotYet = errors.New("not entered as a member yet")

// errRemoved ends the node: it is no longer a member and never will be under this id.
var errRemoved = errors.New("this node left the cluster or was removed: its id never comes back; start with an empty data folder, --join and a token to make a new member")

// runLives brings the node up again and again until ctx ends or it is removed.
func (n *Node) runLives(ctx context.Context) error {
	for {
		err := n.liveOnce(ctx)
		if ctx.Err() != nil || n.stopping.Load() {
			return nil
		}
		if errors.Is(err, errRemoved) {
			return err
		}
		if errors.Is(err, errNotYet) {
			n.log.Debug("cannot come up yet", "why", err)
		} else {
			n.log.Warn("incarnation over, coming up anew", "why", err)
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return nil
		}
	}
}

func (n *Node) liveOnce(ctx context.Context) error {
	// The boot counter is raised only once Raft here has heard of the cluster: from then on its files must be there.
	if err := n.waitLeader(ctx); err != nil {
		return err
	}
	if err := n.checkBoot(ctx); err != nil {
		return err
	}
	boot, err := n.dir.Boot()
	if err != nil {
		return n.fail(fmt.Errorf("raising the boot counter: %w", err))
	}
	r, err := n.leaderCall.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeUp, Node: n.id, Boot: boot, Addrs: n.Addrs(), Version: Version})
	if err != nil {
		return err
	}
	switch {
	case r.Code == wire.NotMember || r.Code == wire.Refused:
		if n.wasMember() {
			return errRemoved
		}
		return fmt.Errorf("%w: %s %s", errNotYet, r.Code, r.Text)
	case r.Code != wire.OK:
		return fmt.Errorf("coming up: %s %s", r.Code, r.Text)
	case r.Boot != boot:
		return fmt.Errorf("boot %d was answered as boot %d", boot, r.Boot)
	}
	if err := n.fsm.WaitApplied(ctx, r.Index); err != nil {
		return err
	}
	l := &life{n: n, incarnation: r.Incarnation, comparing: make(chan struct{}, 1), claims: newClaims[session](), proposer: newProposer(n.id, r.Incarnation)}
	l.ctx, l.end = context.WithCancelCause(ctx)
	l.proposer.stats = &n.metrics.proposer
	l.vacated.wake = make(chan struct{}, 1)
	l.topics = newTopics(l.proposer.add, func() bool { return n.fsm.FeatureLevel() >= raftfsm.TopicFeatureLevel })
	l.proposer.propose = n.leaderCall.propose
	l.proposer.answered = l.answered
	n.journal.write(journalLine{Event: "up", Incarnation: l.incarnation})
	n.lastUp.Store(uint64(l.incarnation))
	n.present.Store(l)
	n.log.Info("up", "incarnation", uint64(r.Incarnation), "boot", uint64(boot), "index", r.Index)
	l.wg.Go(func() {
		l.end(l.proposer.run(l.ctx, l.claims.answered))
	})
	l.wg.Go(func() { l.renew() })
	l.wg.Go(func() { l.watchEnd() })
	l.wg.Go(func() { l.vacate() })
	l.wg.Go(func() { l.topics.run(l.ctx) })
	l.wg.Go(func() { l.keepInStep() })
	if err := n.resumeLeaving(); err != nil {
		l.end(n.fail(fmt.Errorf("whether this node is to leave: %w", err)))
	}
	<-l.ctx.Done()
	why := context.Cause(l.ctx)
	n.lease.drop()
	n.admission.leased(false)
	// Every session is closed before the next incarnation begins.
	n.gateway.CloseAll(wire.LeaseLost)
	l.wg.Wait()
	// Again, because a renewal may have been answered in between: the next incarnation begins without a lease.
	n.lease.drop()
	n.journal.write(journalLine{Event: "drop", Incarnation: l.incarnation})
	n.admission.leased(false)
	n.present.Store(nil)
	return why
}

// checkBoot ends the node if the cluster has seen a later start of it than its data folder has: what the node promised since,
// its votes above all, is forgotten. It is asked before the boot counter is raised, because the next boot of a folder that is
// one start behind would pass for a repetition of the one that the cluster has seen.
func (n *Node) checkBoot(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, proposeTry)
	defer cancel()
	if err := n.refresh(try); err != nil {
		return err
	}
	if node, ok := n.fsm.Node(n.id); ok && node.Boot > n.dir.LastBoot() {
		return n.fail(fmt.Errorf("the cluster has seen start %d of this node, and its data folder has come to start %d only: it is an older copy, say from a backup, and has forgotten what the node promised since. "+
			"Start with an empty folder: `imctl node remove %s` takes the old member out, then it joins anew", node.Boot, n.dir.LastBoot(), n.name))
	}
	return nil
}

// waitLeader returns once this node knows of a leader.
func (n *Node) waitLeader(ctx context.Context) error {
	for know := (store.Leadership{}); know.Leader == 0; {
		var err error
		if know, err = n.store.WaitLeadership(ctx, know); err != nil {
			return err
		}
	}
	return nil
}

// watchEnd ends the life when the table says that the incarnation is over.
func (l *life) watchEnd() {
	if l.n.fsm.WaitIncarnationEnd(l.ctx, l.n.id, l.incarnation) == nil {
		if _, member := l.n.fsm.Node(l.n.id); !member {
			l.end(errRemoved)
			return
		}
		l.end(fmt.Errorf("%w: the table says so", errEnded))
	}
}

// renew keeps the lease until the incarnation ends. Without one the node delivers nothing; after Timings.Quiet its
// sessions are told to go elsewhere.
func (l *life) renew() {
	n := l.n
	t := n.cfg.Timings
	accepting, held := false, false
	lostAt := now()
	for {
		sent := now()
		ctx, cancel := context.WithTimeout(l.ctx, max(t.Lease/4, 100*time.Millisecond))
		var reply wire.RenewReply
		err := n.leaderCall.once(ctx, wire.CallRenew, wire.RenewRequest{
			Incarnation: l.incarnation, Applied: n.fsm.Applied(), Clients: uint64(n.gateway.Count()), Version: Version, Features: n.cfg.FeatureLevel, Closed: n.closedToClients(),
		}, &reply)
		cancel()
		wait := t.Renew
		switch {
		case err == nil && reply.Code == wire.OK:
			until := n.lease.until(sent, time.Duration(reply.LeaseMS)*time.Millisecond)
			// Written down before it counts.
			n.journal.write(journalLine{Event: "lease", Incarnation: l.incarnation, Checked: sent, Until: until})
			if mutate.LeaseFromAnswer {
				until = n.lease.until(now(), 0)
			}
			n.lease.granted(until)
			n.heardLoads(reply.Nodes)
		case err == nil && reply.Code == wire.BadIncarnation:
			l.end(fmt.Errorf("%w: the leader grants it no lease any more", errEnded))
			return
		case l.ctx.Err() != nil:
			return
		default:
			wait = min(50*time.Millisecond, t.Renew)
		}
		switch holds := n.lease.holds(now()); {
		case holds && !held:
			held = true
			n.metrics.quiet.end(now())
			n.gateway.Wake()
			n.checkSoon()
			if !accepting {
				accepting = true
				n.admission.leased(true)
			}
			n.becameReady()
		case !holds && held:
			held, lostAt = false, now()
			n.metrics.quiet.begin(lostAt)
			n.log.Warn("lease lost: nothing is delivered until it is regained", "err", err, "answer", reply.Code)
		case !holds && accepting && now()-lostAt > t.Quiet:
			accepting = false
			n.log.Warn("no lease for too long: clients are told to reconnect elsewhere", "quiet", t.Quiet)
			n.admission.leased(false)
			n.gateway.CloseAll(wire.LeaseLost)
		}
		if !sleep(l.ctx, wait) {
			return
		}
	}
}

// inTurn is how many sessions are opened before others get the processor: what is woken together would stand in front of every
// message on its way.
const inTurn = 8

// answered tells the sessions of a batch what the state machine said, in op order: what must close is fenced before what
// may open is opened.
func (l *life) answered(ops []operation, r raftfsm.Result) {
	type telling struct {
		op      *operation
		res     raftfsm.OpResult
		learned learned[session]
	}
	var told []telling
	for i := range ops {
		op, res := &ops[i], r.Ops[i]
		if op.told != nil { // before what may open: a session that logs in with its groups is in them
			op.told(res, nil)
			continue
		}
		if op.Kind != raftfsm.Register {
			continue
		}
		t := telling{op: op, res: res}
		if res.Code == raftfsm.OpOK {
			t.learned = l.claims.learn(op.Client, op.session, res.Epoch)
			for _, s := range t.learned.close {
				closeReplaced(s, op.Session, "")
			}
			if !t.learned.open {
				op.session.Close(wire.Replaced, "another login took over")
			}
		}
		told = append(told, t)
	}
	for i, t := range told {
		for _, s := range t.learned.close {
			<-s.Fenced()
		}
		if t.learned.open {
			l.journal("open", t.op.Client, t.res.Epoch, t.op.Session)
			t.op.session.Open(t.res.Epoch)
		} else if t.res.Code == raftfsm.OpOK {
			<-t.op.session.Fenced()
			l.proposer.together(func() *operation { return l.giveUp(t.op.Client, t.res.Epoch) })
		}
		foreign := func(s session) bool { return s.ID().Instance != t.op.Session.Instance }
		t.op.answer <- answer{OpResult: t.res, index: r.Index, tookOver: slices.ContainsFunc(t.learned.close, foreign)}
		if i%inTurn == inTurn-1 {
			runtime.Gosched()
		}
	}
}

// journal writes down what became of an epoch.
func (l *life) journal(event string, client wire.ClientID, epoch wire.Epoch, s wire.SessionID) {
	if l.n == nil || l.n.journal == nil {
		return
	}
	l.n.journal.write(journalLine{Event: event, Incarnation: l.incarnation, Client: client.String(), Epoch: epoch, Session: s.String()})
}

// closeReplaced tells a session that by took its place, and why if that is not what it mostly is.
func closeReplaced(s session, by wire.SessionID, why string) {
	if why != "" {
		s.Close(wire.Replaced, why)
		return
	}
	if s.ID().Instance == by.Instance {
		s.Close(wire.Superseded, "a later connection of the same client took over")
		return
	}
	s.Close(wire.Replaced, "the same client id logged in elsewhere")
}

func (l *life) unregister(client wire.ClientID, epoch wire.Epoch) {
	l.proposer.add(*l.unregistration(client, epoch))
}

// unregistration gives an epoch up: nothing is delivered under it any more.
func (l *life) unregistration(client wire.ClientID, epoch wire.Epoch) *operation {
	l.journal("fence", client, epoch, wire.SessionID{})
	return &operation{Op: raftfsm.Op{Kind: raftfsm.Unregister, Client: client, Epoch: epoch}}
}

// register proposes s's registration and waits for the answer.
func (l *life) register(ctx context.Context, s session, fenced wire.Epoch) (answer, error) {
	op := operation{
		Op:      raftfsm.Op{Kind: raftfsm.Register, Client: s.Client(), Session: s.ID(), Fenced: fenced},
		session: s, answer: make(chan answer, 1),
	}
	l.proposer.add(op)
	select {
	case a := <-op.answer:
		return a, a.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// login is Backend.Login for one session: register, and take over from whoever holds the client id.
func (l *life) login(ctx context.Context, s session, waiting func(time.Duration)) (gateway.Welcome, error) {
	taking := takeovers{l: l, s: s}
	if l.n.fsm.Settings().Duplicate != raftfsm.DuplicateReject { // whose answer is better
		if err := taking.early(ctx); err != nil {
			return gateway.Welcome{}, err
		}
	}
	l.claims.begin(s.Client(), s)
	var fenced wire.Epoch
	for {
		a, err := l.register(ctx, s, fenced)
		if err != nil {
			if ctx.Err() != nil {
				return gateway.Welcome{}, &wire.Error{Code: wire.LoginTimeout, Text: "the registration was not agreed in time"}
			}
			return gateway.Welcome{}, &wire.Error{Code: wire.NoQuorum, Text: err.Error()}
		}
		switch a.Code {
		case raftfsm.OpOK:
			if a.tookOver {
				taking.did()
			}
			return gateway.Welcome{Epoch: a.Epoch}, nil
		case raftfsm.OpStale:
			return gateway.Welcome{}, &wire.Error{Code: wire.Superseded, Text: "a later attempt of the same client is logged in"}
		case raftfsm.OpRejected:
			if a.HolderClient != (wire.ClientID{}) {
				return gateway.Welcome{}, &wire.Error{Code: wire.AlreadyOnline, Text: "another device of this class is online, " + a.HolderClient.ID + ", and the cluster rejects a second login"}
			}
			return gateway.Welcome{}, &wire.Error{Code: wire.AlreadyOnline, Text: "this client id is online elsewhere and the cluster rejects a second login"}
		case raftfsm.OpOverloaded:
			return gateway.Welcome{}, wire.Errorf(wire.Refused, "this user has %d devices online already", raftfsm.MaxDevices)
		case raftfsm.OpHeld, raftfsm.OpClassHeld:
			if err := taking.from(a.HolderSession); err != nil {
				return gateway.Welcome{}, err
			}
			l.n.log.Info("takeover", slog.Group("audit", "event", "takeover", "client", s.Client().String(), "from", l.n.nameOf(a.Node), "epoch", uint64(a.Epoch)))
			l.n.metrics.takeovers.Add(1)
			started := time.Now()
			if err := l.n.fence(ctx, s, a.OpResult, waiting); err != nil {
				return gateway.Welcome{}, err
			}
			l.n.metrics.observe.Takeover.Observe(time.Since(started).Seconds())
			fenced = a.Epoch
		default:
			return gateway.Welcome{}, &wire.Error{Code: wire.Internal, Text: "registration: " + a.Code.String()}
		}
	}
}

// closed is Backend.Closed: nothing is delivered to s any more.
func (l *life) closed(s session) {
	l.proposer.together(func() *operation { // or its row would look forgotten for a moment
		if epoch := l.claims.ended(s.Client(), s); epoch != 0 {
			return l.giveUp(s.Client(), epoch)
		}
		return nil
	})
}

// giveUp unregisters an epoch under which nothing is delivered any more, unless its row is left to somebody who takes over.
func (l *life) giveUp(client wire.ClientID, epoch wire.Epoch) *operation {
	if l.vacated.covers(client, epoch) {
		l.journal("fence", client, epoch, wire.SessionID{})
		return nil
	}
	return l.unregistration(client, epoch)
}
