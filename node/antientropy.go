package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// Anti-entropy: the sessions that are open here and the rows that the table has for this incarnation are the same set. The
// protocol keeps them so; this compares them, both ways, in case it ever does not, and repairs what differs. A row without
// a session would make a client look connected for as long as the incarnation lasts; a session without its row would
// believe that it owns a client who can no longer be found.

const (
	checkKeep    = 1000                   // differences looked into in one comparison; what is beyond waits for the next
	checkSettle  = 2 * time.Second        // for which a client's operations may keep a difference from being judged
	checkRepair  = 5 * time.Second        // for which a repair is followed
	checkPoll    = 20 * time.Millisecond  // between two looks
	checkNice    = 4                      // a scan rests this many times as long as it works
	checkNotably = 500 * time.Microsecond // work of which no rest is due
)

// difference is a suspect: a row of this incarnation without an open session (session is nil), or an open session without
// a row.
type difference struct {
	client  wire.ClientID
	epoch   wire.Epoch
	session session
}

// openClaim is a session that may be delivered to.
type openClaim[S comparable] struct {
	client  wire.ClientID
	epoch   wire.Epoch
	session S
}

// opened lists what is open in one shard.
func (c *claims[S]) opened(shard int) (out []openClaim[S]) {
	var none S
	sh := &c.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for client, e := range sh.clients {
		if e.open != none {
			out = append(out, openClaim[S]{client, e.epoch, e.open})
		}
	}
	return out
}

// settling tells whether a session of the client waits for its epoch, or may be written to although it was given up.
func (c *claims[S]) settling(client wire.ClientID) bool {
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	return e != nil && (len(e.pending) > 0 || len(e.closing) > 0)
}

// whenIdle runs decide as together does, if no operation of the client is queued or in flight and the table here, which has
// applied that index, holds all that was answered. It reports whether it did.
func (p *proposer) whenIdle(client wire.ClientID, applied uint64, decide func() *operation) (idle bool) {
	p.together(func() *operation {
		if applied < p.index {
			return nil
		}
		for _, ops := range [][]operation{p.flying, p.queue} {
			for i := range ops {
				if ops[i].Client == client {
					return nil
				}
			}
		}
		idle = true
		return decide()
	})
	return idle
}

// checkSoon has the sessions compared with the table without waiting for the next time that is due.
func (n *Node) checkSoon() {
	select {
	case n.checkNow <- struct{}{}:
	default:
	}
}

// checkAgain is about how soon a comparison that failed is tried again; the pause doubles each time.
const checkAgain = time.Second

// keepInStep compares and repairs when asked to and from time to time, until the incarnation ends.
func (l *life) keepInStep() {
	every := l.n.cfg.CheckEvery
	regular := func() time.Duration { return every*3/4 + rand.N(every/2) } // not all nodes at once
	wait, again := regular(), checkAgain
	for {
		due := time.NewTimer(wait)
		select {
		case <-l.n.checkNow:
		case <-due.C:
		case <-l.ctx.Done():
			due.Stop()
			return
		}
		due.Stop()
		ctx, cancel := context.WithTimeout(l.ctx, max(every, time.Minute))
		r, err := l.compare(ctx, true)
		cancel()
		if wait = regular(); err != nil { // no quorum, say: what it was asked to look at is not forgotten
			wait = min(wait, again/2+rand.N(again))
			again = min(2*again, every)
		} else {
			again = checkAgain
		}
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil:
			l.n.log.Warn("comparing the sessions with the table failed", "err", err, "again_in", wait)
		case len(r.Differences) > 0:
			l.n.log.Warn("sessions and table differed", "rows", r.Rows, "sessions", r.Sessions, "differences", len(r.Differences)+int(r.More), "repaired", r.Repaired)
		}
	}
}

// compare looks for differences and, with fix, repairs them. Only what persists counts: a suspect is judged against a
// table that has everything acknowledged before it was found, at a moment when nothing of its client is on its way.
func (l *life) compare(ctx context.Context, fix bool) (admin.NodeCheck, error) {
	select { // one at a time
	case l.comparing <- struct{}{}:
		defer func() { <-l.comparing }()
	case <-ctx.Done():
		return admin.NodeCheck{}, context.Cause(ctx)
	}
	n := l.n
	n.metrics.checks.Add(1)
	r := admin.NodeCheck{Name: n.name, Differences: []admin.Difference{}}
	suspects, err := l.suspects(ctx, &r)
	if err != nil {
		return r, err
	}
	var found []difference
	if len(suspects) > 0 {
		if err := n.refresh(ctx); err != nil {
			return r, err
		}
		found = l.judge(ctx, suspects, fix)
	}
	r.Index = n.fsm.Applied()
	if inc, live := n.fsm.Incarnation(n.id); !live || inc != l.incarnation {
		return r, errEnded // every row is void, which is no difference
	}
	var left map[difference]bool
	if fix && len(found) > 0 {
		left = l.unrepaired(ctx, found)
	}
	for _, d := range found {
		kind := admin.RowWithoutSession
		if d.session != nil {
			kind = admin.SessionWithoutRow
		}
		repaired := fix && !left[d]
		if repaired {
			r.Repaired++
			n.metrics.repaired(kind)
		}
		n.log.Warn("a session and the table differ", slog.Group("audit", "event", "route-check", "kind", kind, "client", d.client.String(),
			"epoch", uint64(d.epoch), "repaired", repaired))
		r.Differences = append(r.Differences, admin.Difference{Kind: kind, Client: d.client.ID, Tenant: d.client.Tenant, Epoch: d.epoch, Repaired: repaired})
	}
	return r, nil
}

