package client

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// maxReceive bounds the payload of one received frame in bytes, whatever the cluster's own limit is. Buffers grow with
// what really arrives.
const maxReceive = 64 << 20

// transport is one connection that carries frames. read and write may each be used by one goroutine at a time; close by
// anybody, and it ends both.
type transport interface {
	// read waits for the next frame, which is valid until the following read.
	read() (*wire.Frame, error)
	// write writes whole frames in their TCP form. With an error it says how many bytes were surely handed over; frames
	// that end behind them were not received by anybody.
	write(b []byte) (int, error)
	// closeWrite says that nothing follows, if the transport can.
	closeWrite()
	close()
}

// dial connects to a; heard is set to now() whenever bytes arrive.
func dial(ctx context.Context, cfg *Config, a address, heard *atomic.Int64, now func() int64) (transport, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	if a.webSocket() {
		return dialWebSocket(ctx, cfg, a, heard, now)
	}
	conn, err := cfg.DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, err
	}
	under := &heardConn{Conn: conn, heard: heard, now: now}
	t := &tcpTransport{raw: conn, conn: under}
	var from io.Reader = under
	if lazy := wire.NewLazyConn(conn); lazy != nil && a.scheme != "tls" {
		from = lazyConn{under, lazy}
	}
	if a.scheme == "tls" {
		sec := tls.Client(t.conn, tlsConfig(cfg.TLS, a))
		if err := sec.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		t.conn, from = sec, sec
	}
	t.frames = wire.NewFrameReader(from, maxReceive)
	return t, nil
}

func tlsConfig(base *tls.Config, a address) *tls.Config {
	c := base.Clone()
	if c == nil {
		c = new(tls.Config)
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(a.host)
	}
	return c
}

// heardConn notes when bytes arrived: any of them is a sign of life, not only a whole frame.
type heardConn struct {
	net.Conn
	heard *atomic.Int64
	now   func() int64
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(c.now())
	}
	return n, err
}

// lazyConn needs no buffer while nothing comes.
type lazyConn struct {
	*heardConn
	lazy *wire.LazyConn
}

func (c lazyConn) ReadLazily(size int) (*wire.Buffer, int, error) {
	b, n, err := c.lazy.ReadLazily(size)
	if n > 0 {
		c.heard.Store(c.now())
	}
	return b, n, err
}

type tcpTransport struct {
	raw    net.Conn // below TLS
	conn   net.Conn
	frames *wire.FrameReader

	frame, deliver wire.Frame // the last one read is in one of them
}

func (t *tcpTransport) read() (*wire.Frame, error)  { return t.frames.NextDeliver(&t.frame, &t.deliver) }
func (t *tcpTransport) write(b []byte) (int, error) { return t.conn.Write(b) }

// close leaves out TLS's goodbye, which may have to wait for a peer that does not read.
func (t *tcpTransport) close() { t.raw.Close() }

func (t *tcpTransport) closeWrite() {
	conn := t.conn
	if conn, ok := conn.(*tls.Conn); ok {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.CloseWrite()
		return
	}
	if w, ok := t.raw.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}
