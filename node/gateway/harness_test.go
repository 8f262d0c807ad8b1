package gateway

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"flag"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// doze is for running all tests with sessions that doze whenever they can: -doze 1ns.
var doze = flag.Duration("doze", 0, "Config.Doze, unless a test sets it")

const patience = 10 * time.Second

// eventually waits for a condition that goroutines of the gateway bring about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// manualClock stands still until advanced.
type manualClock struct {
	mu    sync.Mutex
	now   time.Time
	ticks chan time.Time
}

func newManualClock() *manualClock {
	return &manualClock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), ticks: make(chan time.Time)}
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) Ticker(time.Duration) (<-chan time.Time, func()) { return c.ticks, func() {} }

// advance moves on tick by tick; each one is taken by the gateway before the next.
func (c *manualClock) advance(d time.Duration) {
	for ; d > 0; d -= tick {
		c.mu.Lock()
		c.now = c.now.Add(min(tick, d))
		now := c.now
		c.mu.Unlock()
		c.ticks <- now
	}
	c.ticks <- c.Now() // by now the last tick is dealt with
}

// jump moves on with one tick at the end, as after a suspension.
func (c *manualClock) jump(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	now := c.now
	c.mu.Unlock()
	c.ticks <- now
	c.ticks <- now
}

// fakeNode is a Backend. Its hooks are set before the gateway opens.
type fakeNode struct {
	login func(ctx context.Context, s *Session, waiting func(time.Duration)) (Welcome, error)
	send  func(s *Session, f *wire.Frame)

	mayNot   atomic.Bool // the lease is off
	mayCount atomic.Int64
	mayHook  atomic.Pointer[func(n int64) bool]
	leaseEnd atomic.Pointer[time.Time] // not nil: this counts instead of the others

	mu     sync.Mutex
	epoch  wire.Epoch
	logins map[*Session]int
	closed map[*Session]int
	bySess map[wire.ClientID]*Session
}

func (n *fakeNode) Login(ctx context.Context, s *Session, waiting func(time.Duration)) (Welcome, error) {
	n.mu.Lock()
	n.logins[s]++
	n.epoch++
	e := n.epoch
	n.bySess[s.Client()] = s
	n.mu.Unlock()
	if n.login != nil {
		return n.login(ctx, s, waiting)
	}
	return Welcome{Epoch: e}, nil
}

func (n *fakeNode) Send(s *Session, f *wire.Frame) {
	if n.send != nil {
		n.send(s, f)
	}
}

func (n *fakeNode) Join(s *Session, group string, id uint64) {
	s.Result(id, wire.Joined, "", "in "+group)
}

func (n *fakeNode) Serve(s *Session, service string, limit int, id uint64) {
	s.Result(id, wire.Joined, service, "")
}

func (n *fakeNode) Unserve(s *Session, service string, id uint64) {
	s.Result(id, wire.Left, service, "")
}

func (n *fakeNode) Watch(s *Session, ids []string, list string, id uint64) {
	for _, c := range ids {
		s.Presence(&wire.Frame{Type: wire.TypePresence, Client: c})
	}
	s.Result(id, wire.OK, list, "")
}

func (n *fakeNode) Unwatch(s *Session, _ []string, list string, id uint64) {
	s.Result(id, wire.OK, list, "")
}

func (n *fakeNode) Leave(s *Session, group string, id uint64) {
	s.Result(id, wire.Left, "", "out of "+group)
}

func (n *fakeNode) Closed(s *Session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed[s]++
}

func (n *fakeNode) LeaseLeft() time.Duration {
	if end := n.leaseEnd.Load(); end != nil {
		return time.Until(*end)
	}
	k := n.mayCount.Add(1)
	may := !n.mayNot.Load()
	if h := n.mayHook.Load(); h != nil {
		may = (*h)(k)
	}
	if !may {
		return 0
	}
	return time.Hour
}

func (n *fakeNode) Alternatives(transport string) []string { return []string{transport + ".other:1"} }
func (n *fakeNode) NodeName() string                       { return "n1" }

// session returns the session a client has logged in with.
func (n *fakeNode) session(t *testing.T, id string) *Session {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.bySess[wire.ClientID{ID: id}]
	if s == nil {
		t.Fatalf("%s never logged in", id)
	}
	return s
}

// receipts records what Deliver's callers were told.
type receipts struct {
	mu   sync.Mutex
	got  map[uint64]wire.Code
	more int // second receipts for one ref
}

func (r *receipts) Receipt(ref uint64, code wire.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = make(map[uint64]wire.Code)
	}
	if _, twice := r.got[ref]; twice {
		r.more++
	}
	r.got[ref] = code
}

func (r *receipts) of(ref uint64) wire.Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[ref]
}

func (r *receipts) count() (n, twice int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got), r.more
}

func (r *receipts) wait(t *testing.T, ref uint64, want wire.Code) {
	t.Helper()
	eventually(t, "a receipt", func() bool { return r.of(ref) != wire.None })
	if got := r.of(ref); got != want {
		t.Fatalf("receipt %d is %v, want %v", ref, got, want)
	}
}

// rig is a gateway with a fake node behind it.
type rig struct {
	*Gateway
	t    *testing.T
	node *fakeNode
	tls  *tls.Config // for clients
}

