package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/raft"
)

// Propose puts cmd into the log and waits until it was applied here; result is what FSM.Apply returned and index the entry's.
// cmd belongs to Raft from then on and must never be changed.
//
// Errors: ErrNotLeader, ErrOverloaded, ErrClosed or, if ctx had ended before the call, its error mean that nothing happened;
// ErrUnknown means that the command may yet take effect. The error of a command is part of its result.
func (s *Store) Propose(ctx context.Context, cmd []byte) (result any, index uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("nothing was proposed: %w", err)
	}
	if err := s.begin(); err != nil {
		return nil, 0, err
	}
	defer s.end()
	if !s.IsLeader() {
		return nil, 0, ErrNotLeader
	}
	var f raft.ApplyFuture
	err = s.await(ctx, func() raft.Future {
		f = s.raft.Apply(cmd, s.enqueueTimeout(ctx))
		return f
	})
	if err != nil {
		return nil, 0, s.translate(err)
	}
	s.transfer.over()
	return f.Response(), f.Index(), nil
}

func (s *Store) enqueueTimeout(ctx context.Context) time.Duration {
	t := s.cfg.EnqueueTimeout
	if at, ok := ctx.Deadline(); ok {
		t = max(min(t, time.Until(at)), time.Millisecond) // 0 would be no limit at all
	}
	return t
}

// errGaveUp: await returned before Raft did.
var errGaveUp = errors.New("gave up waiting")

// await calls ask, which hands Raft a request and may block, and waits for the answer. It returns early, with errGaveUp, when
// ctx ends or this member fails: the request is then under way still, and what ask wrote must not be read.
func (s *Store) await(ctx context.Context, ask func() raft.Future) error {
	answer := make(chan error, 1)
	s.calls.Add(1) // the caller's begin holds the group above 0
	go func() {
		defer s.calls.Done()
		f := ask()
		endWith(f, s.done)
		answer <- f.Error()
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errGaveUp, context.Cause(ctx))
	case <-s.fail.failed:
		return fmt.Errorf("%w: %w", errGaveUp, s.fail.err)
	}
}

// endWith makes f.Error return once done is closed. Raft leaves futures unanswered that are in its queues when it shuts
// down: their Error blocks for ever, and with it a goroutine for each. They do have a ShutdownCh for this purpose, which
// nothing but Error reads, but for most requests Raft does not set it, and offers no way to.
func endWith(f raft.Future, done chan struct{}) {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return // answered already
	}
	ch := v.Elem().FieldByName("ShutdownCh")
	if ch.IsValid() && ch.CanSet() && ch.Type() == reflect.TypeFor[chan struct{}]() && ch.IsNil() {
		ch.Set(reflect.ValueOf(done))
	}
}

// translate gives Raft's errors our names. What is not known for certain to have had no effect is ErrUnknown.
func (s *Store) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		s.transfer.over()
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		s.transferRefused()
		return fmt.Errorf("%w: it is handing leadership over", ErrNotLeader)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrOverloaded
	default:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}
