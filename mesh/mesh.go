package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

// Mesh is this node's connections to the other members. New, Handle and Open come first, in this order and from one
// goroutine; every other method may be called from several goroutines, Close included.
//
// Lock order: Mesh.mu before slot.mu; slot.mu of one slot is never held while taking another's.
type Mesh struct {
	// Fixed after construction.
	cfg     Config
	self    wire.NodeID
	cluster uint64
	log     *slog.Logger
	raft    *raftLayer
	notify  notifier
	joins   *rate.Limiter
	// refusals bounds the log lines that strangers can cause.
	refusals *rate.Limiter
	told     tellOnce
	joining  chan struct{} // join requests under way
	admits   chan struct{} // accepted connections before their hello
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// Fixed by Open.
	handlers  [256]Handler
	udp       net.PacketConn
	transport *quic.Transport
	listener  *quic.Listener

	identity atomic.Pointer[Identity]
	peers    atomic.Pointer[map[wire.NodeID]*peer] // replaced under mu, never changed

	wg sync.WaitGroup // every goroutine; joined under mu while state is open

	mu    sync.Mutex
	state meshState
	done  chan struct{} // closed when Close has finished
}

type meshState int

const (
	stateNew meshState = iota
	stateOpen
	stateClosed
)

// Handler answers one kind of call. Its context ends when the caller gives up, the connection breaks or the mesh closes;
// it must obey that, as Close waits for it. It owns neither req nor, after returning, the answer. An error that is a
// *wire.Error reaches the caller as it is, any other as wire.Internal with its text.
type Handler func(ctx context.Context, from wire.NodeID, req []byte) ([]byte, error)

// New makes a mesh; it opens and starts nothing.
func New(cfg Config) (*Mesh, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.ResetKey == ([32]byte{}) {
		_, _ = rand.Read(cfg.ResetKey[:]) // never fails: crypto/rand ends the process instead
	}
	m := &Mesh{
		cfg:      cfg,
		self:     cfg.Identity.Node,
		cluster:  cfg.Identity.Cluster,
		log:      cfg.Logger,
		joins:    rate.NewLimiter(rate.Limit(cfg.JoinRate), 20),
		refusals: rate.NewLimiter(5, 50),
		joining:  make(chan struct{}, joinSlots),
		admits:   make(chan struct{}, admitSlots),
		done:     make(chan struct{}),
	}
	if cfg.Lane.Handler != nil { // name a bad setting now and not when the first lane is made
		if _, err := lane.New(m.laneConfig(0, 0)); err != nil {
			return nil, fmt.Errorf("mesh: Lane: %w", err)
		}
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.identity.Store(cfg.Identity)
	m.peers.Store(&map[wire.NodeID]*peer{})
	m.raft = newRaftLayer(m)
	m.notify.init(m)
	return m, nil
}

// Handle sets who answers a kind of call; before Open only.
func (m *Mesh) Handle(kind wire.CallKind, h Handler) { m.handlers[kind] = h }

// Open binds the socket and starts to listen. A mesh is opened once.
func (m *Mesh) Open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != stateNew {
		return errors.New("mesh: Open called twice or after Close")
	}
	var err error
	if m.udp, err = m.listenUDP(); err != nil {
		return fmt.Errorf("mesh: cannot bind %s (is another process using it?): %w", m.cfg.Bind, err)
	}
	handshakes := rate.NewLimiter(handshakeRate, handshakeRate)
	conn := m.udp
	if udp, ok := conn.(*net.UDPConn); ok {
		conn = received(udp, m.packetsProcessed)
	}
	m.transport = &quic.Transport{
		Conn:                conn,
		StatelessResetKey:   (*quic.StatelessResetKey)(&m.cfg.ResetKey),
		VerifySourceAddress: func(net.Addr) bool { return !handshakes.Allow() },
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			return context.WithValue(ctx, arrivedKey{}, time.Now()), nil
		},
	}
	m.listener, err = m.transport.Listen(serverTLS(m.identity.Load), quicConfig(&m.cfg))
	if err != nil {
		_ = m.udp.Close()
		return fmt.Errorf("mesh: listen on %s: %w", m.cfg.Bind, err)
	}
	m.state = stateOpen
	m.spawnLocked(m.acceptLoop)
	m.spawnLocked(m.notify.run)
	return nil
}

func (m *Mesh) listenUDP() (net.PacketConn, error) {
	if m.cfg.Listen != nil {
		return m.cfg.Listen(m.cfg.Bind)
	}
	addr, err := resolve(m.ctx, m.cfg.Bind, nil)
	if err != nil {
		return nil, err
	}
	if host, _, _ := net.SplitHostPort(m.cfg.Bind); host == "" {
		addr.IP = nil // all interfaces
	}
	udp, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err // not udp, which would be a nil that is not nil
	}
	return udp, nil
}

