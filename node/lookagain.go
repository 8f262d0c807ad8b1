package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// lookAgain finds the devices of users that this node's table did not know of yet when a message went to those it knew: a
// follower learns of a commit up to 100 ms late when nothing else is going on, and whoever asks how many were reached means
// every device that was told welcome before. One linearizable read serves all messages that gathered during the one before it,
// while their first copies are on their way. One goroutine runs while anything waits.
type lookAgain struct {
	r       *router
	refresh func(ctx context.Context) error // returns once the table holds everything acknowledged before the call

	mu      sync.Mutex
	waiting []*deviceTally
	running bool
	closed  bool
}

// copyOf keeps what is needed to send m to more devices; m lends its memory. false: there is no room for it.
func (l *lookAgain) copyOf(t *deviceTally, m *wire.Forward, known []raftfsm.Device, timeout time.Duration) bool {
	if !l.r.pendings.reserve(len(m.Payload)) {
		return false
	}
	t.m, t.deadline = m.Clone(), now()+timeout
	for i := range known {
		t.known = append(t.known, strings.Clone(known[i].Client.ID)) // that of the user's own id is lent
	}
	return true
}

// add has t, which has a copy, looked at.
func (l *lookAgain) add(t *deviceTally) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.end(t, wire.Unknown)
		return
	}
	l.waiting = append(l.waiting, t)
	start := !l.running
	if start {
		l.running = true
		l.r.wg.Add(1)
	}
	l.mu.Unlock()
	if start {
		go func() {
			defer l.r.wg.Done()
			l.run()
		}()
	}
}

// close takes nothing more.
func (l *lookAgain) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *lookAgain) next() []*deviceTally {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := l.waiting
	l.waiting = nil
	l.running = len(batch) > 0
	return batch
}

func (l *lookAgain) run() {
	for batch := l.next(); len(batch) > 0; batch = l.next() {
		at := now()
		wait := maxTimeout
		for _, t := range batch {
			wait = min(wait, (t.deadline-at)/2) // the other half is for the answers
		}
		ctx, cancel := context.WithTimeout(l.r.ctx, wait)
		err := l.refresh(ctx)
		cancel()
		for _, t := range batch {
			if err != nil { // those that were known count for what they are
				l.end(t, wire.Unavailable)
				continue
			}
			l.more(t)
			l.end(t, wire.Offline)
		}
	}
}

// more sends to the devices that were not known before.
func (l *lookAgain) more(t *deviceTally) {
	left := t.deadline - now()
	if left <= 0 {
		return
	}
	for _, d := range allowedDevices(t.o, l.r.table.Devices(wire.ClientID{Tenant: t.m.Tenant, ID: t.m.To}, nil)) {
		if slices.Contains(t.known, d.Client.ID) {
			continue
		}
		t.mu.Lock()
		t.open++
		t.mu.Unlock()
		one := *t.m
		one.To = d.Client.ID
		l.r.send(&deviceOrigin{t, one.To}, nil, &one, left)
	}
}

// end is the outcome of the look itself, which t counts like that of a device.
func (l *lookAgain) end(t *deviceTally, code wire.Code) {
	l.r.pendings.bytes.Add(-int64(len(t.m.Payload) + pendingCost))
	t.Result(t.m.Counter, code, "", "")
}
