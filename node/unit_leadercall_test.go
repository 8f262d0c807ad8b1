package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm/store"
)

// A question to a leader that died is asked again as soon as another one is known, not after its time-out.
func TestLeaderCallFollowsTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leader atomic.Uint64
		leader.Store(2)
		changed := make(chan struct{})
		c := &leaderCall{
			self:   1,
			leader: func() (wire.NodeID, bool) { return wire.NodeID(leader.Load()), leader.Load() != 0 },
			leaderChange: func(ctx context.Context, known store.Leadership) (store.Leadership, bool) {
				if known == (store.Leadership{}) {
					return store.Leadership{Term: 1}, true
				}
				select {
				case <-changed:
					return store.Leadership{Term: known.Term + 1}, true
				case <-ctx.Done():
					return known, false
				}
			},
			call: func(ctx context.Context, to wire.NodeID, _ wire.CallKind, _ []byte) ([]byte, error) {
				if to == 2 { // dead
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return wire.Marshal(wire.ReadReply{Code: wire.OK, Index: 7})
			},
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			leader.Store(0) // no leader is known: that is no reason to give up
			changed <- struct{}{}
			time.Sleep(400 * time.Millisecond)
			leader.Store(3)
			changed <- struct{}{}
		}()
		start := time.Now()
		var reply wire.ReadReply
		if err := c.until(t.Context(), wire.CallRead, wire.ReadRequest{}, &reply, proposeTry); err != nil || reply.Index != 7 {
			t.Fatalf("%+v, %v", reply, err)
		}
		if took := time.Since(start); took < 500*time.Millisecond || took > 550*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
	})
}

// What somebody's hint leads to is not given up because Raft here knows of another leader already.
func TestLeaderCallKeepsToAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &leaderCall{
			self:   1,
			leader: func() (wire.NodeID, bool) { return 1, true },
			leaderChange: func(ctx context.Context, known store.Leadership) (store.Leadership, bool) {
				<-ctx.Done()
				return known, false
			},
			call: func(_ context.Context, to wire.NodeID, _ wire.CallKind, _ []byte) ([]byte, error) {
				time.Sleep(time.Second)
				return wire.Marshal(wire.ReadReply{Code: wire.OK, Index: uint64(to)})
			},
		}
		c.hint.Store(3)
		var reply wire.ReadReply
		if err := c.once(t.Context(), wire.CallRead, wire.ReadRequest{}, &reply); err != nil || reply.Index != 3 {
			t.Fatalf("%+v, %v", reply, err)
		}
	})
}
