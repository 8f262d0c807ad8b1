package node

import (
	"context"

	"imroute/mesh/wire"
)

// FriendSource says whom a client sees when it watches its friends. Friends is called for each such watch, from several
// goroutines at once; it should answer within a few seconds, after which ctx ends. It returns ids of the client's own tenant, of
// which the first wire.MaxWatches count; an error is told to the client as unavailable. Lists that change later are seen when the
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
