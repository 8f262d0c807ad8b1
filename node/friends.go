package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"imroute/mesh/wire"
	"imroute/node/webhook"
)

// FriendSource says whom a client sees when it watches its friends. Friends is called for each such watch, from several
// goroutines at once; it should answer within a few seconds, after which ctx ends. It returns ids of the client's own tenant, of
// which the first wire.MaxWatches count; an error goes to the node's log, and the client is told unavailable. Lists that change later are seen when the
// client watches again.
type FriendSource interface {
	Friends(ctx context.Context, client wire.ClientID) ([]string, error)
}

// FriendFunc makes a function a FriendSource.
type FriendFunc func(ctx context.Context, client wire.ClientID) ([]string, error)

// Friends calls f.
func (f FriendFunc) Friends(ctx context.Context, client wire.ClientID) ([]string, error) {
	return f(ctx, client)
}

// friendsTold is a friend source as clients meet it: its errors are for the operator, in the log, once until it answers again.
type friendsTold struct {
	source  FriendSource
	log     *slog.Logger
	failing atomic.Bool
}

func (f *friendsTold) Friends(ctx context.Context, client wire.ClientID) ([]string, error) {
	ids, err := f.source.Friends(ctx, client)
	denied, refused := errors.AsType[*webhook.Denied](err)
	switch {
	case err == nil, refused:
		if f.failing.Swap(false) {
			f.log.Info("the friend source answers again")
		}
		if refused { // said for people
			return nil, fmt.Errorf("it refuses: %w", denied)
		}
		return ids, nil
	case errors.Is(ctx.Err(), context.Canceled): // the node ends
	case !f.failing.Swap(true):
		f.log.Error("the friend source fails; clients who watch their friends are told that it is unavailable until it answers", "client", client.String(), "err", err)
	}
	return nil, errors.New("it fails, and nobody can be shown: try again later")
}