func newRig(t *testing.T, change func(c *Config, n *fakeNode)) *rig {
	t.Helper()
	n := &fakeNode{logins: map[*Session]int{}, closed: map[*Session]int{}, bySess: map[wire.ClientID]*Session{}}
	c := Config{TCP: "127.0.0.1:0", WS: "127.0.0.1:0", DevMode: true, Backend: n, KickTimeout: 500 * time.Millisecond, Doze: *doze}
	if change != nil {
		change(&c, n)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.SetAccepting(true, wire.None)
	r := &rig{Gateway: g, t: t, node: n}
	t.Cleanup(r.end)
	return r
}

// end closes and checks what must hold after every test.
func (r *rig) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		r.t.Errorf("close: %v", err)
	}
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	for s, n := range r.node.logins {
		if n != 1 || r.node.closed[s] != 1 {
			r.t.Errorf("%v: %d Login, %d Closed", s.Client(), n, r.node.closed[s])
		}
	}
	st := r.Stats()
	if st.Sessions != 0 || st.Connections != 0 || r.st.writers.Load() != 0 {
		eventually(r.t, "nothing left", func() bool { return r.st.writers.Load() == 0 })
		if st := r.Stats(); st.Sessions != 0 || st.Connections != 0 {
			r.t.Errorf("left behind: %+v", st)
		}
	}
}

// client is either transport seen from the outside.
type client interface {
	send(f *wire.Frame)
	recv(f *wire.Frame) error
	hangUp()
}

type tcpClient struct {
	t  *testing.T
	nc net.Conn
}

func (r *rig) dial() *tcpClient {
	r.t.Helper()
	addr, _ := r.Addrs()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	if r.tls != nil {
		nc = tls.Client(nc, r.tls)
	}
	_ = nc.SetDeadline(time.Now().Add(2 * patience))
	return &tcpClient{r.t, nc}
}

func (c *tcpClient) send(f *wire.Frame) { c.write(wire.AppendFrame(nil, f)) }

func (c *tcpClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *tcpClient) recv(f *wire.Frame) error {
	var head [4]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return err
	}
	if err := wire.DecodeFrame(body, f); err != nil {
		return err
	}
	return f.Validate(false)
}

func (c *tcpClient) hangUp() { _ = c.nc.Close() }

type wsClient struct {
	t  *testing.T
	ws *websocket.Conn
}

func (r *rig) dialWS() *wsClient {
	r.t.Helper()
	_, addr := r.Addrs()
	ws, res, err := websocket.Dial(r.t.Context(), "ws://"+addr+PathWS, &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		r.t.Fatal(err)
	}
	if res.Body != nil {
		_ = res.Body.Close()
	}
	ws.SetReadLimit(8 << 20)
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	return &wsClient{r.t, ws}
}

func (c *wsClient) send(f *wire.Frame) {
	c.t.Helper()
	b, err := wire.MarshalFrameJSON(f)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(b))
}

func (c *wsClient) write(text string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *wsClient) recv(f *wire.Frame) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	if err != nil {
		return err
	}
	if err := wire.UnmarshalFrameJSON(b, f); err != nil {
		return err
	}
	return f.Validate(false)
}

func (c *wsClient) hangUp() { _ = c.ws.CloseNow() }

func loginFrame(id string) *wire.Frame {
	return &wire.Frame{Type: wire.TypeLogin, Client: id, Instance: wire.NewID(), Attempt: 1, Version: wire.ProtocolVersion}
}

// expect reads one frame and checks its type.
func expect(t *testing.T, c client, want wire.Type) *wire.Frame {
	t.Helper()
	var f wire.Frame
	if err := c.recv(&f); err != nil {
		t.Fatalf("want %v, got %v", want, err)
	}
	if f.Type != want {
		t.Fatalf("want %v, got %+v", want, f)
	}
	return &f
}

// expectKick reads up to a kick with code and the end of the connection behind it.
func expectKick(t *testing.T, c client, code wire.Code) *wire.Frame {
	t.Helper()
	f := expect(t, c, wire.TypeKick)
	if f.Code != code {
		t.Fatalf("kicked with %v (%s), want %v", f.Code, f.Text, code)
	}
	expectEnd(t, c)
	return f
}

func expectEnd(t *testing.T, c client) {
	t.Helper()
	var f wire.Frame
	if err := c.recv(&f); err == nil {
		t.Fatalf("want the end of the connection, got %+v", f)
	}
	c.hangUp()
}

// login logs a client in and returns it with its session.
func (r *rig) login(c client, id string) *Session {
	r.t.Helper()
	c.send(loginFrame(id))
	expect(r.t, c, wire.TypeWelcome)
	return r.node.session(r.t, id)
}

// both runs a test on each transport.
func both(t *testing.T, change func(c *Config, n *fakeNode), run func(t *testing.T, r *rig, dial func() client)) {
	t.Run("tcp", func(t *testing.T) {
		r := newRig(t, change)
		run(t, r, func() client { return r.dial() })
	})
	t.Run("ws", func(t *testing.T) {
		r := newRig(t, change)
		run(t, r, func() client { return r.dialWS() })
	})
}

// message makes a Forward of one sender instance.
func message(counter uint64, ack wire.AckMode, payload string) *wire.Forward {
	return &wire.Forward{To: "bob", From: "alice", Instance: 7, Counter: counter, Ack: ack, Ref: counter, Payload: []byte(payload)}
}
