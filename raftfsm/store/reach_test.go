package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// absence is a Config.Await for members that are away until they are said to be back.
type absence struct {
	mu      sync.Mutex
	away    map[wire.NodeID]chan struct{} // closed when it is back
	waiting map[wire.NodeID]int
}

func (a *absence) await(ctx context.Context, id wire.NodeID) error {
	a.mu.Lock()
	back := a.away[id]
	if back == nil {
		a.mu.Unlock()
		return nil
	}
	a.waiting[id]++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.waiting[id]--
		a.mu.Unlock()
	}()
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *absence) leave(id wire.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away[id] = make(chan struct{})
}

func (a *absence) comeBack(id wire.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.away[id])
	delete(a.away, id)
}

func (a *absence) count(id wire.NodeID) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting[id]
}

// A member that was away for long has the entries as soon as it is back: Raft alone would wait longer and longer between two
// attempts. Nobody can be made the leader meanwhile who cannot be reached, and whoever waits for a member ends with its
// leadership.
func TestReplicationFollowsReconnection(t *testing.T) {
	h := newHub()
	a := &absence{away: map[wire.NodeID]chan struct{}{}, waiting: map[wire.NodeID]int{}}
	nodes := cluster(t, h, func(c *Config) { c.Await = a.await })
	lead := leaderOf(t, nodes...)
	gone := others(nodes, lead)[0]
	a.leave(gone.id)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replication and heartbeats wait for the member", func() bool { return a.count(gone.id) == 2 })
	if err := lead.TransferLeadership(within(t), gone.id); !errors.Is(err, ErrNoTarget) {
		t.Errorf("leadership was to go to a member that is away: %v", err)
	}
	mustPropose(t, lead, 1)
	_, index := mustPropose(t, lead, 2)

	back := open(t, h, gone.id, gone.cfg.Dir, func(c *Config) { c.Await = a.await })
	began := time.Now()
	a.comeBack(gone.id)
	eventually(t, "the member has what it missed", func() bool { return back.CommitIndex() >= index })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}

	a.leave(gone.id)
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they wait again", func() bool { return a.count(gone.id) == 2 })
	if err := lead.TransferLeadership(within(t), others(others(nodes, lead), gone)[0].id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the new leader waits", func() bool { return a.count(gone.id) == 2 && !lead.IsLeader() })
}

// Waiting for a member ends when this one closes, and is over at once for what is no node id.
func TestReachEnds(t *testing.T) {
	a := &absence{away: map[wire.NodeID]chan struct{}{}, waiting: map[wire.NodeID]int{}}
	n := single(t, t.TempDir(), func(c *Config) { c.Await = a.await })
	n.reach("nobody", 1)
	a.leave(9)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.reach(raft.ServerAddress(wire.NodeID(9).String()), n.Term())
	}()
	eventually(t, "it waits", func() bool { return a.count(9) == 1 })
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}
