package nodetest

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"imroute/node"
)

// simNet is a network in memory: datagrams between the nodes' meshes, which can be cut, lost, delayed and reordered, and
// streams to the listeners for clients and for the admin API, which cannot. What it does is drawn from a seed. A host is an
// address of its own, and can be unplugged.
type simNet struct {
	paths *Network // of a real network only what says which packets arrive is used
	base  time.Duration

	mu      sync.Mutex
	random  *rand.Rand
	up      []bool // by host
	port    uint16 // last one given to a socket that asked for none
	sockets map[netip.AddrPort]*simSocket
	doors   map[string]*simListener
	streams map[*simStream]int // to their host
	late    packetHeap
	seq     uint64
	timer   *time.Timer
}

func newSimNet(hosts int, base time.Duration, random *rand.Rand) *simNet {
	return &simNet{
		paths: &Network{fronts: make([]*front, hosts), paths: map[[2]int]Path{}}, base: base, random: random, up: make([]bool, hosts),
		port: 20_000, sockets: map[netip.AddrPort]*simSocket{}, doors: map[string]*simListener{}, streams: map[*simStream]int{},
	}
}

// simAddr is the address of a host: one of the loopback's, as development mode wants it.
func simAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{127, 1, 0, byte(host + 1)}) }

func hostOf(a netip.Addr) int { return int(a.As4()[3]) - 1 }

// host is what a node is given.
func (n *simNet) host(i int) *node.Host {
	return &node.Host{
		ListenPacket: func(bind string) (net.PacketConn, error) { return n.socket(i, bind) },
		Listen:       func(_ context.Context, _, addr string) (net.Listener, error) { return n.listen(i, addr) },
	}
}

func (n *simNet) plug(host int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up[host] = true
}

// unplug is how a process that is killed looks from outside: its datagrams stop, its streams break.
func (n *simNet) unplug(host int) {
	n.mu.Lock()
	var broken []*simStream
	n.up[host] = false
	for s, h := range n.streams {
		if h == host {
			broken = append(broken, s)
			delete(n.streams, s)
		}
	}
	n.mu.Unlock()
	for _, s := range broken {
		s.breakUp()
	}
}

func (n *simNet) socket(host int, bind string) (net.PacketConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.port++
	at := netip.AddrPortFrom(simAddr(host), n.port)
	if bind != "" {
		var err error
		if at, err = netip.ParseAddrPort(bind); err != nil {
			return nil, err
		}
	}
	if n.sockets[at] != nil {
		return nil, fmt.Errorf("listen %v: %w", at, syscall.EADDRINUSE)
	}
	s := &simSocket{net: n, at: at, host: host}
	s.came = sync.NewCond(&s.mu)
	n.sockets[at] = s
	return s, nil
}

// send takes a datagram on its way.
func (n *simNet) send(from *simSocket, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	target := hostOf(to.Addr())
	if target < 0 || target >= len(n.up) || !n.up[from.host] || !n.up[target] || len(n.late) >= maxLate {
		return
	}
	n.paths.mu.Lock()
	p := n.paths.paths[[2]int{from.host, target}]
	n.paths.mu.Unlock()
	if p.Cut || p.Loss > 0 && n.random.Float64() < p.Loss {
		return
	}
	wait := n.base + p.Delay
	if p.Jitter > 0 {
		wait += time.Duration(n.random.Int64N(int64(p.Jitter)))
	}
	n.seq++
	d := datagram{from.at, append([]byte(nil), b...)}
	heap.Push(&n.late, packet{at: time.Now().Add(wait), seq: n.seq, send: func([]byte) {
		if s := n.sockets[to]; s != nil && n.up[target] {
			s.take(d)
		}
	}})
	n.scheduleLocked()
}

func (n *simNet) scheduleLocked() {
	if len(n.late) == 0 {
		return
	}
	wait := time.Until(n.late[0].at)
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.deliver)
		return
	}
	n.timer.Reset(wait)
}

// deliver hands out what is due. Under the lock, so that two that follow each other stay in order.
func (n *simNet) deliver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for now := time.Now(); len(n.late) > 0 && !n.late[0].at.After(now); {
		p, _ := heap.Pop(&n.late).(packet)
		p.send(p.b)
	}
	n.scheduleLocked()
}

type datagram struct {
	from netip.AddrPort
	b    []byte
}

// simSocket is a datagram socket: a net.PacketConn as QUIC uses one.
type simSocket struct {
	net  *simNet
	at   netip.AddrPort
	host int

	mu     sync.Mutex
	came   *sync.Cond
	queue  []datagram
	until  deadline
	closed bool
}

// simBacklog is how many datagrams wait to be read; more are lost.
const simBacklog = 4096

func (s *simSocket) take(d datagram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && len(s.queue) < simBacklog {
		s.queue = append(s.queue, d)
		s.came.Signal()
	}
}

func (s *simSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, nil, net.ErrClosed
		case s.until.over():
			return 0, nil, os.ErrDeadlineExceeded
		case len(s.queue) > 0:
			d := s.queue[0]
			s.queue = s.queue[1:]
			return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
		}
		s.came.Wait()
	}
}

func (s *simSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("%v is no datagram address", to)
	}
	addr := udp.AddrPort()
	s.net.send(s, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), b)
	return len(b), nil
}

func (s *simSocket) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.until.set(&s.mu, s.came, time.Time{})
	s.came.Broadcast()
	s.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	delete(s.net.sockets, s.at)
	return nil
}

func (s *simSocket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.at) }

func (s *simSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until.set(&s.mu, s.came, t)
	return nil
}

func (s *simSocket) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *simSocket) SetWriteDeadline(time.Time) error { return nil } // it never waits
func (s *simSocket) SetReadBuffer(int) error          { return nil } // asked for by QUIC
func (s *simSocket) SetWriteBuffer(int) error         { return nil }

// deadline wakes whoever waits on a condition when its time has come. Guarded by the condition's lock.
type deadline struct {
	at    time.Time // zero: none
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(mu *sync.Mutex, c *sync.Cond, t time.Time) {
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
	}
	if !t.IsZero() {
		wake := func() {
			mu.Lock() // or it could come between a look at the time and the wait
			defer mu.Unlock()
			c.Broadcast()
		}
		if d.timer == nil {
			d.timer = time.AfterFunc(time.Until(t), wake)
		} else {
			d.timer.Reset(time.Until(t))
		}
	}
	c.Broadcast()
}
