package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// Who asks while answers of a former round are on their way must not be told by them: a newer leader may have been elected
// since they were given.
func TestConfirmJoinsTheNextRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const led = 7
		var voters atomic.Uint64 // their term
		voters.Store(led)
		c := &confirmer{
			self: 1, timeout: time.Second, leading: func() (uint64, bool) { return led, true },
			voters: func() ([]wire.NodeID, error) { return []wire.NodeID{1, 2, 3}, nil },
			ask: func(ctx context.Context, _ wire.NodeID, q wire.ConfirmRequest) (wire.ConfirmReply, error) {
				reply := wire.ConfirmReply{Nonce: q.Nonce, Term: voters.Load()}
				sleep(ctx, 500*time.Millisecond) // the way back
				return reply, nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		c.open(ctx)
		defer c.rounds.wait()
		defer cancel()
		before, after := make(chan error, 1), make(chan error, 1)
		go func() { before <- c.confirm(ctx, led) }()
		synctest.Wait()
		voters.Store(led + 1)
		go func() { after <- c.confirm(ctx, led) }()
		if err := <-before; err != nil {
			t.Errorf("asked when it still led: %v", err)
		}
		var e *wire.Error
		if err := <-after; err == nil || !errors.As(err, &e) || e.Code != wire.Unavailable {
			t.Errorf("asked when a newer term had begun: %v, want no quorum", err)
		}
	})
}
