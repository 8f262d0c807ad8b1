package nodetest

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Path says what becomes of the packets that one node sends to another. The zero Path lets everything through.
type Path struct {
	Cut    bool          // nothing arrives
	Loss   float64       // this share of packets is lost, 0 to 1
	Delay  time.Duration // every packet takes this much longer
	Jitter time.Duration // and up to this much more, at random: packets overtake each other
}

// Network stands between the nodes of a cluster. Each node has a front, the address that the others are told: a packet that
// arrives there from a node's own mesh socket is passed on through a socket kept for that pair, and what comes back to that
// socket goes the other way. So every packet is known by who sent it and to whom. Methods may be called from several
// goroutines.
type Network struct {
	// fixed after newNetwork
	fronts []*front
	nodes  map[netip.AddrPort]int // mesh sockets of the nodes

	wg   sync.WaitGroup
	wake chan struct{} // capacity 1: a packet is due earlier, or the end
	stop chan struct{}

	mu     sync.Mutex
	closed bool
	paths  map[[2]int]Path
	random *rand.Rand
	late   packetHeap
	seq    uint64
}

// front is where the others reach one node.
type front struct {
	net   *Network
	node  int
	conn  *net.UDPConn   // the advertised address
	inner netip.AddrPort // the node's own mesh socket

	mu   sync.Mutex
	from map[netip.AddrPort]*net.UDPConn // by sender: how its packets go to inner
}

// stranger is who sends from a socket that is no node's: a process that joins and has no mesh yet. Nothing is done to it.
const stranger = -1

// maxLate bounds the packets that are under way; more are lost, as in a real network.
const maxLate = 20_000

// packet is one that is delayed.
type packet struct {
	at   time.Time
	seq  uint64
	b    []byte
	send func([]byte)
}

// newNetwork opens a front for each node, whose own sockets are inner.
func newNetwork(inner []netip.AddrPort, seed uint64) (*Network, error) {
	n := &Network{
		nodes: map[netip.AddrPort]int{}, paths: map[[2]int]Path{}, random: rand.New(rand.NewPCG(seed, 2)),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for i, addr := range inner {
		n.nodes[addr] = i
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			n.close()
			return nil, fmt.Errorf("proxy of node %d: %w", i+1, err)
		}
		grow(conn)
		n.fronts = append(n.fronts, &front{net: n, node: i, conn: conn, inner: addr, from: map[netip.AddrPort]*net.UDPConn{}})
	}
	for _, f := range n.fronts {
		n.wg.Go(f.run)
	}
	n.wg.Go(n.deliverLate)
	return n, nil
}

// grow asks for a buffer that survives a burst; the kernel gives what it may.
func grow(c *net.UDPConn) {
	_ = c.SetReadBuffer(2 << 20)
	_ = c.SetWriteBuffer(2 << 20)
}

func (n *Network) close() {
	n.mu.Lock()
	already := n.closed
	n.closed = true
	n.mu.Unlock()
	if already {
		return
	}
	close(n.stop)
	for _, f := range n.fronts {
		_ = f.conn.Close()
		f.mu.Lock()
		for _, c := range f.from {
			_ = c.Close()
		}
		f.mu.Unlock()
	}
	n.wg.Wait()
}

// Front is the address to advertise for a node, by its index.
func (n *Network) Front(node int) string { return n.fronts[node].conn.LocalAddr().String() }

// Set says what becomes of packets from one node to another, by their indexes.
func (n *Network) Set(from, to int, p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paths[[2]int{from, to}] = p
}

// SetAll does so for every pair.
func (n *Network) SetAll(p Path) {
	for i := range n.fronts {
		for j := range n.fronts {
			if i != j {
				n.Set(i, j, p)
			}
		}
	}
}

// CutBetween separates two nodes in both directions.
func (n *Network) CutBetween(a, b int) {
	n.Set(a, b, Path{Cut: true})
	n.Set(b, a, Path{Cut: true})
}

// Isolate separates a node from all others, in both directions.
func (n *Network) Isolate(node int) {
	for i := range n.fronts {
		if i != node {
			n.CutBetween(node, i)
		}
	}
}

