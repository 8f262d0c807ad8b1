package gateway

import (
	"cmp"
	"slices"
	"time"

	"imroute/mesh/wire"
)

// dedupe remembers which messages a session was given, per sender instance. A sender's counters rise, so one number decides
// most cases; the last few ids keep their results for those who ask again. It is bounded by the number of senders, of ids
// per sender, and by age. Guarded by Session.mu.
type dedupe struct {
	peers    map[uint64]*peer
	oldest   *peer // list by last use, as it was when they were put there: who was heard since gets another turn
	newest   *peer
	window   int
	maxPeers int
	maxAge   time.Duration
}

// peer is one sender instance.
type peer struct {
	of         *dedupe
	instance   uint64
	last       uint64 // highest counter taken
	lost       uint64 // highest counter whose result is forgotten
	seen       []seen // by rising counter
	heard      time.Duration
	listed     time.Duration // heard, when it was put in the list
	gone       bool          // forgotten: a wire.Memo may still hold it
	prev, next *peer
}

// seen is a taken message: pending as long as its result is open, then its result.
type seen struct {
	counter uint64
	code    wire.Code
	p       *pending
}

// verdict is what dedupe says of a message that arrives.
type verdict uint8

const (
	fresh     verdict = iota // take it
	repeated                 // taken before; seen tells its result
	overtaken                // never taken, and a later one was
	forgotten                // at or below what is remembered: may have been taken
)

// look judges (instance, counter) without changing anything but the order of use. The pointers are valid until the next
// call that changes the memory.
// memo, if not nil, is of messages of one sender to this session: it spares the search.
func (d *dedupe) look(instance, counter uint64, now time.Duration, memo *wire.Memo) (verdict, *peer, *seen) {
	p := d.newest
	if memo != nil {
		p, _ = memo.P.(*peer)
	}
	if p == nil || p.gone || p.instance != instance || p.of != d {
		if p = d.peers[instance]; p == nil {
			return fresh, nil, nil
		}
		if memo != nil {
			memo.P = p
		}
	}
	p.heard = now
	if counter > p.last {
		return fresh, p, nil
	}
	i, ok := slices.BinarySearchFunc(p.seen, counter, func(s seen, c uint64) int {
		switch {
		case s.counter < c:
			return -1
		case s.counter > c:
			return 1
		}
		return 0
	})
	switch {
	case ok:
		return repeated, p, &p.seen[i]
	case counter <= p.lost:
		return forgotten, p, nil
	}
	return overtaken, p, nil
}

// took records that a message judged fresh was accepted. known is what look returned for it. code is the result if it is
// final already, p the open one otherwise.
func (d *dedupe) took(known *peer, instance, counter uint64, code wire.Code, p *pending, now time.Duration) {
	known = d.know(known, instance, now)
	known.last = counter
	if len(known.seen) >= d.window {
		cut := max(1, d.window/2) // half at a time: one copy for many messages
		known.lost = known.seen[cut-1].counter
		n := copy(known.seen, known.seen[cut:])
		clear(known.seen[n:])
		known.seen = known.seen[:n]
	}
	known.seen = append(known.seen, seen{counter, code, p})
	if p != nil {
		p.peer = known
	}
}

// passed is took for a message whose result nobody will ask for: its id alone is not worth remembering.
func (d *dedupe) passed(known *peer, instance, counter uint64, now time.Duration) {
	known = d.know(known, instance, now)
	known.last, known.lost = counter, counter
}

func (d *dedupe) know(known *peer, instance uint64, now time.Duration) *peer {
	if known != nil {
		return known
	}
	if d.peers == nil {
		d.peers = make(map[uint64]*peer)
	}
	if len(d.peers) >= d.maxPeers {
		d.turn()
		d.forget(d.oldest)
	}
	known = &peer{of: d, instance: instance, heard: now}
	d.peers[instance] = known
	d.pushNewest(known)
	return known
}

// resolved keeps the result of an open message, if it is remembered still.
func (d *dedupe) resolved(p *pending, code wire.Code) {
	if p.peer == nil {
		return
	}
	for i := len(p.peer.seen) - 1; i >= 0; i-- {
		if s := &p.peer.seen[i]; s.p == p {
			s.p, s.code = nil, code
			break
		}
	}
	p.peer = nil
}

// age forgets senders that were silent for too long and returns when to look again; 0 if nothing is left to forget.
func (d *dedupe) age(now time.Duration) time.Duration {
	for d.oldest != nil && d.oldest.listed+d.maxAge <= now {
		if d.oldest.heard+d.maxAge <= now {
			d.forget(d.oldest)
		} else {
			d.again(d.oldest)
		}
	}
	if d.oldest == nil {
		d.peers = nil
		return 0
	}
	return d.oldest.listed + d.maxAge
}

// turn gives another turn to those at the old end who were heard since they were put there; if they are many, to some.
func (d *dedupe) turn() {
	for range 16 {
		if d.oldest.heard == d.oldest.listed {
			return
		}
		d.again(d.oldest)
	}
}

func (d *dedupe) again(p *peer) {
	d.unlink(p)
	d.pushNewest(p)
}

func (d *dedupe) forget(p *peer) {
	p.gone = true
	d.unlink(p)
	delete(d.peers, p.instance)
}

func (d *dedupe) unlink(p *peer) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		d.oldest = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		d.newest = p.prev
	}
	p.prev, p.next = nil, nil
}

func (d *dedupe) pushNewest(p *peer) {
	p.listed = p.heard
	p.prev = d.newest
	if d.newest != nil {
		d.newest.next = p
	} else {
		d.oldest = p
	}
	d.newest = p
}

// tookAnyhow is took for requests to a service, whose order means nothing: one that another instance refused comes here behind
// later ones. What lies so far back that it is forgotten counts as fresh: whoever hands a request on does so only after a
// refusal, so nothing is repeated but by a client that uses an id twice.
func (d *dedupe) tookAnyhow(known *peer, instance, counter uint64, code wire.Code, p *pending, now time.Duration) {
	if known == nil || counter > known.last {
		d.took(known, instance, counter, code, p, now)
		return
	}
	last := known.last
	d.took(known, instance, counter, code, p, now)
	known.last = last
	n := len(known.seen) - 1
	i, _ := slices.BinarySearchFunc(known.seen[:n], counter, func(s seen, c uint64) int { return cmp.Compare(s.counter, c) })
	it := known.seen[n]
	copy(known.seen[i+1:], known.seen[i:n])
	known.seen[i] = it
}