// Close ends every connection, tells the peers, and returns when every goroutine has ended. Calls under way end with
// ErrClosed. It may be called more than once and before Open.
func (m *Mesh) Close() error {
	m.mu.Lock()
	was := m.state
	m.state = stateClosed
	peers := *m.peers.Load()
	m.mu.Unlock()
	if was == stateClosed {
		<-m.done
		return nil
	}
	defer close(m.done)
	m.cancel(ErrClosed)
	_ = m.raft.Close()
	if was == stateNew {
		return nil
	}
	var closing sync.WaitGroup
	for _, p := range peers {
		closing.Go(func() { p.end(closeBye, "shutting down") })
	}
	closing.Wait()
	err := m.listener.Close()
	err = errors.Join(err, m.transport.Close(), m.udp.Close())
	m.wg.Wait()
	if err != nil {
		return fmt.Errorf("mesh: close: %w", err)
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for; it says no once Close has begun.
func (m *Mesh) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spawnLocked(f)
}

func (m *Mesh) spawnLocked(f func()) bool {
	if m.state != stateOpen {
		return false
	}
	m.wg.Go(f)
	return true
}

// Addr is the address the socket is bound to; nil before Open.
func (m *Mesh) Addr() net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.udp == nil {
		return nil
	}
	return m.udp.LocalAddr()
}

// Self is this node's id.
func (m *Mesh) Self() wire.NodeID { return m.self }

// Process names this run of the process, see Config.Process.
func (m *Mesh) Process() uint64 { return m.cfg.Process }

// UpdateIdentity replaces the certificate, or whom it trusts: new handshakes use it, connections that stand go on. It must
// be for the same node of the same cluster.
func (m *Mesh) UpdateIdentity(id *Identity) error {
	if id.Node != m.self || id.Cluster != m.cluster {
		return fmt.Errorf("new certificate is for node %v of cluster %016x, this is node %v of cluster %016x: %w",
			id.Node, id.Cluster, m.self, m.cluster, ErrIdentity)
	}
	m.identity.Store(id)
	return nil
}

// RaftLayer is what raft.NetworkTransport runs over. Addresses are node ids, sixteen hex digits, so that nodes may move.
// Closing it (as the transport does when it is shut down) leaves the rest of the mesh open.
func (m *Mesh) RaftLayer() raft.StreamLayer { return m.raft }

// Connect starts keeping connections to a member, without waiting for them. Calls, lanes, Raft and a peer that dials us do
// the same when they come first. For what is no member, or this node itself, it does nothing.
func (m *Mesh) Connect(id wire.NodeID) { m.member(id) }

// AwaitRaft waits until there is a Raft connection to a member, and has it dialled again and again meanwhile. It returns
// ErrNotMember for what is none (any more), ErrClosed, or ctx's cause.
func (m *Mesh) AwaitRaft(ctx context.Context, id wire.NodeID) error {
	for {
		p := m.member(id)
		if p == nil {
			if m.ctx.Err() != nil {
				return ErrClosed
			}
			return fmt.Errorf("node %v: %w", id, ErrNotMember)
		}
		_, err := p.slots[kindRaft].get(ctx)
		switch {
		case err == nil, errors.Is(err, ErrNotMember), errors.Is(err, ErrClosed):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// Drop forgets a node that is no longer a member: its connections close at once with that reason, its lanes are closed.
// Config.Members must already say so, or the next contact brings it back.
func (m *Mesh) Drop(id wire.NodeID) {
	m.mu.Lock()
	old := *m.peers.Load()
	p := old[id]
	if p != nil {
		peers := make(map[wire.NodeID]*peer, len(old))
		for k, v := range old {
			if k != id {
				peers[k] = v
			}
		}
		m.peers.Store(&peers)
	}
	m.mu.Unlock()
	if p != nil {
		p.end(closeNotMember, fmt.Sprintf("node %v is no longer a member of this cluster", id))
		m.notify.changed(id)
	}
}

// peer finds a peer that is known already.
func (m *Mesh) peer(id wire.NodeID) *peer { return (*m.peers.Load())[id] }

// member finds or makes the peer of a current member; nil for others, this node itself and when the mesh is not open.
func (m *Mesh) member(id wire.NodeID) *peer {
	if p := m.peer(id); p != nil {
		return p
	}
	if id == m.self {
		return nil
	}
	if _, ok := m.cfg.Members(id); !ok {
		return nil
	}
	p := m.addPeer(id)
	// Members may have changed, and Drop may have come, between the question and the entry.
	if p != nil {
		if _, ok := m.cfg.Members(id); !ok {
			m.Drop(id)
			return nil
		}
	}
	return p
}

func (m *Mesh) addPeer(id wire.NodeID) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.peers.Load()
	if p := old[id]; p != nil || m.state != stateOpen {
		return p
	}
	p := newPeer(m, id)
	peers := make(map[wire.NodeID]*peer, len(old)+1)
	for k, v := range old {
		peers[k] = v
	}
	peers[id] = p
	m.peers.Store(&peers)
	for _, s := range p.slots {
		m.spawnLocked(s.run)
	}
	return p
}
