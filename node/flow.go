package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
	"imroute/raftfsm"
)

// flowKey: messages of one sender's instance to one recipient keep their order.
type flowKey struct {
	instance   uint64
	tenant, to string
}

// flow is a sender and a recipient between whom something did not go through at once. While it exists every later message
// between the two goes through it, behind those that wait. One goroutine serves it and ends with it.
type flow struct {
	key     flowKey
	changed chan struct{} // capacity 1

	mu    sync.Mutex
	items []*pending // by the sender's counter
	holds []*way     // what went before on other ways; nothing is sent until all of it is resolved
	out   int        // items that are with an owner
	index uint64     // a refusing owner had applied this much
}

// maxFlows bounds the goroutines that serve flows.
const maxFlows = 16 << 10

type flows struct {
	n      atomic.Int64
	mu     sync.Mutex // taken before a flow's mu
	by     map[flowKey]*flow
	closed bool // the router ends: nobody would wait for a flow that starts now
}

// close refuses new flows from now on.
func (f *flows) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

func (f *flows) empty() bool { return f.n.Load() == 0 }

// has tells whether m must go through a flow. The key is built from memory that m only lends.
func (f *flows) has(m *wire.Forward) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.by[flowKey{m.Instance, m.Tenant, m.To}]
	return ok
}

// add puts p into its flow, or notes there that p was refused; index is what the refusing owner had applied, hold (nil:
// nothing) what has to be resolved before p may be sent.
func (f *flows) add(r *router, p *pending, index uint64, hold *way) {
	key := flowKey{p.m.Instance, p.m.Tenant, p.m.To}
	f.mu.Lock()
	// Under the lock: who goes past notes that first and then looks for a flow.
	if p.back.lane != nil && r.passed.overtook(&p.m, p.back.lane, p.back.seq) {
		f.mu.Unlock()
		r.endPassed(p)
		return
	}
	fl := p.flow.Load()
	fresh := false
	if fl == nil {
		if fl = f.by[key]; fl == nil {
			if f.closed {
				f.mu.Unlock()
				r.finish(p.ref, wire.Unknown, 0, stopping)
				return
			}
			if len(f.by) >= maxFlows {
				f.mu.Unlock()
				r.finish(p.ref, wire.Overloaded, 0, "too many recipients of this node's senders cannot be reached at once")
				return
			}
			fresh = true
			fl = &flow{key: key, changed: make(chan struct{}, 1)}
			f.by[key] = fl
			f.n.Add(1)
			r.wg.Add(1)
		}
	}
	fl.mu.Lock()
	fl.index = max(fl.index, index)
	if p.flow.CompareAndSwap(nil, fl) {
		fl.insertLocked(p)
		if hold != nil {
			fl.holds = append(fl.holds, hold)
		}
	} else {
		fl.settleLocked(p, true)
	}
	if r.pendings.get(p.ref) != p {
		fl.settleLocked(p, false) // it ended before it could be seen to be in a flow
	}
	fl.mu.Unlock()
	f.mu.Unlock()
	p.leaveFast() // now that whoever waits for that finds the flow
	fl.signal()
	if fresh {
		go func() {
			defer r.wg.Done()
			fl.run(r)
		}()
	}
}

// insertLocked keeps the sender's order: what comes back from an owner stands before what was sent later.
func (f *flow) insertLocked(p *pending) {
	i := len(f.items)
	if i > 0 && f.items[i-1].m.Counter > p.m.Counter {
		i = sort.Search(i, func(j int) bool { return f.items[j].m.Counter > p.m.Counter })
	}
	f.items = append(f.items, nil)
	copy(f.items[i+1:], f.items[i:])
	f.items[i] = p
}

// settleLocked: an owner answered for p, or p is over. again: p has to be sent once more.
func (f *flow) settleLocked(p *pending, again bool) {
	if p.out {
		p.out = false
		f.out--
	}
	p.over = p.over || !again
}

// ended: p is over and was told so.
func (f *flow) ended(p *pending) {
	f.mu.Lock()
	f.settleLocked(p, false)
	f.mu.Unlock()
	f.signal()
}

func (f *flow) signal() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// next returns what is to be sent now, in order: all that waits, once nothing is out. done: the flow is empty and gone.
func (f *flow) next(r *router) (batch []*pending, index uint64, done bool) {
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := f.items[:0]
	for _, p := range f.items {
		if !p.over {
			kept = append(kept, p)
		}
	}
	clear(f.items[len(kept):])
	f.items = kept
	if len(f.items) == 0 {
		delete(r.flows.by, f.key)
		r.flows.n.Add(-1)
		return nil, 0, true
	}
	f.holds = slices.DeleteFunc(f.holds, func(w *way) bool { return w.resolved(r) })
	if f.out > 0 || len(f.holds) > 0 {
		return nil, 0, false
	}
	return append(batch, f.items...), f.index, false
}