// suspects compares what is there at this moment. What is only on its way shows here too.
func (l *life) suspects(ctx context.Context, r *admin.NodeCheck) (out []difference, err error) {
	n := l.n
	suspect := func(d difference) {
		if len(out) < checkKeep {
			out = append(out, d)
		} else {
			r.More++
		}
	}
	rest := func(began time.Time) bool {
		worked := time.Since(began)
		return worked < checkNotably || sleep(ctx, checkNice*worked)
	}
	view := n.fsm.Grab()
	defer view.Close()
	for part := range raftfsm.Stripes {
		began := time.Now()
		view.Owned(part, n.id, l.incarnation, func(row raftfsm.Route) {
			r.Rows++
			if _, ok := l.claims.find(row.Client, row.Epoch); !ok {
				suspect(difference{client: row.Client, epoch: row.Epoch})
			}
		})
		if !rest(began) {
			return nil, context.Cause(ctx)
		}
	}
	for shard := range claimShards {
		began := time.Now()
		for _, o := range l.claims.opened(shard) {
			r.Sessions++
			if !l.hasRow(o.client, o.epoch) {
				suspect(difference(o))
			}
		}
		if !rest(began) {
			return nil, context.Cause(ctx)
		}
	}
	return out, nil
}

// hasRow tells whether the table, as applied here, gives the client to this incarnation under that epoch.
func (l *life) hasRow(client wire.ClientID, epoch wire.Epoch) bool {
	row, ok := l.n.fsm.Lookup(client)
	return ok && row.Node == l.n.id && row.Incarnation == l.incarnation && row.Epoch == epoch
}

// judge returns the suspects that are differences, and repairs them with fix. Those that something is on its way for are
// looked at again for a while; if that never ends the next comparison will tell.
func (l *life) judge(ctx context.Context, suspects []difference, fix bool) (found []difference) {
	for deadline := now() + checkSettle; len(suspects) > 0; {
		var busy []difference
		for _, d := range suspects {
			is := false
			settled := l.proposer.whenIdle(d.client, l.n.fsm.Applied(), func() *operation {
				is = l.differs(d)
				if !is || !fix || d.session != nil {
					return nil
				}
				// No session of this epoch can come any more, and none is written to: as good as an Unregister after a fence.
				return l.unregistration(d.client, d.epoch)
			})
			switch {
			case !settled:
				busy = append(busy, d)
			case is:
				found = append(found, d)
				if fix && d.session != nil {
					d.session.Close(wire.LeaseLost, "the cluster does not have this session any more: log in again")
				}
			}
		}
		if suspects = busy; now() > deadline || len(busy) > 0 && !sleep(ctx, checkPoll) {
			break
		}
	}
	return found
}

// differs judges one suspect; its client has no operation queued or in flight.
func (l *life) differs(d difference) bool {
	if d.session != nil {
		s, open := l.claims.find(d.client, d.epoch)
		return open && s == d.session && !l.hasRow(d.client, d.epoch)
	}
	if !l.hasRow(d.client, d.epoch) || l.claims.settling(d.client) || l.vacated.covers(d.client, d.epoch) {
		return false
	}
	_, open := l.claims.find(d.client, d.epoch)
	return !open
}

// unrepaired waits until the repairs have taken effect and returns those that have not.
func (l *life) unrepaired(ctx context.Context, found []difference) map[difference]bool {
	left := map[difference]bool{}
	for _, d := range found {
		left[d] = true
	}
	for deadline := now() + checkRepair; ; {
		for d := range left {
			open := false
			if d.session != nil {
				_, open = l.claims.find(d.client, d.epoch)
			}
			if d.session != nil && !open || d.session == nil && !l.hasRow(d.client, d.epoch) {
				delete(left, d)
			}
		}
		if len(left) == 0 || now() > deadline || !sleep(ctx, checkPoll) {
			return left
		}
	}
}

// checkArg is what opCheck is asked with.
type checkArg struct {
	Fix bool `json:"fix"`
}

// handleCheck answers an operator's `imctl route check` for this node.
func (n *Node) handleCheck(ctx context.Context, arg []byte) (*admin.NodeCheck, error) {
	var q checkArg
	if err := json.Unmarshal(arg, &q); err != nil {
		return nil, wire.Errorf(wire.BadRequest, "check: %v", err)
	}
	l := n.present.Load()
	if l == nil {
		return nil, wire.Errorf(wire.NotReady, "this node is not up at the moment: it has no sessions")
	}
	r, err := l.compare(ctx, q.Fix)
	if err != nil {
		return nil, wire.Errorf(wire.Unavailable, "%v", err)
	}
	return &r, nil
}

// CheckRoutes has every node that is up compare its sessions with the table.
func (a api) CheckRoutes(ctx context.Context, fix bool) (admin.CheckResult, error) {
	n := a.n
	var nodes []raftfsm.Node
	for _, node := range n.fsm.Nodes() {
		if node.State != raftfsm.Down { // one that is down owns nothing
			nodes = append(nodes, node)
		}
	}
	out := admin.CheckResult{Clean: true, Nodes: make([]admin.NodeCheck, len(nodes))}
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			if err := n.askAdmin(ctx, node.ID, opCheck, checkArg{fix}, &out.Nodes[i]); err != nil {
				out.Nodes[i] = admin.NodeCheck{Name: node.Name, Differences: []admin.Difference{}, Error: err.Error()}
			}
		})
	}
	wg.Wait()
	for _, r := range out.Nodes {
		out.Clean = out.Clean && r.Error == "" && r.More == 0 && int(r.Repaired) == len(r.Differences)
	}
	return out, nil
}