// Mute loses everything a node sends; it still hears the others.
func (n *Network) Mute(node int) {
	for i := range n.fronts {
		if i != node {
			n.Set(node, i, Path{Cut: true})
		}
	}
}

// Deafen loses everything that is sent to a node; the others still hear it.
func (n *Network) Deafen(node int) {
	for i := range n.fronts {
		if i != node {
			n.Set(i, node, Path{Cut: true})
		}
	}
}

// Ring lets each node hear only its neighbour on one side.
func (n *Network) Ring() {
	k := len(n.fronts)
	for i := range k {
		for j := range k {
			if i != j && j != (i+1)%k {
				n.Set(i, j, Path{Cut: true})
			}
		}
	}
}

// Heal lets everything through again.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.paths)
}

// run takes what is sent to the front.
func (f *front) run() {
	buf := make([]byte, 64<<10)
	for {
		k, src, err := f.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if f.net.over() {
				return
			}
			continue // a peer's port that is closed shows up as an error here
		}
		src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
		up := f.upstream(src)
		if up == nil {
			continue
		}
		f.net.pass(f.net.who(src), f.node, buf[:k], func(b []byte) { _, _ = up.WriteToUDPAddrPort(b, f.inner) }) // UDP: what fails is lost
	}
}

// upstream is the socket that stands for src before the node; nil once the network is closed.
func (f *front) upstream(src netip.AddrPort) *net.UDPConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	if up := f.from[src]; up != nil {
		return up
	}
	if f.net.over() {
		return nil
	}
	up, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil
	}
	grow(up)
	f.from[src] = up
	f.net.wg.Go(func() { f.back(src, up) })
	return up
}

// back takes what the node answers to src.
func (f *front) back(src netip.AddrPort, up *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		k, from, err := up.ReadFromUDPAddrPort(buf)
		if err != nil {
			if f.net.over() {
				return
			}
			continue
		}
		if from.Port() != f.inner.Port() {
			continue
		}
		f.net.pass(f.node, f.net.who(src), buf[:k], func(b []byte) { _, _ = f.conn.WriteToUDPAddrPort(b, src) })
	}
}

func (n *Network) who(addr netip.AddrPort) int {
	if i, ok := n.nodes[addr]; ok {
		return i
	}
	return stranger
}

func (n *Network) over() bool {
	select {
	case <-n.stop:
		return true
	default:
		return false
	}
}

// pass decides about one packet, which is valid during the call.
func (n *Network) pass(from, to int, b []byte, send func([]byte)) {
	n.mu.Lock()
	p := n.paths[[2]int{from, to}]
	if p.Cut || p.Loss > 0 && n.random.Float64() < p.Loss {
		n.mu.Unlock()
		return
	}
	if p.Delay == 0 && p.Jitter == 0 {
		n.mu.Unlock()
		send(b)
		return
	}
	if len(n.late) >= maxLate {
		n.mu.Unlock()
		return
	}
	wait := p.Delay
	if p.Jitter > 0 {
		wait += time.Duration(n.random.Int64N(int64(p.Jitter)))
	}
	n.seq++
	heap.Push(&n.late, packet{time.Now().Add(wait), n.seq, append([]byte(nil), b...), send})
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// deliverLate sends delayed packets when they are due.
func (n *Network) deliverLate() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due []packet
		next := time.Hour
		n.mu.Lock()
		for len(n.late) > 0 {
			if wait := time.Until(n.late[0].at); wait > 0 {
				next = wait
				break
			}
			due = append(due, heap.Pop(&n.late).(packet))
		}
		n.mu.Unlock()
		for _, p := range due {
			p.send(p.b)
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-n.wake:
		case <-n.stop:
			return
		}
	}
}

// packetHeap orders packets by when they are due.
type packetHeap []packet

func (h packetHeap) Len() int { return len(h) }
func (h packetHeap) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}
func (h packetHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *packetHeap) Push(x any)   { *h = append(*h, x.(packet)) }
func (h *packetHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = packet{}
	*h = old[:len(old)-1]
	return x
}
