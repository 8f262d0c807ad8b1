package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// Leadership is what this member knows of who leads. Values are compared with ==.
type Leadership struct {
	Leading bool        // this member leads in Term
	Term    uint64      // its current term
	Leader  wire.NodeID // 0 if it knows of none
}

// leaderState publishes Leadership by level: whoever waits compares it with what he knows, so nothing depends on seeing
// every change. Raft's LeaderCh keeps only the last value and its NotifyCh stops Raft until somebody reads it.
type leaderState struct {
	mu      sync.Mutex
	now     Leadership    // guarded by mu
	changed chan struct{} // guarded by mu: closed when now changes, and replaced
}

func (l *leaderState) init() { l.changed = make(chan struct{}) }

func (l *leaderState) get() (Leadership, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

func (l *leaderState) set(v Leadership) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v != l.now {
		l.now = v
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// IsLeader tells whether this member believes to lead. Another one may lead in a later term already.
func (s *Store) IsLeader() bool { return s.raft.State() == raft.Leader && s.fail.hasFailed() == nil }

// Leader returns the member that this one believes to lead; false if it knows of none.
func (s *Store) Leader() (wire.NodeID, bool) {
	_, id := s.raft.LeaderWithID()
	n, err := wire.ParseNodeID(string(id))
	return n, err == nil
}

// Term is this member's current term.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }

// CommitIndex is the highest index that this member knows to be committed.
func (s *Store) CommitIndex() uint64 { return s.raft.CommitIndex() }

// LastIndex is the index of the last entry that this member holds, in its log or its snapshot.
func (s *Store) LastIndex() uint64 { return s.raft.LastIndex() }

// Leadership returns what this member knows at the moment, as one consistent value.
func (s *Store) Leadership() Leadership {
	for {
		// The term only rises, and Raft ceases to be leader before it raises it. So if the term was the same before and
		// after, Leading is about this term.
		term := s.raft.CurrentTerm()
		l := Leadership{Leading: s.IsLeader(), Term: term}
		l.Leader, _ = s.Leader()
		if s.raft.CurrentTerm() == term {
			if l.Leading {
				l.Leader = s.cfg.Local // Raft sets it a moment after the state
			} else if l.Leader == s.cfg.Local {
				l.Leader = 0
			}
			return l
		}
	}
}

// WaitLeadership returns as soon as Leadership differs from known, at once if it does already: with the zero Leadership
// for the first call and the last answer for the next, no lasting change is missed. A change that lasted for less than
// a moment may be; a member that led again shows a higher term. The error is that of ctx, or ErrClosed.
func (s *Store) WaitLeadership(ctx context.Context, known Leadership) (Leadership, error) {
	for {
		now, changed := s.leader.get()
		if now != known {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return known, context.Cause(ctx)
		case <-s.ctx.Done():
			return known, ErrClosed
		}
	}
}

// watchLeader keeps s.leader up to date. Observers tell of changes of state and leader; a term can rise without either, so
// it also looks by itself now and then.
func (s *Store) watchLeader() {
	events := make(chan raft.Observation, 1)
	o := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.RaftState, raft.LeaderObservation:
			return true
		}
		return false
	})
	s.raft.RegisterObserver(o)
	defer s.raft.DeregisterObserver(o)
	look := time.NewTicker(max(s.cfg.Heartbeat/4, time.Millisecond))
	defer look.Stop()
	for {
		s.leader.set(s.Leadership())
		select {
		case <-events:
		case <-look.C:
		case <-s.fail.failed:
			s.leader.set(Leadership{Term: s.Term()})
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// transferWatch notices a leader that refuses everything because it believes that a transfer is going on.
//
// Issue 696 of hashicorp/raft: the goroutine that transfers leadership can block for ever on a follower whose replication
// has ended meanwhile. The flag that it holds stays set, and when this member is elected again it refuses every proposal,
// while it goes on sending heartbeats. Nothing can take the flag back, only a new process.
type transferWatch struct {
	mu    sync.Mutex
	since time.Time // guarded by mu: when the first of an unbroken row of refusals was seen; zero: none
	last  time.Time // guarded by mu: and the latest one
}

func (t *transferWatch) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = time.Time{}
}

// transferRefused: Raft refused something because of a transfer.
func (s *Store) transferRefused() {
	s.transfer.mu.Lock()
	now := time.Now()
	if s.transfer.since.IsZero() || now.Sub(s.transfer.last) > s.transferLimit()/2 {
		s.transfer.since = now // what was refused long ago may have been another transfer
	}
	s.transfer.last = now
	stuck := now.Sub(s.transfer.since)
	s.transfer.mu.Unlock()
	if stuck > s.transferLimit() {
		s.fail.fail(fmt.Errorf("a transfer of leadership has been stuck for %v and blocks every write: start the node again", stuck.Round(time.Second)))
	}
}

// transferLimit is longer than any transfer that works can take: the request to the target may wait for RPCTimeout, and
// Raft waits for an election behind it.
func (s *Store) transferLimit() time.Duration {
	return s.cfg.RPCTimeout + 3*s.cfg.Election + 2*time.Second
}

// TransferLeadership makes another voter the leader: to, or the one that is furthest if to is 0. It returns nil once this
// member no longer leads, which it does not before another one stands for election. Leader only (ErrNotLeader); ErrNoTarget
// if to is no voter or is this member, or if there is no other voter. Any other error: this member may or may not lead.
//
// While a transfer is under way proposals are refused with ErrNotLeader. One that does not end is ended by Fatal.
func (s *Store) TransferLeadership(ctx context.Context, to wire.NodeID) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	lead := s.Leadership()
	if !lead.Leading {
		return ErrNotLeader
	}
	if err := s.checkTarget(to); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.transferLimit())
	defer cancel()
	err := s.await(ctx, func() raft.Future {
		if to == 0 {
			return s.raft.LeadershipTransfer()
		}
		return s.raft.LeadershipTransferToServer(raft.ServerID(to.String()), raft.ServerAddress(to.String()))
	})
	switch {
	case err == nil:
		return s.waitDeposed(ctx, lead)
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		s.transferRefused()
		return fmt.Errorf("another transfer of leadership is under way: %w", ErrOverloaded)
	default:
		return fmt.Errorf("leadership was not handed over: %w", err)
	}
}

func (s *Store) checkTarget(to wire.NodeID) error {
	members, _, err := s.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Voter && m.ID != s.cfg.Local && (to == 0 || to == m.ID) {
			// Raft's transfer would wait for entries to reach it, and a second one for the first (Issue 696).
			if to == m.ID && !s.reachable(to) {
				return fmt.Errorf("%w: %v cannot be reached", ErrNoTarget, to)
			}
			return nil
		}
	}
	if to == 0 {
		return ErrNoTarget
	}
	return fmt.Errorf("%w: %v is not another voter", ErrNoTarget, to)
}

// waitDeposed waits until this member does not lead in lead's term any more. Raft answers a transfer when its leader's loop
// ends, which is a moment before.
func (s *Store) waitDeposed(ctx context.Context, lead Leadership) error {
	for known := lead; known.Leading && known.Term == lead.Term; {
		var err error
		if known, err = s.WaitLeadership(ctx, known); err != nil {
			return fmt.Errorf("leadership was not handed over: %w", err)
		}
	}
	return nil
}
