package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/node/discover"
	"imroute/raftfsm"
)

// peerBook answers who is a member and where its mesh listens. The table says so; before Raft has replayed it, the list
// that the data folder keeps does; and where addresses have changed meanwhile, whoever answered at a --join address.
type peerBook struct {
	n *Node

	mu    sync.Mutex
	kept  map[wire.NodeID]datadir.Member // what the data folder has
	found map[wire.NodeID]string         // who answered where
	over  bool                           // this node is no member any more
}

func newPeerBook(n *Node) *peerBook {
	return &peerBook{n: n, kept: map[wire.NodeID]datadir.Member{}, found: map[wire.NodeID]string{}}
}

func (b *peerBook) load() error {
	members, err := b.n.dir.Members()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range members {
		b.kept[m.ID] = m
	}
	return nil
}

// member is mesh.Config.Members.
func (b *peerBook) member(id wire.NodeID) (addr string, ok bool) {
	b.mu.Lock()
	found, kept := b.found[id], b.kept[id]
	b.mu.Unlock()
	if node, in := b.n.fsm.Node(id); in {
		addr, ok = node.Addrs.Mesh, true
	} else if kept.ID != 0 && !b.n.fsm.Removed(id) {
		addr, ok = kept.Mesh, true
	}
	if found != "" {
		addr = found
	}
	return addr, ok
}

// keep writes the table's members down and returns those that are no longer any.
func (b *peerBook) keep() (gone []wire.NodeID, err error) {
	nodes := b.n.fsm.Nodes()
	if len(nodes) == 0 {
		return nil, nil // nothing was applied yet: what is kept is better
	}
	now := map[wire.NodeID]datadir.Member{}
	var list []datadir.Member
	for _, node := range nodes {
		m := datadir.Member{ID: node.ID, Name: node.Name, Mesh: node.Addrs.Mesh}
		now[node.ID] = m
		list = append(list, m)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return nil, nil // the list is final, and this table may be behind it
	}
	for id := range b.kept {
		if _, in := now[id]; !in && b.n.fsm.Removed(id) {
			gone = append(gone, id)
		} else if !in {
			now[id] = b.kept[id] // a member that this table has not applied yet
			list = append(list, b.kept[id])
		}
	}
	if maps.Equal(now, b.kept) {
		return nil, nil
	}
	for id, m := range now {
		if m.Mesh != b.kept[id].Mesh {
			delete(b.found, id) // the table has caught up
		}
	}
	b.kept = now
	return gone, b.n.dir.SetMembers(list)
}

// answered notes where a member says that it can be reached.
func (b *peerBook) answered(id wire.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found[id] = addr
	if _, in := b.kept[id]; !in {
		b.kept[id] = datadir.Member{ID: id, Mesh: addr} // its certificate says that it belongs to the cluster
	}
}

// addrs is where this node would dial every other member.
func (b *peerBook) addrs() map[wire.NodeID]string {
	out := map[wire.NodeID]string{}
	for _, id := range b.known() {
		if addr, ok := b.member(id); ok && addr != "" {
			out[id] = addr
		}
	}
	return out
}

// removed writes down that this node is no member any more.
func (b *peerBook) removed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	delete(b.kept, b.n.id)
	return b.n.dir.SetMembers(slices.SortedFunc(maps.Values(b.kept), func(x, y datadir.Member) int { return cmp.Compare(x.ID, y.ID) }))
}

// known lists every other member.
func (b *peerBook) known() []wire.NodeID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := slices.Collect(maps.Keys(b.kept))
	return slices.DeleteFunc(ids, func(id wire.NodeID) bool { return id == b.n.id })
}

