package discover

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// DefaultPort is the UDP port of announcements.
const DefaultPort = 7904

// group is of the administratively scoped block (RFC 2365): routers do not let it out of the site.
var group = net.IPv4(239, 255, 77, 79)

// refreshEvery is how often the interfaces are looked at again: cables are plugged in, addresses come and go.
const refreshEvery = 10 * time.Second

// LANConfig says where to announce.
type LANConfig struct {
	Interfaces []string // by name; empty: every one that is up and has an IPv4 address, the loopback included
	Loopback   bool     // only on loopback: for nodes that can only be reached from this machine
	Port       int      // 0: DefaultPort
}

// LAN is IPv4 multicast on this machine's interfaces; it implements Conn.
type LAN struct {
	cfg LANConfig
	in  *net.UDPConn
	pc  *ipv4.PacketConn

	mu        sync.Mutex
	closed    bool
	out       map[netip.Addr]*net.UDPConn // by the interface's address
	joined    map[int]bool                // by the interface's index
	refreshed time.Time
}

// ListenLAN opens the sockets. It fails if there is no interface to use.
func ListenLAN(cfg LANConfig) (*LAN, error) {
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if cfg.Port < 1 || cfg.Port > 65535 {
		return nil, fmt.Errorf("discovery: port %d: want 1 to 65535", cfg.Port)
	}
	faces, err := cfg.faces()
	if err != nil {
		return nil, err
	}
	l := &LAN{cfg: cfg, out: map[netip.Addr]*net.UDPConn{}, joined: map[int]bool{faces[0].face.Index: true}}
	// The standard library's way to several listeners on one port, everywhere; it joins the first interface.
	if l.in, err = net.ListenMulticastUDP("udp4", faces[0].face, &net.UDPAddr{IP: group, Port: cfg.Port}); err != nil {
		return nil, fmt.Errorf("discovery: listening for multicast on %s: %w", faces[0].face.Name, err)
	}
	l.pc = ipv4.NewPacketConn(l.in)
	_ = l.pc.SetMulticastLoopback(true) // Windows: whether this socket hears nodes of this machine
	if err := l.refresh(faces); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

type face struct {
	face *net.Interface
	addr netip.Addr
}

// faces lists the interfaces to use with their first IPv4 addresses, the loopback last.
func (c LANConfig) faces() ([]face, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("discovery: listing the interfaces: %w", err)
	}
	var out []face
	for _, f := range all {
		loop := f.Flags&net.FlagLoopback != 0
		switch {
		case f.Flags&net.FlagUp == 0, f.Flags&(net.FlagMulticast|net.FlagLoopback) == 0, c.Loopback && !loop:
			continue
		case len(c.Interfaces) > 0 && !slices.Contains(c.Interfaces, f.Name):
			continue
		}
		if addr, ok := firstIPv4(f); ok {
			out = append(out, face{&f, addr})
		}
	}
	if len(out) == 0 && len(c.Interfaces) > 0 {
		return nil, fmt.Errorf("discovery: none of the interfaces %v is up and has an IPv4 address", c.Interfaces)
	}
	if len(out) == 0 {
		return nil, errors.New("discovery: no interface is up and has an IPv4 address")
	}
	slices.SortStableFunc(out, func(x, y face) int {
		return cmp.Compare(x.face.Flags&net.FlagLoopback, y.face.Flags&net.FlagLoopback)
	})
	return out, nil
}

func firstIPv4(f net.Interface) (netip.Addr, bool) {
	addrs, err := f.Addrs()
	if err != nil {
		return netip.Addr{}, false // it is just going away
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is4() {
				return ip.Unmap(), true
			}
		}
	}
	return netip.Addr{}, false
}

// LocalAddr is the address by which others on the LAN reach this machine: of the first interface named, or else the one
// that has the route to the outside, or else any. ok is false if there is only loopback.
func LocalAddr(interfaces []string) (addr netip.Addr, ok bool) {
	faces, err := LANConfig{Interfaces: interfaces}.faces()
	if err != nil {
		return addr, false
	}
	faces = slices.DeleteFunc(faces, func(f face) bool { return f.addr.IsLoopback() })
	if len(faces) == 0 {
		return addr, false
	}
	// Connecting a UDP socket sends nothing; it only asks for the route.
	if c, err := net.Dial("udp4", "198.51.100.1:9"); err == nil {
		defer c.Close()
		if a, isUDP := c.LocalAddr().(*net.UDPAddr); isUDP {
			for _, f := range faces {
				if f.addr == a.AddrPort().Addr().Unmap() {
					return f.addr, true
				}
			}
		}
	}
	return faces[0].addr, true
}

// refresh brings the sockets in step with the interfaces. One that cannot be used is left out, unless all are.
func (l *LAN) refresh(faces []face) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.refreshed = time.Now()
	var errs []error
	now := map[netip.Addr]bool{}
	for _, f := range faces {
		now[f.addr] = true
		if !l.joined[f.face.Index] {
			if err := l.pc.JoinGroup(f.face, &net.UDPAddr{IP: group}); err != nil {
				errs = append(errs, fmt.Errorf("joining the multicast group on %s: %w", f.face.Name, err))
			} else {
				l.joined[f.face.Index] = true
			}
		}
		if l.out[f.addr] != nil {
			continue
		}
		out, err := sender(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("sending multicast on %s: %w", f.face.Name, err))
			continue
		}
		l.out[f.addr] = out
	}
	for addr, c := range l.out {
		if !now[addr] {
			_ = c.Close() // its interface is gone
			delete(l.out, addr)
		}
	}
	if len(l.out) == 0 {
		return errors.Join(errs...)
	}
	return nil
}

func sender(f face) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: f.addr.AsSlice()})
	if err != nil {
		return nil, err
	}
	pc := ipv4.NewPacketConn(c)
	if err := errors.Join(pc.SetMulticastInterface(f.face), pc.SetMulticastTTL(1), pc.SetMulticastLoopback(true)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Send implements Conn: on every interface. It fails only if it got out on none.
func (l *LAN) Send(packet []byte) error {
	l.mu.Lock()
	stale := time.Since(l.refreshed) > refreshEvery
	l.mu.Unlock()
	if stale {
		if faces, err := l.cfg.faces(); err == nil {
			_ = l.refresh(faces) // what is still there is used
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if len(l.out) == 0 {
		l.refreshed = time.Time{}
		return errors.New("no interface is up and has an IPv4 address")
	}
	var errs []error
	for _, c := range l.out {
		if _, err := c.WriteToUDP(packet, &net.UDPAddr{IP: group, Port: l.cfg.Port}); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) < len(l.out) {
		return nil
	}
	l.refreshed = time.Time{} // look again the next time
	return errors.Join(errs...)
}

// Receive implements Conn.
func (l *LAN) Receive(buf []byte) (int, string, error) {
	n, from, err := l.in.ReadFromUDPAddrPort(buf)
	return n, from.Addr().Unmap().String(), err
}

// Close implements Conn.
func (l *LAN) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	err := l.in.Close()
	for _, c := range l.out {
		err = errors.Join(err, c.Close())
	}
	return err
}
