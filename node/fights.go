package node

import (
	"container/list"
	"context"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// fights limits how often one client id changes hands at this node: two devices with the same id would otherwise throw
// each other out for ever, and every round costs a Raft entry and a fence. A login that would have to take the id over
// from another SDK instance once too often is refused, so the present holder stays. Safe for concurrent use.
type fights struct {
	burst int           // takeovers at once
	every time.Duration // then one in this time
	max   int           // ids remembered; the one that was not seen for longest is forgotten first

	mu  sync.Mutex
	ids map[wire.ClientID]*list.Element
	old *list.List // of *fight, the latest seen in front
}

// fight is one client id's allowance: until is when all of it is there again.
type fight struct {
	client wire.ClientID
	until  time.Duration
}

// maxFights bounds the memory of fights to some megabytes.
const maxFights = 1 << 15

func newFights(burst int, every time.Duration) *fights {
	return &fights{burst: burst, every: every, max: maxFights, ids: map[wire.ClientID]*list.Element{}, old: list.New()}
}

// allow takes one takeover of the client off its allowance at the moment at, if there is one.
func (f *fights) allow(client wire.ClientID, at time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.seenLocked(client)
	if v.spent(at) > f.most() {
		return false
	}
	v.until = max(v.until, at) + f.every
	return true
}

// charge takes off what could not be asked for before, down to nothing.
func (f *fights) charge(client wire.ClientID, at time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.seenLocked(client)
	v.until = min(max(v.until, at), at+f.most()) + f.every
}

// exhausted tells whether allow would refuse.
func (f *fights) exhausted(client wire.ClientID, at time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.ids[client]
	return e != nil && e.Value.(*fight).spent(at) > f.most()
}

func (v *fight) spent(at time.Duration) time.Duration { return max(0, v.until-at) }

// most may be spent for one more takeover to be allowed.
func (f *fights) most() time.Duration { return time.Duration(f.burst-1) * f.every }

func (f *fights) seenLocked(client wire.ClientID) *fight {
	e := f.ids[client]
	if e == nil {
		e = f.old.PushFront(&fight{client: client})
		f.ids[client] = e
		if f.old.Len() > f.max {
			last := f.old.Back()
			f.old.Remove(last)
			delete(f.ids, last.Value.(*fight).client)
		}
	}
	f.old.MoveToFront(e)
	return e.Value.(*fight)
}

// takeovers counts, for one login, the taking over from another SDK instance: once, however many turns it needs.
type takeovers struct {
	l       *life
	s       session
	counted bool
}

// from returns the refusal if the login may not take over from holder.
func (t *takeovers) from(holder wire.SessionID) error {
	if t.counted || holder.Instance == t.s.ID().Instance {
		return nil
	}
	t.counted = true
	if t.l.n.fights.allow(t.s.Client(), now()) {
		return nil
	}
	return t.refused()
}

func (t *takeovers) refused() error {
	t.l.n.metrics.refusedFights.Add(1)
	return &wire.Error{Code: wire.Busy, Text: "this client id changes hands too often: is it in use on two devices?"}
}

// did counts a takeover here that nobody saw coming.
func (t *takeovers) did() {
	if !t.counted {
		t.counted = true
		t.l.n.fights.charge(t.s.Client(), now())
	}
}

// early refuses before anything is proposed: the holder is open here, or the allowance is used up and the holder is
// proven to be elsewhere. What the table applied here says is not enough: the holder may have left a moment ago.
func (t *takeovers) early(ctx context.Context) error {
	client := t.s.Client()
	if open, ok := t.l.claims.current(client); ok {
		return t.from(open.ID())
	}
	if row, ok := t.l.n.fsm.Lookup(client); ok && row.Node == t.l.n.id && t.l.vacated.covers(client, row.Epoch) {
		return t.from(row.Session) // somebody is on the way from here to elsewhere
	}
	if !t.l.n.fights.exhausted(client, now()) {
		return nil
	}
	at, err := t.l.n.reads.do(ctx, client)
	if err != nil || !at.found || at.route.Node == t.l.n.id || at.route.Session.Instance == t.s.ID().Instance {
		return nil // the registration will tell
	}
	return t.refused()
}