// runPeers keeps the mesh in step with the table until ctx ends: who is new is connected to, who was removed is cut off at
// once, incarnations that end free what waits for them.
func (n *Node) runPeers(ctx context.Context) error {
	changes := n.fsm.Subscribe(1024, raftfsm.NodeChanged, raftfsm.NodeRemoved, raftfsm.IncarnationEnded)
	defer changes.Close()
	sync := func() error {
		gone, err := n.peers.keep()
		if err != nil {
			return n.fail(fmt.Errorf("keeping the list of members: %w", err))
		}
		for _, id := range gone {
			n.mesh.Drop(id)
		}
		for _, id := range n.peers.known() {
			n.mesh.Connect(id)
		}
		return nil
	}
	if err := sync(); err != nil {
		return err
	}
	n.group.Go(func() error { return n.lookForPeers(ctx) })
	n.group.Go(func() error { return n.watchRemoval(ctx) })
	for {
		e, err := changes.Next(ctx)
		if err != nil {
			return nil // ctx ended
		}
		switch e.Kind {
		case raftfsm.NodeChanged, raftfsm.NodeRemoved:
			err = sync()
		case raftfsm.IncarnationEnded:
			n.router.abandoned(e.Route.Node, e.Route.Incarnation)
		case raftfsm.Resync:
			err = sync()
			n.checkSoon() // the table may be another than the one that this node's sessions were registered in
			for _, node := range n.fsm.Nodes() {
				inc := node.Incarnation
				if node.State != raftfsm.Down && inc > 0 {
					inc--
				}
				n.router.abandoned(node.ID, inc)
			}
		}
		if err != nil {
			return err
		}
	}
}

// askWhere tells the members that this node is connected to where it is, and learns from them where the others are: when
// several have moved, no two of them may know of each other.
func (n *Node) askWhere(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, id := range n.peers.known() {
		if !n.mesh.Connected(id) {
			continue
		}
		var addrs map[wire.NodeID]string
		if err := n.askAdmin(ctx, id, opWhere, n.Addrs().Mesh, &addrs); err != nil {
			n.log.Debug("a member does not say where the others are", "member", id, "err", err)
			continue
		}
		for other, addr := range addrs {
			if other != n.id && !n.mesh.Connected(other) {
				n.peers.answered(other, addr)
				n.mesh.Connect(other)
			}
		}
	}
}

// disownedRounds is how many times in a row a majority must refuse this node before it takes that for its removal: members
// that have just started may be behind.
const disownedRounds = 3

// isDisowned tells whether more than half of the other members that this node knows say that it is none. A node that was
// removed while it was away is told by nobody else: it is not in the Raft configuration any more.
func (n *Node) isDisowned(ctx context.Context) bool {
	if n.dir.LastBoot() == 0 {
		return false // it never came up: they may not have heard of it yet
	}
	others := n.peers.known()
	refusals := make(chan bool, len(others))
	for _, id := range others {
		addr, ok := n.peers.member(id)
		if !ok {
			refusals <- false
			continue
		}
		go func() {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := mesh.ProbeOver(try, n.cfg.Host.listenPacket(), addr, n.identity.Load())
			refusals <- errors.Is(err, mesh.ErrNotMember)
		}()
	}
	refused := 0
	for range others {
		if <-refusals {
			refused++
		}
	}
	return isMajority(refused, len(others))
}

// placesToLook are the --join addresses and where members announce themselves on the LAN.
func (n *Node) placesToLook(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addrs, err := discover.Expand(ctx, net.DefaultResolver, n.cfg.Join)
	if err != nil {
		n.log.Debug("--join names", "err", err)
	}
	for _, p := range n.discovery.members() {
		if !n.mesh.Connected(p.Node) {
			addrs = append(addrs, p.Mesh)
		}
	}
	return addrs
}

// lookForPeers finds members again whose addresses are no longer what anybody here knows: while no leader is in sight, it
// asks at the --join addresses, and at those that are announced on the LAN, who answers there.
func (n *Node) lookForPeers(ctx context.Context) error {
	alone, disowned := 0, 0 // rounds in a row
	for sleep(ctx, max(2*n.cfg.Timings.Election, 200*time.Millisecond)) {
		if _, ok := n.store.Leader(); ok {
			alone, disowned = 0, 0
			continue
		}
		for _, addr := range n.placesToLook(ctx) {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			id, err := mesh.ProbeOver(try, n.cfg.Host.listenPacket(), addr, n.identity.Load())
			cancel()
			if err != nil {
				n.log.Debug("nobody of this cluster answers", "addr", addr, "err", err)
				continue
			}
			n.peers.answered(id, addr)
			n.mesh.Connect(id)
		}
		n.askWhere(ctx)
		if alone++; alone <= disownedRounds {
			continue
		}
		if disowned++; !n.isDisowned(ctx) {
			disowned = 0
		} else if disowned >= disownedRounds {
			return n.endWith(errRemoved)
		}
	}
	return nil
}
