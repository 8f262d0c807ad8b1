package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
)

const subprotocol = "imroute.v1.json"

// wsTransport speaks JSON text messages.
type wsTransport struct {
	conn  *websocket.Conn
	cork  *corkConn
	frame wire.Frame // the last one read
	json  []byte     // owned by write
}

func dialWebSocket(ctx context.Context, cfg *Config, a address, heard *atomic.Int64, now func() int64) (transport, error) {
	t := new(wsTransport)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := cfg.DialContext(ctx, network, a.host)
			if err != nil {
				return nil, err
			}
			t.cork = &corkConn{heardConn: heardConn{Conn: conn, heard: heard, now: now}}
			return t.cork, nil
		},
		TLSClientConfig: tlsConfig(cfg.TLS, a),
	}
	tr.TLSClientConfig.NextProtos = nil // HTTP/1.1: the upgrade does not exist in 2
	conn, resp, err := websocket.Dial(ctx, a.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     tr,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols: []string{subprotocol},
	})
	if err != nil {
		tr.CloseIdleConnections()
		if resp != nil {
			text := fmt.Sprintf("%s answered %s: is this the WebSocket address of a node?", a, resp.Status)
			if resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests { // a proxy before nodes that are down, or one that is busy
				return nil, errors.New(text)
			}
			return nil, &foreignError{text}
		}
		return nil, err
	}
	if conn.Subprotocol() != subprotocol {
		conn.CloseNow()
		return nil, &foreignError{fmt.Sprintf("%s does not speak %s", a, subprotocol)}
	}
	conn.SetReadLimit(wire.MaxHeader*2 + maxReceive*4/3)
	t.conn = conn
	return t, nil
}

func (t *wsTransport) read() (*wire.Frame, error) {
	typ, b, err := t.conn.Read(context.Background())
	if err != nil {
		return nil, err
	}
	if typ != websocket.MessageText {
		return nil, fmt.Errorf("%w: a binary message", wire.ErrMalformed)
	}
	return &t.frame, wire.UnmarshalFrameJSON(b, &t.frame)
}

// write sends one message a frame but lets them share packets.
func (t *wsTransport) write(b []byte) (int, error) {
	t.cork.hold()
	var f wire.Frame
	err := eachFrame(b, 0, func(body []byte) error {
		if err := wire.DecodeFrame(body, &f); err != nil {
			return err
		}
		var err error
		if t.json, err = wire.AppendFrameJSON(t.json[:0], &f); err != nil {
			return err
		}
		return t.conn.Write(context.Background(), websocket.MessageText, t.json)
	})
	if e := t.cork.release(); err == nil {
		err = e
	}
	if cap(t.json) > chunkBytes {
		t.json = nil
	}
	return len(b), err // how far it got cannot be known: say all, so that nothing is repeated
}

func (t *wsTransport) closeWrite() {} // the node closes the connection after a bye

func (t *wsTransport) close() {
	t.cork.Close() // first, for CloseNow waits for a write under way
	t.conn.CloseNow()
}

// corkConn gathers what is written between hold and release. It stands below TLS, so records are gathered as well.
type corkConn struct {
	heardConn
	mu   sync.Mutex
	held bool
	buf  []byte
}

func (c *corkConn) hold() {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
}

func (c *corkConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(b)
	}
	c.buf = append(c.buf, b...)
	if len(c.buf) >= chunkBytes {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (c *corkConn) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	err := c.flushLocked()
	c.buf = nil // an idle connection keeps no buffer
	return err
}

func (c *corkConn) flushLocked() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}