// run brings everything of the flow to an end: locate the owner, send in order, wait until every answer is there, again.
// Each pending has a deadline and leaves the flow at it, so the flow ends too.
func (f *flow) run(r *router) {
	to := wire.ClientID{Tenant: f.key.tenant, ID: f.key.to}
	var tried wire.Epoch // what came back was sent under this epoch
	var wait time.Duration
	for {
		batch, index, done := f.next(r)
		if done {
			return
		}
		if batch == nil {
			f.await(r)
			continue
		}
		at, err := f.locate(r, to, batch, index, tried)
		route, found := at.route, at.found
		if err == nil && at.devices {
			var devices []raftfsm.Device
			if devices, err = r.lateDevices(to, at.index, latest(batch)); len(devices) > 0 {
				for _, p := range batch {
					r.turnToDevices(p, devices)
				}
				continue
			}
		}
		switch {
		case err != nil: // no quorum at the moment: the messages wait for it, or for their time-out
			wait = f.pause(r, wait)
			continue
		case !found:
			for _, p := range batch {
				r.notFound(p)
			}
			continue
		case route.Epoch == tried: // proven to be the owner, but it does not know yet, or may not deliver at the moment
			wait = f.pause(r, wait)
		default:
			wait = 0
		}
		tried = route.Epoch
		first := true
		for _, p := range batch {
			if f.send(r, p, &route, first) {
				first = false
			}
		}
	}
}

// holdTick is how often a flow looks whether what it waits behind is resolved: nobody tells it.
const holdTick = 500 * time.Microsecond

// await returns when something in the flow has changed or may have.
func (f *flow) await(r *router) {
	f.mu.Lock()
	held := f.out == 0 && len(f.holds) > 0
	f.mu.Unlock()
	var tick <-chan time.Time
	if held {
		t := time.NewTimer(holdTick)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-f.changed:
	case <-tick:
	case <-r.ctx.Done(): // the router ends every pending, which empties the flow
		<-f.changed
	}
}

// locate looks the recipient up: in the local table if that is as new as the one of whoever refused and says something
// else than what was tried, and the owner can be reached; otherwise by a linearizable read.
func (f *flow) locate(r *router, to wire.ClientID, batch []*pending, index uint64, tried wire.Epoch) (located, error) {
	if r.table.Applied() >= index {
		if route, found := r.table.Lookup(to); found && route.Epoch != tried && r.nearby(route.Node) {
			return located{route: route, found: true}, nil
		} else if mutate.OfflineFromTable && !found {
			return located{route: route}, nil
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, latest(batch)-now())
	defer cancel()
	return r.read(ctx, to)
}

// latest is the last deadline of a batch.
func latest(batch []*pending) (last time.Duration) {
	for _, p := range batch {
		last = max(last, p.deadline)
	}
	return last
}

// endPassed ends a message that came back too late.
func (r *router) endPassed(p *pending) {
	if p = r.pendings.take(p.ref); p == nil {
		return
	}
	if p.doubt {
		r.ended(p, wire.Unknown, 0, "its former owner ended without telling whether it was delivered, and later messages went another way")
		return
	}
	r.ended(p, wire.OutOfOrder, 0, "its former owner ended before it took this message, and later ones went another way")
}

// notFound ends p: a linearizable read found no route.
func (r *router) notFound(p *pending) {
	if p = r.pendings.take(p.ref); p == nil {
		return
	}
	if p.doubt { // nobody writes it any more
		r.ended(p, wire.Unknown, 0, "its former owner ended without telling whether it was delivered, and the recipient is offline now")
		return
	}
	r.ended(p, wire.Offline, 0, "")
}

// send hands p to the owner. first: nothing of this flow is with an owner, and what the owner refused meanwhile is in it.
func (f *flow) send(r *router, p *pending, route *raftfsm.Route, first bool) (sent bool) {
	f.mu.Lock()
	if p.over || !r.pendings.sending(p, route.Node, route.Incarnation) {
		p.over = true
		f.mu.Unlock()
		return false
	}
	p.out = true
	f.out++
	f.mu.Unlock()
	m := p.m
	if m.Again = 0; first {
		m.Again = 1
	}
	m.Ack = max(m.Ack, wire.AckOwner) // its end must be heard of for the order's sake
	m.LeftMS = uint32(max((p.deadline-now())/time.Millisecond, 1))
	if code, _, _ := r.hand(&m, route, &r.local, nil); code != 0 {
		r.outcome(p.ref, code, route.Node, 0)
	}
	return true
}

// pause waits a little, longer each time, or until the router ends.
func (f *flow) pause(r *router, wait time.Duration) time.Duration {
	wait = min(max(2*wait, 2*time.Millisecond), 50*time.Millisecond)
	t := time.NewTimer(wait/2 + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
	return wait
}
