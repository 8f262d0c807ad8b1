package gateway

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// conn is a client's connection as a session uses it: frames in, encoded frames out.
//
// next is for the read goroutine, write and writable for the writer, linger and close for the read goroutine after both
// have come to their ends; the others may be called from any goroutine.
type conn interface {
	// next waits for a frame, valid until the following call. What is wrong with what the client sent wraps
	// wire.ErrMalformed or wire.ErrTooLarge.
	next(f *wire.Frame) error

	// nextSend is next with a short way for usual send frames, which are decoded into send and checked; it returns which of
	// the two was used.
	nextSend(f, send *wire.Frame) (*wire.Frame, error)

	// size is how much append needs at most in most cases; append encodes f behind dst and keeps nothing of it.
	size(f *wire.Frame) int
	append(dst []byte, f *wire.Frame) ([]byte, error)

	// deliverSize and appendDeliver are the same for the deliver frame of a message.
	deliverSize(m *wire.Forward) int
	appendDeliver(dst []byte, m *wire.Forward, epoch wire.Epoch) ([]byte, error)

	// sizeShared is how much appendShared appends, exactly.
	sizeShared(f *wire.Shared, epoch wire.Epoch) int
	appendShared(dst []byte, f *wire.Shared, epoch wire.Epoch) []byte

	// write writes buf, which holds the frames that items delimit. After an error the first `touched` of them may have left
	// in part or whole, and nothing of the others ever will.
	write(buf []byte, items []item) (touched int, err error)

	// writable reports whether frames can still be written: no write ended inside a frame.
	writable() bool

	setWriteDeadline(t time.Time)
	interrupt()              // ends a read and a write in progress, and those to come until deadlines are set anew
	linger(wire.Code, int64) // after the last words: say that nothing follows, let the client read, for so many ns at most
	close()                  // at once, whatever the state
	transport() string
	remote() string
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

// touchedBy counts the frames of which n bytes written hold the beginning.
func touchedBy(items []item, n int) int {
	start := 0
	for i, it := range items {
		if start >= n {
			return i
		}
		start = it.end
	}
	return len(items)
}

// maxReadPast is how many bytes of a payload over the limit are read past at least, so that a message that is too large is
// refused and its session goes on. On WebSocket it is twice the limit, for there the message is held in memory.
const maxReadPast = 16 << 20

// lingerBytes bounds what is read and thrown away from a client that goes on talking after it was told to leave.
const lingerBytes = 1 << 20

// tcpConn carries length-prefixed CBOR.
type tcpConn struct {
	nc    net.Conn // what is spoken over: raw or TLS on it
	raw   net.Conn
	fr    *wire.FrameReader
	in    *atomic.Uint64 // bytes counter
	heard atomic.Bool    // something was read, so a TLS handshake is complete
	torn  bool           // owned by the writer
	s     *Session       // whose it is; nil: of nobody yet
	lazy  *wire.LazyConn // nil: the frame reader needs a buffer to wait
}

func newTCPConn(raw net.Conn, conf *tls.Config, maxPayload int, in *atomic.Uint64) *tcpConn {
	c := &tcpConn{nc: raw, raw: raw, in: in}
	if conf != nil {
		c.nc = tls.Server(raw, conf)
	}
	c.fr = wire.NewFrameReader(c.reader(), maxPayload)
	c.fr.ReadPast(max(maxReadPast, 2*maxPayload))
	return c
}

// reader is what the frame reader reads from.
func (c *tcpConn) reader() io.Reader {
	if c.nc == c.raw {
		if c.lazy = wire.NewLazyConn(c.raw); c.lazy != nil {
			return lazyTCP{c}
		}
	}
	return c
}

// Read is for the frame reader.
func (c *tcpConn) Read(b []byte) (int, error) {
	n, err := c.nc.Read(b)
	for err != nil && n == 0 && c.goOnReading(err) {
		n, err = c.nc.Read(b)
	}
	c.read(n)
	return n, err
}

// goOnReading says whether a read that ended with err is to be done again.
func (c *tcpConn) goOnReading(err error) bool {
	return errors.Is(err, errTimeout) && c.s != nil && c.s.settle()
}

func (c *tcpConn) read(n int) {
	if n > 0 {
		c.in.Add(uint64(n))
		if !c.heard.Load() {
			c.heard.Store(true)
		}
	}
}

// lazyTCP needs no buffer while nothing comes.
type lazyTCP struct{ *tcpConn }

func (c lazyTCP) ReadLazily(size int) (*wire.Buffer, int, error) {
	b, n, err := c.lazy.ReadLazily(size)
	for err != nil && c.goOnReading(err) {
		b, n, err = c.lazy.ReadLazily(size)
	}
	c.read(n)
	return b, n, err
}

func (c *tcpConn) next(f *wire.Frame) error { return c.fr.Next(f) }

func (c *tcpConn) nextSend(f, send *wire.Frame) (*wire.Frame, error) { return c.fr.NextSend(f, send) }

func (c *tcpConn) size(f *wire.Frame) int { return wire.FrameSize(f) }

func (c *tcpConn) append(dst []byte, f *wire.Frame) ([]byte, error) {
	return wire.AppendFrame(dst, f), nil
}

func (c *tcpConn) deliverSize(m *wire.Forward) int { return wire.DeliverSize(m) }

func (c *tcpConn) appendDeliver(dst []byte, m *wire.Forward, epoch wire.Epoch) ([]byte, error) {
	return wire.AppendDeliver(dst, m, epoch), nil
}

func (c *tcpConn) sizeShared(f *wire.Shared, _ wire.Epoch) int { return f.Size() }

func (c *tcpConn) appendShared(dst []byte, f *wire.Shared, epoch wire.Epoch) []byte {
	return f.Append(dst, epoch)
}

func (c *tcpConn) write(buf []byte, items []item) (int, error) {
	n, err := c.nc.Write(buf)
	for err != nil && errors.Is(err, errTimeout) && c.nc == c.raw && c.s != nil && c.s.goOn() { // TLS cannot go on after a time-out
		var more int
		more, err = c.nc.Write(buf[n:])
		n += more
	}
	if err == nil {
		return len(items), nil
	}
	// Bytes that left end inside a frame (or none left, and TLS refuses to go on after a time-out all the same).
	if n > 0 || c.nc != c.raw || !errors.Is(err, errTimeout) {
		c.torn = true
	}
	return touchedBy(items, n), err
}

func (c *tcpConn) writable() bool { return !c.torn && (c.nc == c.raw || c.heard.Load()) }

func (c *tcpConn) setWriteDeadline(t time.Time) { _ = c.raw.SetWriteDeadline(t) }

func (c *tcpConn) interrupt() { _ = c.raw.SetDeadline(longAgo) }

func (c *tcpConn) linger(code wire.Code, ns int64) {
	if code == wire.Bye && c.nc == c.raw {
		return // nothing follows a bye that could reset the connection: what was written arrives all the same
	}
	c.fr.Close()
	until := time.Now().Add(time.Duration(ns))
	drain(c.raw, until, func() { closeWrite(c.nc) })
}

func (c *tcpConn) close() {
	_ = c.raw.Close() // not the TLS one, which would wait for the client to take its farewell
	c.fr.Close()
}

func (c *tcpConn) transport() string { return TransportTCP }
func (c *tcpConn) remote() string    { return c.raw.RemoteAddr().String() }

// drain ends the writing direction and reads until the client has ended its own or the time is over. Closing with unread
// bytes would reset the connection, and the client might lose the last words.
func drain(raw net.Conn, until time.Time, end func()) {
	_ = raw.SetDeadline(until)
	end()
	_ = raw.SetDeadline(until) // TLS sets its own for its farewell
	_, _ = io.Copy(io.Discard, io.LimitReader(raw, lingerBytes))
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
