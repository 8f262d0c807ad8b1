package mesh

import (
	"sync"

	"imroute/mesh/wire"
)

// notifier tells Config.OnPeer about peers coming and going. It is level-triggered: what changed is looked at when its turn
// comes, so a slow hook delays nobody and its backlog is at most one entry a peer.
type notifier struct {
	// Fixed after construction.
	m    *Mesh
	wake chan struct{}

	mu    sync.Mutex
	dirty map[wire.NodeID]struct{}
}

func (n *notifier) init(m *Mesh) {
	n.m, n.wake, n.dirty = m, make(chan struct{}, 1), make(map[wire.NodeID]struct{})
}

func (n *notifier) changed(id wire.NodeID) {
	n.mu.Lock()
	n.dirty[id] = struct{}{}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run calls the hook for what changed since it was last told, until the mesh closes.
func (n *notifier) run() {
	told := make(map[wire.NodeID]bool) // peers that the hook believes to be up
	for {
		select {
		case <-n.wake:
		case <-n.m.ctx.Done():
			return
		}
		n.mu.Lock()
		dirty := n.dirty
		n.dirty = make(map[wire.NodeID]struct{})
		n.mu.Unlock()
		for id := range dirty {
			up := n.m.Connected(id)
			if up == told[id] {
				continue
			}
			if up {
				told[id] = true
			} else {
				delete(told, id)
			}
			if n.m.cfg.OnPeer != nil {
				n.m.cfg.OnPeer(id, up)
			}
		}
	}
}
