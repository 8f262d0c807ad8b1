package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
)

var errTimeout = os.ErrDeadlineExceeded

// wsConn carries JSON text messages.
type wsConn struct {
	ws    *websocket.Conn
	raw   *corkConn
	limit int // bytes of one message
	in    *atomic.Uint64
	ended atomic.Bool // the client sent a close frame, or WebSocket itself failed
	torn  bool        // owned by the writer
	most  int         // payload limit
}

// newWSConn wraps an accepted WebSocket. A message may be twice as long as the largest payload (base64, some escapes) plus
// the header.
func newWSConn(ws *websocket.Conn, raw *corkConn, maxPayload int, in *atomic.Uint64) *wsConn {
	ws.SetReadLimit(-1) // next limits; the library would close without a word of ours
	return &wsConn{ws: ws, raw: raw, limit: 2*maxPayload + wire.MaxHeader, most: maxPayload, in: in}
}

func (c *wsConn) next(f *wire.Frame) error {
	kind, r, err := c.ws.Reader(context.Background()) // interrupt ends it
	if err != nil {
		return c.readFailed(err)
	}
	if kind != websocket.MessageText {
		return fmt.Errorf("%w: a binary message: frames are JSON text here", wire.ErrMalformed)
	}
	b := wire.GetBuffer(1 << 10)
	defer func() { b.Release() }() // f shares nothing with it
	n := 0
	for {
		if n == len(b.B) {
			bigger := wire.GetBuffer(min(4*len(b.B), c.limit+1))
			copy(bigger.B, b.B)
			b.Release()
			b = bigger
		}
		k, err := r.Read(b.B[n:])
		n += k
		if n > c.limit {
			return fmt.Errorf("%w: message of more than %d bytes", wire.ErrTooLarge, c.limit)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c.readFailed(err)
		}
	}
	c.in.Add(uint64(n))
	if err := wire.UnmarshalFrameJSON(b.B[:n], f); err != nil {
		return err
	}
	if len(f.Payload) > c.most {
		n := len(f.Payload)
		f.Payload = nil
		return wire.PastError(n, c.most)
	}
	return nil
}

func (c *wsConn) readFailed(err error) error {
	if !errors.Is(err, errTimeout) {
		c.ended.Store(true)
	}
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		return errBye
	}
	return err
}

// size guesses that the payload is base64 or text with few escapes.
func (c *wsConn) size(f *wire.Frame) int { return wire.FrameSize(f) + len(f.Payload)/3 + 160 }

func (c *wsConn) append(dst []byte, f *wire.Frame) ([]byte, error) {
	return wire.AppendFrameJSON(dst, f)
}

func (c *wsConn) nextSend(f, _ *wire.Frame) (*wire.Frame, error) { return f, c.next(f) }

func (c *wsConn) deliverSize(m *wire.Forward) int {
	return wire.DeliverSize(m) + len(m.Payload)/3 + 160
}

// frames keep deliver's frame off the heap, where the encoder would put one for each message.
var frames = sync.Pool{New: func() any { return new(wire.Frame) }}

func (c *wsConn) appendDeliver(dst []byte, m *wire.Forward, epoch wire.Epoch) ([]byte, error) {
	f := frames.Get().(*wire.Frame)
	defer func() {
		*f = wire.Frame{} // it shares memory with m
		frames.Put(f)
	}()
	*f = wire.DeliverFrame(m, epoch)
	return c.append(dst, f)
}

func (c *wsConn) sizeShared(f *wire.Shared, epoch wire.Epoch) int { return f.SizeJSON(epoch) }

func (c *wsConn) appendShared(dst []byte, f *wire.Shared, epoch wire.Epoch) []byte {
	return f.AppendJSON(dst, epoch)
}

// announced is from how many bytes on a frame is announced by a pong. A browser tells its page of a frame once all of it is
// there, and a page on a slow line would take a node for dead that has been sending for seconds.
const announced = 32 << 10

