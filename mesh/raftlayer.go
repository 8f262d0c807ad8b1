package mesh

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

// raftLayer is a raft.StreamLayer over the Raft connections.
type raftLayer struct {
	m        *Mesh
	incoming chan *streamConn
	once     sync.Once
	closed   chan struct{}
	dialling context.Context // ends with closed
	stop     context.CancelFunc
}

func newRaftLayer(m *Mesh) *raftLayer {
	r := &raftLayer{m: m, incoming: make(chan *streamConn, 16), closed: make(chan struct{})}
	r.dialling, r.stop = context.WithCancel(m.ctx)
	return r
}

// acceptWait is how long an incoming Raft stream waits for somebody to accept it, say while Raft starts.
const acceptWait = 5 * time.Second

func (r *raftLayer) deliver(c *streamConn) {
	timer := time.NewTimer(acceptWait)
	defer timer.Stop()
	select {
	case <-r.closed:
		_ = c.Close()
		return
	default:
	}
	select {
	case r.incoming <- c:
	case <-r.closed:
		_ = c.Close()
	case <-timer.C:
		r.m.log.Warn("raft stream refused: nobody accepts", "peer", c.remote)
		_ = c.Close()
	}
}

// Accept returns the next Raft stream of a peer.
func (r *raftLayer) Accept() (net.Conn, error) {
	select {
	case <-r.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-r.incoming:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; streams that were handed out stay as they are.
func (r *raftLayer) Close() error {
	r.once.Do(func() {
		close(r.closed)
		r.stop()
		for {
			select {
			case c := <-r.incoming:
				_ = c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

// Addr is this node's id, as Raft knows it.
func (r *raftLayer) Addr() net.Addr { return nodeAddr(r.m.self) }

// Dial opens a stream to the node whose id the address is.
func (r *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := wire.ParseNodeID(string(address))
	if err != nil {
		return nil, fmt.Errorf("raft address: %w", err)
	}
	select {
	case <-r.closed:
		return nil, net.ErrClosed
	default:
	}
	if timeout <= 0 {
		timeout = r.m.cfg.CallTimeout
	}
	ctx, cancel := context.WithTimeout(r.dialling, timeout)
	defer cancel()
	p := r.m.member(id)
	if p == nil {
		return nil, fmt.Errorf("raft: node %v: %w", id, ErrNotMember)
	}
	_, st, err := p.openStream(ctx, kindRaft)
	if err != nil {
		return nil, r.m.callFailed(ctx, id, false, err)
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetWriteDeadline(deadline)
	if _, err := st.Write([]byte{streamRaft}); err != nil { // the peer cannot accept a stream that is still empty
		resetStream(st)
		return nil, r.m.callFailed(ctx, id, false, err)
	}
	_ = st.SetWriteDeadline(time.Time{})
	return newStreamConn(st, r.m.self, id), nil
}

// nodeAddr is a node id as a net.Addr.
type nodeAddr wire.NodeID

func (nodeAddr) Network() string  { return "imroute" }
func (a nodeAddr) String() string { return wire.NodeID(a).String() }

// streamConn is a stream as a net.Conn between two nodes.
type streamConn struct {
	bothWays
	local, remote nodeAddr
}

func newStreamConn(st *quic.Stream, local, remote wire.NodeID) *streamConn {
	return &streamConn{bothWays{Stream: st}, nodeAddr(local), nodeAddr(remote)}
}

func (c *streamConn) LocalAddr() net.Addr  { return c.local }
func (c *streamConn) RemoteAddr() net.Addr { return c.remote }
