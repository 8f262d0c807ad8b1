package store

import (
	"context"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// reach returns when the peer can be reached, or when there is no point in waiting for it: it is no member any more, this
// member does not lead in that term any more, or it closes. The caller is the goroutine of Raft that replicates to that peer
// in that term, and nobody else waits for it.
func (s *Store) reach(peer raft.ServerAddress, term uint64) {
	id, err := wire.ParseNodeID(string(peer))
	if err != nil || s.cfg.Await == nil {
		return
	}
	if s.cfg.Await(s.past, id) == nil {
		return // by far the most frequent
	}
	ctx, cancel := context.WithCancel(s.ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.awaitDeposed(ctx, term)
		cancel()
	}()
	_ = s.cfg.Await(ctx, id) // whatever it says: the request finds out
	cancel()
	<-watched
}

// awaitDeposed returns when this member no longer leads in term, or ctx ends. What is published may lag behind Raft: until it
// has shown that this member leads, only a later term counts.
func (s *Store) awaitDeposed(ctx context.Context, term uint64) {
	led := false
	for {
		now, changed := s.leader.get()
		switch {
		case now.Term > term, now.Term == term && led && !now.Leading:
			return
		case now.Term == term && now.Leading:
			led = true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// reachable tells whether there is a connection to a member at this moment, as far as that is known.
func (s *Store) reachable(id wire.NodeID) bool {
	return s.cfg.Await == nil || s.cfg.Await(s.past, id) == nil
}
