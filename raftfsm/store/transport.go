package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transport is raft.NetworkTransport over the configured layer, with its address being the node's id.
type transport struct {
	*raft.NetworkTransport
	local raft.ServerAddress
	conns *connTracker
	reach func(peer raft.ServerAddress, term uint64) // fixed before Raft starts
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func newTransport(cfg Config) *transport {
	conns := &connTracker{StreamLayer: cfg.Layer, open: make(map[net.Conn]struct{})}
	conns.handlers.L = &conns.mu
	return &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Logger:  hclogAdapter{log: cfg.Logger},
			Stream:  conns,
			MaxPool: 3,
			Timeout: cfg.RPCTimeout,
			// Issue 612: an append that fails in the pipeline can end replication to a follower for ever, while heartbeats
			// go on. One request in flight turns the pipeline off; entries are batches, so it costs next to nothing.
			MaxRPCsInFlight: 1,
		}),
		local: raft.ServerAddress(cfg.Local.String()),
		conns: conns,
	}
}

// SetHeartbeatHandler does nothing, on purpose. Issue 695: the fast path runs a heartbeat on the transport's goroutine while
// the main loop may be appending as leader; both change term and state, and committed logs were seen to differ. Without a
// handler heartbeats go through the main loop like every other request.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries waits until the peer can be reached before it fails. Raft counts failures, waits between two attempts for up to
// 10 ms · 2^10, and nothing shortens that: a member that was away for a minute would be without entries for another ten
// seconds, and a cluster that needs its vote without a quorum.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.reach(target, args.Term)
	return t.NetworkTransport.AppendEntries(id, target, args, resp)
}

// LocalAddr is the node's id: addresses in the configuration are ids, whatever the network address.
func (t *transport) LocalAddr() raft.ServerAddress { return t.local }

// Close closes the layer and every stream, and waits until the incoming ones have no handler left. raft.NetworkTransport
// alone would leave both the pooled and the accepted streams open, with a goroutine reading from each of the latter.
func (t *transport) Close() error {
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	return errors.Join(err, t.conns.closeAll())
}

// connTracker knows the streams that were handed out by a layer.
type connTracker struct {
	raft.StreamLayer

	mu       sync.Mutex
	handlers sync.Cond             // signals on mu when accepted falls to 0
	open     map[net.Conn]struct{} // guarded by mu
	accepted int                   // guarded by mu: incoming streams whose handler has not ended
	closed   bool                  // guarded by mu
}

// Accept waits for a peer's stream.
func (c *connTracker) Accept() (net.Conn, error) {
	conn, err := c.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return c.track(conn, true)
}

// Dial opens a stream to the node whose id is addr.
func (c *connTracker) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	conn, err := c.StreamLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	return c.track(conn, false)
}

func (c *connTracker) track(conn net.Conn, accepted bool) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(ErrClosed, conn.Close())
	}
	c.open[conn] = struct{}{}
	if accepted {
		c.accepted++
	}
	return &trackedConn{Conn: conn, c: c, accepted: accepted}, nil
}

// closeAll closes what is open and waits a while for the handlers.
func (c *connTracker) closeAll() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		_ = conn.Close() // it is being given up: nothing to learn from an error
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.handlers.Broadcast()
	})()
	for c.accepted > 0 && ctx.Err() == nil {
		c.handlers.Wait()
	}
	if c.accepted > 0 {
		return fmt.Errorf("%d incoming Raft streams did not end", c.accepted)
	}
	return nil
}

// trackedConn is a stream on loan. Closing an accepted one is the last thing that its handler does.
type trackedConn struct {
	net.Conn
	c        *connTracker
	accepted bool
	once     sync.Once
}

// Close closes the stream.
func (t *trackedConn) Close() error {
	t.once.Do(func() {
		t.c.mu.Lock()
		defer t.c.mu.Unlock()
		delete(t.c.open, t.Conn)
		if t.accepted {
			if t.c.accepted--; t.c.accepted == 0 {
				t.c.handlers.Broadcast()
			}
		}
	})
	return t.Conn.Close()
}
