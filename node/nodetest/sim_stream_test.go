package nodetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// simListener is where streams to one address come in.
type simListener struct {
	net   *simNet
	addr  string
	host  int
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// simAccepts is how many streams wait to be accepted; more are refused.
const simAccepts = 256

func (n *simNet) listen(host int, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doors[addr] != nil {
		return nil, fmt.Errorf("listen %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &simListener{net: n, addr: addr, host: host, conns: make(chan net.Conn, simAccepts), done: make(chan struct{})}
	n.doors[addr] = l
	return l, nil
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.doors, l.addr) // nobody gets in any more
		l.net.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *simListener) Addr() net.Addr { return tcpAddr(l.addr) }

func tcpAddr(s string) net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s))
}

// dial connects a client, which is on no host, to a listener.
func (n *simNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	timer := time.NewTimer(2 * n.base)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.doors[addr]
	if l == nil || !n.up[l.host] {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	n.port++
	mine := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, 0, 1}), n.port).String()
	there, back := newSimPipe(n.base), newSimPipe(n.base)
	client := &simStream{net: n, in: back, out: there, local: tcpAddr(mine), remote: tcpAddr(addr)}
	server := &simStream{net: n, in: there, out: back, local: tcpAddr(addr), remote: tcpAddr(mine)}
	select {
	case l.conns <- server:
	default:
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	n.streams[server] = l.host
	return client, nil
}

// simStream is one end of a stream.
type simStream struct {
	net           *simNet
	in, out       *simPipe
	local, remote net.Addr
}

func (s *simStream) Read(b []byte) (int, error)  { return s.in.read(b) }
func (s *simStream) Write(b []byte) (int, error) { return s.out.write(b) }
func (s *simStream) LocalAddr() net.Addr         { return s.local }
func (s *simStream) RemoteAddr() net.Addr        { return s.remote }
func (s *simStream) CloseWrite() error           { s.out.end(nil, nil); return nil }

// Close lets what was written arrive.
func (s *simStream) Close() error {
	s.out.end(nil, net.ErrClosed)
	s.in.end(net.ErrClosed, syscall.EPIPE)
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	delete(s.net.streams, s)
	return nil
}

// breakUp is a reset of both directions.
func (s *simStream) breakUp() {
	s.in.end(syscall.ECONNRESET, syscall.ECONNRESET)
	s.out.end(syscall.ECONNRESET, syscall.ECONNRESET)
}

func (s *simStream) SetDeadline(t time.Time) error {
	return firstError(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (s *simStream) SetReadDeadline(t time.Time) error {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.readBy.set(&s.in.mu, s.in.changed, t)
	return nil
}

func (s *simStream) SetWriteDeadline(t time.Time) error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.out.writeBy.set(&s.out.mu, s.out.changed, t)
	return nil
}

// simPipe is one direction of a stream: bytes arrive a while after they were written, and only so many may be under way.
type simPipe struct {
	delay time.Duration

	mu              sync.Mutex
	changed         *sync.Cond
	under           []chunk
	size            int
	ended           bool  // nothing is written any more
	readErr         error // in place of what is left
	writeErr        error
	readBy, writeBy deadline
	arrival         deadline // of the first chunk
}

type chunk struct {
	at time.Time
	b  []byte
}

// simWindow is how many bytes one direction takes before a writer has to wait.
const simWindow = 256 << 10

func newSimPipe(delay time.Duration) *simPipe {
	p := &simPipe{delay: delay}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *simPipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch {
		case p.writeErr != nil:
			return n, p.writeErr
		case p.ended:
			return n, net.ErrClosed
		case p.writeBy.over():
			return n, os.ErrDeadlineExceeded
		case p.size >= simWindow:
			p.changed.Wait()
			continue
		}
		k := min(len(b), simWindow-p.size)
		p.under = append(p.under, chunk{time.Now().Add(p.delay), append([]byte(nil), b[:k]...)})
		if len(p.under) == 1 {
			p.arrival.set(&p.mu, p.changed, p.under[0].at)
		}
		p.size += k
		n += k
		b = b[k:]
	}
	return n, nil
}

func (p *simPipe) read(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		arrived := len(p.under) > 0 && !p.under[0].at.After(time.Now())
		switch {
		case p.readErr != nil:
			return 0, p.readErr
		case p.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case !arrived && len(p.under) == 0 && p.ended:
			return 0, io.EOF
		case !arrived:
			p.changed.Wait()
			continue
		}
		for n < len(b) && len(p.under) > 0 && !p.under[0].at.After(time.Now()) {
			c := &p.under[0]
			k := copy(b[n:], c.b)
			n += k
			p.size -= k
			if c.b = c.b[k:]; len(c.b) == 0 {
				p.under = p.under[1:]
			}
		}
		if len(p.under) > 0 {
			p.arrival.set(&p.mu, p.changed, p.under[0].at)
		}
		p.changed.Broadcast()
		return n, nil
	}
}

// end ends the direction: nothing more is written to it, and where an error is given, reads and writes end with that.
func (p *simPipe) end(readErr, writeErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.readErr == nil {
		p.readErr = readErr
	}
	if p.writeErr == nil {
		p.writeErr = writeErr
	}
	if p.readErr != nil {
		p.under, p.size = nil, 0
	}
	p.changed.Broadcast()
}
