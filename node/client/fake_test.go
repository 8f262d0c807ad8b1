package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // virtual in most tests

// network is a set of fake nodes that a Client under test dials, all within one synctest bubble.
type network struct {
	t     *testing.T
	ahead int // frames that a node reads ahead of its test
	mu    sync.Mutex
	nodes map[string]*fakeNode
	dials []dialed
}

type dialed struct {
	addr string
	at   time.Time
}

func newNetwork(t *testing.T, addrs ...string) *network {
	n := &network{t: t, ahead: 100000, nodes: make(map[string]*fakeNode)}
	for _, a := range addrs {
		n.add(a)
	}
	return n
}

func (n *network) add(addr string) *fakeNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	nd := &fakeNode{t: n.t, addr: addr, conns: make(chan *fakeConn, 64)}
	n.nodes[addr] = nd
	return nd
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, dialed{addr, time.Now()})
	nd := n.nodes[addr]
	n.mu.Unlock()
	if nd == nil {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	nd.conns <- newFakeConn(n.t, far, n.ahead)
	return near, nil
}

func (n *network) dialed() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, d := range n.dials {
		out = append(out, d.addr)
	}
	return out
}

type fakeNode struct {
	t     *testing.T
	addr  string
	conns chan *fakeConn
}

func (nd *fakeNode) accept() *fakeConn {
	nd.t.Helper()
	select {
	case fc := <-nd.conns:
		return fc
	case <-time.After(patience):
		nd.t.Fatalf("nobody connected to %s", nd.addr)
		return nil
	}
}

// welcome takes one login and lets it in.
func (nd *fakeNode) welcome(epoch wire.Epoch) *fakeConn {
	nd.t.Helper()
	fc := nd.accept()
	fc.login = fc.want(wire.TypeLogin)
	fc.send(wire.Frame{Type: wire.TypeWelcome, Epoch: epoch, Node: "node-" + nd.addr, IdleMS: 30000, MaxPayload: 1 << 20})
	return fc
}

// refuse takes one login and turns it away.
func (nd *fakeNode) refuse(f wire.Frame) wire.Frame {
	nd.t.Helper()
	fc := nd.accept()
	login := fc.want(wire.TypeLogin)
	fc.kick(f)
	return *login
}

// fakeConn is the node's end of a connection. It always reads.
type fakeConn struct {
	t      *testing.T
	conn   net.Conn
	frames chan *wire.Frame // closed when the client's end is
	login  *wire.Frame
}

func newFakeConn(t *testing.T, conn net.Conn, ahead int) *fakeConn {
	fc := &fakeConn{t: t, conn: conn, frames: make(chan *wire.Frame, ahead)}
	go func() {
		defer close(fc.frames)
		r := wire.NewFrameReader(conn, 0)
		for {
			var f wire.Frame
			if r.Next(&f) != nil {
				conn.Close()
				return
			}
			fc.frames <- f.Clone()
		}
	}()
	return fc
}

func (fc *fakeConn) send(f wire.Frame) {
	fc.t.Helper()
	if _, err := fc.conn.Write(wire.AppendFrame(nil, &f)); err != nil {
		fc.t.Fatalf("node cannot write %s: %v", f.Type, err)
	}
}

func (fc *fakeConn) kick(f wire.Frame) {
	fc.t.Helper()
	f.Type = wire.TypeKick
	fc.send(f)
	fc.conn.Close()
}

func (fc *fakeConn) deliver(epoch wire.Epoch, instance, id uint64, ack wire.AckMode, payload string) {
	fc.t.Helper()
	fc.send(wire.Frame{Type: wire.TypeDeliver, From: "bob", Instance: instance, ID: id, Epoch: epoch, Ack: ack, Payload: []byte(payload)})
}

func (fc *fakeConn) result(id uint64, code wire.Code) {
	fc.t.Helper()
	fc.send(wire.Frame{Type: wire.TypeResult, ID: id, Code: code, Node: "owner"})
}

// next is the client's next frame that is no ping (those it answers); nil once the client has gone.
func (fc *fakeConn) next() *wire.Frame {
	fc.t.Helper()
	for {
		select {
		case f, ok := <-fc.frames:
			if !ok {
				return nil
			}
			if f.Type == wire.TypePing {
				fc.send(wire.Frame{Type: wire.TypePong})
				continue
			}
			return f
		case <-time.After(patience):
			fc.t.Fatal("the client sent nothing")
			return nil
		}
	}
}

func (fc *fakeConn) want(typ wire.Type) *wire.Frame {
	fc.t.Helper()
	f := fc.next()
	if f == nil {
		fc.t.Fatalf("the client closed, want %s", typ)
	}
	if f.Type != typ {
		fc.t.Fatalf("got %s, want %s", f.Type, typ)
	}
	return f
}

func (fc *fakeConn) wantGone() {
	fc.t.Helper()
	for f := fc.next(); f != nil; f = fc.next() {
		if f.Type != wire.TypeBye {
			fc.t.Fatalf("got %s, want the end", f.Type)
		}
	}
}

// states collects what OnState hears.
type states struct{ ch chan State }

func newStates() *states { return &states{make(chan State, 1000)} }

func (s *states) want(t *testing.T, kind StateKind) State {
	t.Helper()
	select {
	case st := <-s.ch:
		if st.Kind != kind {
			t.Fatalf("state is %q, want %s", st, kind)
		}
		return st
	case <-time.After(patience):
		t.Fatalf("no state, want %s", kind)
		return State{}
	}
}

func (s *states) on(st State) { s.ch <- st }

// config logs in as alice at addrs over n, without jitter.
func (n *network) config(addrs ...string) Config {
	return Config{Addrs: addrs, Client: "alice", DialContext: n.dial, random: func() float64 { return 0.5 }}
}

// open dials while script plays the node's side of the login.
func open(t *testing.T, cfg Config, script func()) *Client {
	t.Helper()
	type opened struct {
		c   *Client
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		c, err := Dial(context.Background(), cfg)
		ch <- opened{c, err}
	}()
	script()
	o := <-ch
	if o.err != nil {
		t.Fatalf("Dial: %v", o.err)
	}
	return o.c
}

// shut closes a client whose nodes do not answer a bye.
func shut(t *testing.T, c *Client) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func wantCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != code {
		t.Fatalf("error is %v, want code %s", err, code)
	}
}

func receive(t *testing.T, c *Client) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := c.Receive(ctx)
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	return m
}

func wantMessage(t *testing.T, c *Client, payload string) Message {
	t.Helper()
	m := receive(t, c)
	if string(m.Payload) != payload {
		t.Fatalf("received %q, want %q", m.Payload, payload)
	}
	return m
}

// asyncResults sends count messages and returns the channel of their results.
func asyncResults(t *testing.T, c *Client, ack wire.AckMode, count int) chan Result {
	t.Helper()
	ch := make(chan Result, count)
	for i := range count {
		if _, err := c.SendAsync("bob", []byte(fmt.Sprint(i)), ack, 0, func(r Result) { ch <- r }); err != nil {
			t.Fatalf("SendAsync: %v", err)
		}
	}
	return ch
}
