package node

import (
	"slices"
	"sync"

	"imroute/mesh/wire"
)

// claims is what this node knows, in its present incarnation, of who may be delivered to here: for each client the
// session that is open, those that wait for their epoch, and the epochs that were given up to another node. It decides
// only; who asks it closes sessions and proposes commands. S is *gateway.Session in the program and something smaller in
// the model check. Safe for concurrent use.
type claims[S comparable] struct {
	shards [claimShards]claimShard[S]
}

const claimShards = 64

type claimShard[S comparable] struct {
	mu      sync.Mutex
	clients map[wire.ClientID]*claim[S]
	_       [40]byte // one shard a cache line: deliveries of different clients do not meet
}

type claim[S comparable] struct {
	open    S // zero: none
	epoch   wire.Epoch
	pending []S        // registered or registering, epoch not known yet
	closing []S        // given up and perhaps not fenced yet: whoever comes after them waits for them
	revoked wire.Epoch // of those in closing that a Revoke closed, the highest: unregistered at the latest when they are over
	// refused: every epoch up to this one was given up by a Revoke. It outlives the sessions, because a reply that is
	// still on its way may bring such an epoch; once the batch that was in flight at the Revoke is answered no reply can.
	refused     wire.Epoch
	refusedSeq  uint64
	highestSeen wire.Epoch
}

func newClaims[S comparable]() *claims[S] {
	c := &claims[S]{}
	for i := range c.shards {
		c.shards[i].clients = map[wire.ClientID]*claim[S]{}
	}
	return c
}

func (c *claims[S]) shard(client wire.ClientID) *claimShard[S] {
	return &c.shards[client.HashID()%claimShards]
}

// begin notes a session whose registration is about to be proposed.
func (c *claims[S]) begin(client wire.ClientID, s S) {
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil {
		e = &claim[S]{}
		sh.clients[client] = e
	}
	e.pending = append(e.pending, s)
}

// learned is what to do after a session's epoch became known.
type learned[S comparable] struct {
	open  bool // the session now owns the client here: open it once those in close are fenced
	close []S  // sessions to close first; some may be closing already
}

// learn tells the claim the epoch that the state machine gave to s. Nothing is open meanwhile: the former session stops
// being found here and now. If open is false s must be closed, and its epoch unregistered once it is.
func (c *claims[S]) learn(client wire.ClientID, s S, epoch wire.Epoch) learned[S] {
	var none S
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil {
		return learned[S]{} // it ended meanwhile, and nobody else is here
	}
	waited := e.dropPending(s)
	defer sh.tidy(client, e)
	var l learned[S]
	if e.open != none && e.epoch < epoch { // s replaced it in the table, even if s ended meanwhile
		e.giveUp()
	}
	l.close = slices.Clone(e.closing)
	if !waited || epoch <= e.refused || epoch < e.highestSeen {
		return l
	}
	e.highestSeen = epoch
	e.open, e.epoch = s, epoch
	l.open = true
	return l
}

// revoke refuses every epoch of the client up to epoch, for good in this incarnation, and returns the session to close:
// none if nothing that old is open. inflight is the batch whose answer may still bring a refused epoch (0: none).
func (c *claims[S]) revoke(client wire.ClientID, epoch wire.Epoch, inflight uint64) (closing S, had bool) {
	var none S
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil {
		if inflight == 0 {
			return none, false
		}
		e = &claim[S]{}
		sh.clients[client] = e
	}
	defer sh.tidy(client, e)
	if inflight != 0 {
		e.refused = max(e.refused, epoch)
		e.refusedSeq = max(e.refusedSeq, inflight)
	}
	if e.open != none && e.epoch <= epoch {
		closing, had = e.open, true
		e.revoked = e.epoch
		e.giveUp()
	}
	return closing, had
}

// closing returns the sessions of client that were given up and may not be fenced yet.
func (c *claims[S]) closing(client wire.ClientID) []S {
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.clients[client]; e != nil {
		return slices.Clone(e.closing)
	}
	return nil
}

// ended removes a session that is over. epoch is what to unregister; 0 if it was not open (an epoch that is still on its
// way is answered by learn). What a Revoke closed counts as open: nobody may be left to wait for its fence.
func (c *claims[S]) ended(client wire.ClientID, s S) (epoch wire.Epoch) {
	var none S
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil {
		return 0
	}
	defer sh.tidy(client, e)
	if e.open == s {
		epoch = e.epoch
		e.open, e.epoch = none, 0
		return epoch
	}
	e.dropPending(s)
	if e.closing = slices.DeleteFunc(e.closing, func(x S) bool { return x == s }); len(e.closing) == 0 {
		epoch, e.closing, e.revoked = e.revoked, nil, 0
	}
	return epoch
}

func (e *claim[S]) giveUp() {
	var none S
	e.closing = append(e.closing, e.open)
	e.open, e.epoch = none, 0
}

// answered forgets the refusals that no reply can need any more: every batch up to seq was answered.
func (c *claims[S]) answered(seq uint64, refusedClients []wire.ClientID) {
	for _, client := range refusedClients {
		sh := c.shard(client)
		sh.mu.Lock()
		if e := sh.clients[client]; e != nil && e.refusedSeq <= seq {
			e.refused, e.refusedSeq = 0, 0
			sh.tidy(client, e)
		}
		sh.mu.Unlock()
	}
}

// find returns the session that may be delivered to under epoch.
func (c *claims[S]) find(client wire.ClientID, epoch wire.Epoch) (s S, ok bool) {
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil || e.epoch != epoch || epoch == 0 {
		return s, false
	}
	return e.open, true
}

// current returns the session that is open for client, whatever its epoch.
func (c *claims[S]) current(client wire.ClientID) (s S, ok bool) {
	sh := c.shard(client)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.clients[client]
	if e == nil || e.epoch == 0 {
		return s, false
	}
	return e.open, true
}

func (e *claim[S]) dropPending(s S) bool {
	for i, p := range e.pending {
		if p == s {
			e.pending = append(e.pending[:i], e.pending[i+1:]...)
			if len(e.pending) == 0 {
				e.pending = nil
			}
			return true
		}
	}
	return false
}

// tidy forgets a claim that says nothing; the shard is locked.
func (sh *claimShard[S]) tidy(client wire.ClientID, e *claim[S]) {
	var none S
	if e.open == none && len(e.pending) == 0 && len(e.closing) == 0 && e.refused == 0 {
		delete(sh.clients, client)
	}
}
