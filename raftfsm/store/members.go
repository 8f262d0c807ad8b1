package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// Member is one server of the Raft configuration.
type Member struct {
	ID    wire.NodeID
	Voter bool
}

// Members returns the newest configuration in this member's log, which is the one that Raft goes by even before it is
// committed, and its index; no members and 0 on a node that belongs to no cluster. On a follower it may be out of date.
// The slice is the caller's own, sorted by id.
func (s *Store) Members() ([]Member, uint64, error) {
	c := s.disk.configs.latest()
	members := make([]Member, 0, len(c.Servers))
	for _, srv := range c.Servers {
		id, err := wire.ParseNodeID(string(srv.ID))
		if err != nil {
			return nil, 0, fmt.Errorf("the Raft configuration at index %d: %w", c.index, err)
		}
		members = append(members, Member{id, srv.Suffrage == raft.Voter})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return members, c.index, nil
}

// change is what a caller wants to become of a member.
type change int

const (
	addNonvoter change = iota
	promote
	demote
	remove
)

// AddNonvoter adds a node that receives the log and has no vote. A node that is a member already stays as it is, a voter too.
// Leader only. It returns once the change is committed and applied here.
//
// Errors of the four changes: ErrNotLeader, ErrOverloaded, ErrClosed: nothing happened. ErrUnknown: it may yet happen; ask
// again, each of them may be repeated. Changes are made one after the other; each waits for the one before.
func (s *Store) AddNonvoter(ctx context.Context, id wire.NodeID) error {
	return s.change(ctx, id, addNonvoter)
}

// Promote gives a member a vote. It does not wait until the member has caught up: the caller sees to that first, because a
// voter that lags counts for the majority but cannot help to reach it. ErrNotMember if it is none. Leader only.
func (s *Store) Promote(ctx context.Context, id wire.NodeID) error { return s.change(ctx, id, promote) }

// Demote takes a member's vote. A leader that demotes itself steps down once that is committed. ErrNotMember if it is none,
// ErrLastVoter if it is the only voter. Leader only.
func (s *Store) Demote(ctx context.Context, id wire.NodeID) error { return s.change(ctx, id, demote) }

// Remove takes a node out of the configuration; one that is not in it stays out. A leader that removes itself steps down
// once that is committed. The removed node may never hear of it. ErrLastVoter if it is the only voter. Leader only.
func (s *Store) Remove(ctx context.Context, id wire.NodeID) error { return s.change(ctx, id, remove) }

func (s *Store) change(ctx context.Context, id wire.NodeID, want change) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if id == 0 {
		return fmt.Errorf("%w: the node id is zero", ErrNotMember)
	}
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("nothing was changed: %w", err)
		}
		if !s.IsLeader() {
			return ErrNotLeader
		}
		members, index, err := s.Members()
		if err != nil {
			return err
		}
		todo, err := decide(members, id, want)
		if err != nil {
			return err
		}
		if !todo {
			return s.settled(ctx, index)
		}
		// The change depends on the configuration that it was decided upon: without that, promoting a node that is being
		// removed at the same time would add it anew, since Raft's AddVoter does both.
		err = s.await(ctx, func() raft.Future { return s.request(ctx, id, want, index) })
		if err == nil {
			return nil
		}
		if now := s.disk.configs.latest().index; now != index && strings.HasPrefix(err.Error(), "configuration changed since") {
			continue
		}
		return s.translate(err)
	}
}

// decide tells whether there is anything to do to get what is wanted.
func decide(members []Member, id wire.NodeID, want change) (todo bool, err error) {
	voters, member, voter := 0, false, false
	for _, m := range members {
		if m.Voter {
			voters++
		}
		if m.ID == id {
			member, voter = true, m.Voter
		}
	}
	switch {
	case want == addNonvoter:
		return !member, nil
	case want == remove && !member:
		return false, nil
	case !member:
		return false, fmt.Errorf("%v: %w", id, ErrNotMember)
	case want == promote:
		return !voter, nil
	case voter && voters == 1:
		return false, ErrLastVoter
	default:
		return want == remove || voter, nil
	}
}

func (s *Store) request(ctx context.Context, id wire.NodeID, want change, index uint64) raft.Future {
	sid, addr, timeout := raft.ServerID(id.String()), raft.ServerAddress(id.String()), s.enqueueTimeout(ctx)
	switch want {
	case addNonvoter:
		return s.raft.AddNonvoter(sid, addr, index, timeout)
	case promote:
		return s.raft.AddVoter(sid, addr, index, timeout)
	case demote:
		return s.raft.DemoteVoter(sid, index, timeout)
	default:
		return s.raft.RemoveServer(sid, index, timeout)
	}
}

// settled waits until the configuration at index is committed: that nothing remains to be done was decided upon it, and
// while it is not committed it can be lost with this leader.
func (s *Store) settled(ctx context.Context, index uint64) error {
	if s.CommitIndex() >= index {
		return nil
	}
	tick := newPoll()
	defer tick.Stop()
	for s.CommitIndex() < index {
		if !s.IsLeader() {
			return fmt.Errorf("%w: leadership was lost", ErrUnknown)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
		case <-s.ctx.Done():
			return ErrUnknown
		}
	}
	return nil
}
