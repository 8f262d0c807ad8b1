package node

import (
	"container/list"
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
	v := e.Value.(*fight)
	from := max(v.until, at)
	if from-at > time.Duration(f.burst-1)*f.every {
		return false
	}
	v.until = from + f.every
	return true
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
	t.l.n.metrics.refusedFights.Add(1)
	return &wire.Error{Code: wire.Busy, Text: "this client id changes hands too often: is it in use on two devices?"}
}

// seen looks for another holder before anything is proposed: here among the open sessions, elsewhere by what the table
// applied here says. What it misses is told by the registration.
func (t *takeovers) seen() error {
	if open, ok := t.l.claims.current(t.s.Client()); ok {
		return t.from(open.ID())
	}
	if row, ok := t.l.n.fsm.Lookup(t.s.Client()); ok && row.Node != t.l.n.id {
		return t.from(row.Session)
	}
	return nil
}