// write gathers the messages' WebSocket frames and writes them at once: one system call for many messages.
func (c *wsConn) write(buf []byte, items []item) (int, error) {
	room := wire.GetBuffer(len(buf) + 16*len(items) + 64*(len(buf)/announced))
	defer room.Release()
	c.raw.cork(room.B[:0])
	ends := make([]item, 0, 16)
	start, err := 0, error(nil)
	for _, it := range items {
		if n := it.end - start; n > announced {
			// It counts as the item's first bytes: of an item whose announcement left, the rest may have.
			ahead, _ := wire.AppendFrameJSON(nil, &wire.Frame{Type: wire.TypePong, Count: uint32(n)})
			if err = c.ws.Write(context.Background(), websocket.MessageText, ahead); err != nil {
				break
			}
		}
		if err = c.ws.Write(context.Background(), websocket.MessageText, buf[start:it.end]); err != nil {
			break // closed by the client's close frame, or by close
		}
		start = it.end
		ends = append(ends, item{end: c.raw.corked()})
	}
	n, err2 := c.raw.uncork()
	switch {
	case err2 != nil:
		if n > 0 || !errors.Is(err2, errTimeout) || c.raw.tls {
			c.torn = true
		}
		return touchedBy(ends, n), err2
	case err != nil:
		c.torn = true
		return len(ends), err
	}
	return len(items), nil
}

func (c *wsConn) writable() bool { return !c.torn && !c.ended.Load() }

func (c *wsConn) setWriteDeadline(t time.Time) { _ = c.raw.Conn.SetWriteDeadline(t) }

func (c *wsConn) interrupt() { _ = c.raw.Conn.SetDeadline(longAgo) }

// linger does WebSocket's closing handshake. The close code is 4000 plus ours, in the range kept for applications.
func (c *wsConn) linger(code wire.Code, ns int64) {
	_ = c.raw.Conn.SetDeadline(time.Now().Add(time.Duration(ns)))
	_ = c.ws.Close(websocket.StatusCode(4000+min(int(code), 999)), code.String())
}

func (c *wsConn) close() {
	_ = c.raw.under.Close()
	_ = c.ws.CloseNow()
}

func (c *wsConn) transport() string { return TransportWS }
func (c *wsConn) remote() string    { return c.raw.RemoteAddr().String() }

// corkConn is a connection that can hold back what is written to it. The WebSocket library flushes after each message.
type corkConn struct {
	net.Conn          // TLS or plain
	under    net.Conn // plain
	tls      bool

	mu   sync.Mutex // also held while writing: what is uncorked must not be overtaken
	held []byte
	on   bool
}

func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Close closes without TLS's farewell, which could block.
func (c *corkConn) Close() error { return c.under.Close() }

func (c *corkConn) cork(room []byte) {
	c.mu.Lock()
	c.held, c.on = room, true
	c.mu.Unlock()
}

func (c *corkConn) corked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held)
}

// uncork writes what was held back and returns how much of it left.
func (c *corkConn) uncork() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held
	c.held, c.on = nil, false
	if len(held) == 0 {
		return 0, nil
	}
	return c.Conn.Write(held)
}

// slimHijacker hands the WebSocket library buffers that fit an idle connection, instead of the HTTP server's two times 4 KiB.
type slimHijacker struct {
	http.ResponseWriter
	raw *corkConn
}

// Sizes in bytes. The write buffer takes a frame's head; payloads pass it by.
const (
	slimRead  = 512
	slimWrite = 16
)

func (h *slimHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hj, ok := h.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("connection cannot be taken over from the HTTP server")
	}
	nc, rw, err := hj.Hijack()
	if err != nil {
		return nil, nil, err
	}
	raw, ok := nc.(*corkConn)
	if !ok {
		_ = nc.Close()
		return nil, nil, fmt.Errorf("connection is a %T: not from this listener", nc)
	}
	h.raw = raw
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	br := bufio.NewReaderSize(bytes.NewReader(bytes.Clone(early)), max(slimRead, len(early)))
	_, _ = br.Peek(len(early)) // the library takes over what is buffered
	return nc, bufio.NewReadWriter(br, bufio.NewWriterSize(nc, slimWrite)), nil
}
