package mesh

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

// peer is another member: a slot for each of its two connections, and its lanes.
type peer struct {
	// Fixed after construction.
	m      *Mesh
	id     wire.NodeID
	ctx    context.Context // ends with Drop or Close
	cancel context.CancelCauseFunc
	slots  [kinds]*slot
	calls  chan struct{} // calls of this peer that run here

	lanes [MaxLanes]atomic.Pointer[lane.Session] // set under mu

	traffic traffic

	mu    sync.Mutex
	ended bool
}

func newPeer(m *Mesh, id wire.NodeID) *peer {
	p := &peer{m: m, id: id, calls: make(chan struct{}, m.cfg.MaxCalls)}
	p.ctx, p.cancel = context.WithCancelCause(m.ctx)
	for k := range kinds {
		p.slots[k] = newSlot(p, k)
	}
	return p
}

// end closes connections and lanes for good. It does not wait for the peer's goroutines: one of them may be the caller.
func (p *peer) end(code quic.ApplicationErrorCode, reason string) {
	cause := ErrClosed
	if code == closeNotMember {
		cause = ErrNotMember
	}
	p.cancel(cause)
	for _, s := range p.slots {
		s.end(code, reason)
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	for k := range p.lanes {
		if l := p.lanes[k].Load(); l != nil {
			_ = l.Close()
		}
	}
}

// lane finds or makes a lane; nil once the peer has ended or when the mesh has no lanes.
func (p *peer) lane(k int) *lane.Session {
	if l := p.lanes[k].Load(); l != nil {
		return l
	}
	if p.m.cfg.Lane.Handler == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lanes[k].Load(); l != nil || p.ended {
		return l
	}
	l, err := lane.New(p.m.laneConfig(p.id, k))
	if err != nil {
		p.m.log.Error("lane cannot be made", "peer", p.id, "lane", k, "err", err) // New checked the pattern
		return nil
	}
	p.lanes[k].Store(l)
	return l
}

func (m *Mesh) laneConfig(id wire.NodeID, k int) lane.Config {
	c := m.cfg.Lane
	c.Peer, c.Lane, c.Process = id, k, m.cfg.Process
	c.Logger = m.log.With("peer", id, "lane", k)
	return c
}

func (p *peer) up() bool {
	for _, s := range p.slots {
		if s.current() == nil {
			return false
		}
	}
	return true
}

// PeerInfo is what the mesh knows of a peer.
type PeerInfo struct {
	ID      wire.NodeID
	Addr    string // where the connections lead at the moment; the member's address when there is none
	RaftUp  bool
	DataUp  bool
	RTT     time.Duration // smoothed, of the Raft connection if it is up, else of the data connection; 0 if neither
	LastErr string        // why the last attempt to connect failed; empty while both connections are up
	Lanes   []lane.Stats  // of the lanes made so far, by lane number
	Traffic Traffic       // of all connections so far
}

// Peers lists the peers that connections are kept to, in the order of their ids.
func (m *Mesh) Peers() []PeerInfo {
	var infos []PeerInfo
	for id, p := range *m.peers.Load() {
		info := PeerInfo{ID: id, Traffic: p.traffic.now()}
		for k, s := range p.slots {
			l, err := s.currentOrErr()
			if l == nil {
				if err != nil {
					info.LastErr = err.Error()
				}
				continue
			}
			if connKind(k) == kindRaft {
				info.RaftUp = true
			} else {
				info.DataUp = true
			}
			info.Addr = l.conn.RemoteAddr().String()
			if info.RTT == 0 {
				info.RTT = l.conn.ConnectionStats().SmoothedRTT
			}
		}
		if info.Addr == "" {
			info.Addr, _ = m.cfg.Members(id)
		}
		for k := range p.lanes {
			if l := p.lanes[k].Load(); l != nil {
				info.Lanes = append(info.Lanes, l.Stats())
			}
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b PeerInfo) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return infos
}

// Connected says whether both connections to a peer are up.
func (m *Mesh) Connected(id wire.NodeID) bool {
	p := m.peer(id)
	return p != nil && p.up()
}

// Lanes is the number of lanes that Lane takes.
func (m *Mesh) Lanes() int { return m.cfg.Lanes }

// Lane is the lane of that number, 0 ≤ k < Lanes(), to a member. It lives for as long as the peer is a member, through all
// its connections. Nil for what is no member, for this node itself, and when the mesh is not open or has no lanes.
func (m *Mesh) Lane(to wire.NodeID, k int) *lane.Session {
	if k < 0 || k >= m.cfg.Lanes {
		panic(fmt.Sprintf("mesh: lane %d of %d", k, m.cfg.Lanes))
	}
	p := m.member(to)
	if p == nil {
		return nil
	}
	return p.lane(k)
}
