package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/raftfsm"
)

// fast are the shortest timings that a shared machine under the race detector still keeps.
var fast = Timings{
	Heartbeat: 100 * time.Millisecond, Election: 100 * time.Millisecond, Lease: 1500 * time.Millisecond,
	Margin: 100 * time.Millisecond, Renew: 100 * time.Millisecond, Quiet: 1500 * time.Millisecond,
}

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// clusterSlots: at most two clusters run at once.
var clusterSlots = make(chan struct{}, 2)

// cluster is some nodes in this process, over real sockets and real disks.
type cluster struct {
	t   testing.TB
	ctx context.Context
	mu  sync.Mutex
	dir map[string]string // of each node, kept over restarts
	up  map[string]*Node
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	t.Parallel()
	t.TempDir() // the data folders stand beside it: they go after the nodes are closed, not before
	clusterSlots <- struct{}{}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	c := &cluster{t: t, ctx: ctx, dir: map[string]string{}, up: map[string]*Node{}}
	t.Cleanup(func() {
		c.closeAll()
		cancel()
		<-clusterSlots
	})
	return c
}

func (c *cluster) closeAll() {
	c.mu.Lock()
	nodes := c.up
	c.up = map[string]*Node{}
	c.mu.Unlock()
	var wg sync.WaitGroup
	for name, n := range nodes {
		wg.Go(func() {
			if err := closeNode(n); err != nil {
				c.t.Errorf("closing %s: %v", name, err)
			}
		})
	}
	wg.Wait()
}

func closeNode(n *Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return n.Close(ctx)
}

func (c *cluster) config(name string) Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir[name] == "" {
		c.dir[name] = c.t.TempDir()
	}
	free := Bind{Bind: "127.0.0.1:0"}
	return Config{Name: name, Data: c.dir[name], Dev: true, Mesh: free, ClientTCP: free, ClientWS: free, Admin: free, Timings: fast, MinFreeDisk: 1}
}

func testLog(name string) *slog.Logger {
	if os.Getenv("IMROUTE_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// open starts a node without waiting for it to be ready.
func (c *cluster) open(cfg Config) (*Node, error) {
	n, err := New(cfg, testLog(cfg.Name))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	if err := n.Open(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.up[n.Name()] = n
	c.mu.Unlock()
	return n, nil
}

// start starts a node and waits until it is ready.
func (c *cluster) start(cfg Config) *Node {
	c.t.Helper()
	n, err := c.open(cfg)
	if err != nil {
		c.t.Fatalf("opening %s: %v", cfg.Name, err)
	}
	c.ready(n)
	return n
}

func (c *cluster) ready(n *Node) {
	c.t.Helper()
	select {
	case <-n.Ready():
	case <-time.After(patience):
		c.t.Fatalf("%s was not ready in time: %v", n.Name(), api{n}.Ready().Reasons)
	}
}

func (c *cluster) found(name string, change ...func(*Config)) *Node {
	c.t.Helper()
	cfg := c.config(name)
	cfg.Bootstrap = true
	for _, f := range change {
		f(&cfg)
	}
	return c.start(cfg)
}

func (c *cluster) token(at *Node) string {
	c.t.Helper()
	token, err := api{at}.CreateToken(c.ctx, time.Hour)
	if err != nil {
		c.t.Fatalf("token: %v", err)
	}
	return token.Token
}

func (c *cluster) joining(name string, at *Node) Config {
	c.t.Helper()
	cfg := c.config(name)
	cfg.Join, cfg.Token = []string{at.Addrs().Mesh}, c.token(at)
	return cfg
}

func (c *cluster) join(name string, at *Node) *Node {
	c.t.Helper()
	return c.start(c.joining(name, at))
}

// three is a cluster of n1, n2 and n3 in which all are voters.
func (c *cluster) three(change ...func(*Config)) (n1, n2, n3 *Node) {
	c.t.Helper()
	n1 = c.found("n1", change...)
	cfg2, cfg3 := c.joining("n2", n1), c.joining("n3", n1)
	for _, f := range change {
		f(&cfg2)
		f(&cfg3)
	}
	var wg sync.WaitGroup // two at once
	var err2, err3 error
	wg.Go(func() { n2, err2 = c.open(cfg2) })
	wg.Go(func() { n3, err3 = c.open(cfg3) })
	wg.Wait()
	if err2 != nil || err3 != nil {
		c.t.Fatalf("joining: %v, %v", err2, err3)
	}
	c.ready(n2)
	c.ready(n3)
	c.voters(3, n1, n2, n3)
	return n1, n2, n3
}

// voters waits until all of nodes count that many voters, and hold the CA key if they are one.
func (c *cluster) voters(want int, nodes ...*Node) {
	c.t.Helper()
	for _, n := range nodes {
		c.until(n.Name()+" sees the voters", func() error {
			if got := countTrue(api{n}.voters()); got != want {
				return fmt.Errorf("%d voters, want %d", got, want)
			}
			return nil
		})
	}
}

// stop closes a node as a signal would.
func (c *cluster) stop(n *Node) {
	c.t.Helper()
	c.mu.Lock()
	delete(c.up, n.Name())
	c.mu.Unlock()
	if err := closeNode(n); err != nil {
		c.t.Errorf("closing %s: %v", n.Name(), err)
	}
}

// until polls cond, which says what is missing, until it is satisfied.
func (c *cluster) until(what string, cond func() error) {
	c.t.Helper()
	untilOr(c.t, what, cond)
}

func untilOr(t testing.TB, what string, cond func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: %v after %v", what, err, patience)
		}
	}
}

// leader waits until every given node agrees on one of them as leader.
func (c *cluster) leader(nodes ...*Node) (leads *Node) {
	c.t.Helper()
	c.until("a leader", func() error {
		leads = nil
		var id wire.NodeID
		for _, n := range nodes {
			l, ok := n.store.Leader()
			if !ok || id != 0 && l != id {
				return fmt.Errorf("%s knows of %v", n.Name(), l)
			}
			id = l
		}
		for _, n := range nodes {
			if _, ok := n.lead.term(); ok && n.id == id {
				leads = n
				return nil
			}
		}
		return fmt.Errorf("%v leads, and is not one of them or not ready", id)
	})
	return leads
}

// user is a client that keeps what happens to it.
type user struct {
	*client.Client
	t      testing.TB
	states chan client.State
	lost   chan client.Result // OnRefused
}

func dialConfig(id string, at ...*Node) (client.Config, *user) {
	u := &user{states: make(chan client.State, 1024), lost: make(chan client.Result, 1024)}
	cfg := client.Config{
		Client: id, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		OnState: func(s client.State) { u.states <- s }, OnRefused: func(r client.Result) { u.lost <- r },
	}
	for _, n := range at {
		cfg.Addrs = append(cfg.Addrs, n.Addrs().ClientTCP)
	}
	return cfg, u
}

func (c *cluster) dialErr(cfg client.Config, u *user) error {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	return c.dialIn(ctx, cfg, u)
}

func (c *cluster) dialIn(ctx context.Context, cfg client.Config, u *user) error {
	cl, err := client.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	u.Client, u.t = cl, c.t
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = cl.Close(ctx)
	})
	return nil
}

// dial connects id at the first of nodes that takes it.
func (c *cluster) dial(id string, at ...*Node) *user {
	c.t.Helper()
	cfg, u := dialConfig(id, at...)
	if err := c.dialErr(cfg, u); err != nil {
		c.t.Fatalf("login of %s: %v", id, err)
	}
	return u
}

func (u *user) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = u.Close(ctx)
}

// send sends one message and checks how it ends.
func (u *user) send(to, text string, ack wire.AckMode, want wire.Code, timeout time.Duration) client.Result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := u.Send(ctx, to, []byte(text), client.WithAck(ack), client.WithTimeout(timeout))
	if r.Code != want {
		u.t.Fatalf("%s to %s with ack %d: %v %s (%v), want %v", text, to, ack, r.Code, r.Text, err, want)
	}
	return r
}

// hears waits for the next message.
func (u *user) hears(want string) client.Message {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := u.Receive(ctx)
	if err != nil {
		u.t.Fatalf("%v waits for %q: %v", u.ID(), want, err)
	}
	if string(m.Payload) != want {
		u.t.Fatalf("%v got %q, want %q", u.ID(), m.Payload, want)
	}
	return m
}

// sees waits for a state that fits.
func (u *user) sees(what string, fits func(client.State) bool) client.State {
	u.t.Helper()
	late := time.After(patience)
	var seen []string
	for {
		select {
		case s := <-u.states:
			if fits(s) {
				return s
			}
			seen = append(seen, s.String())
		case <-late:
			u.t.Fatalf("%v did not see %s, only %s", u.ID(), what, strings.Join(seen, "; "))
		}
	}
}

func closedWith(code wire.Code) func(client.State) bool {
	return func(s client.State) bool { return s.Kind == client.Closed && s.Code == code }
}

func connectedElsewhere(than *Node) func(client.State) bool {
	return func(s client.State) bool { return s.Kind == client.Connected && s.Node != than.Name() }
}

// route reads a route linearizably at a node.
func (c *cluster) route(at *Node, id string) admin.Route {
	c.t.Helper()
	r, err := c.routeErr(at, id)
	if err != nil {
		c.t.Fatalf("route of %s at %s: %v", id, at.Name(), err)
	}
	return r
}

func (c *cluster) routeErr(at *Node, id string) (admin.Route, error) {
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	return api{at}.Route(ctx, admin.RouteQuery{Client: wire.ClientID{ID: id}, Consistency: admin.Linearizable})
}

func (c *cluster) routeGoes(at *Node, id string) {
	c.t.Helper()
	c.until("the route of "+id+" goes", func() error {
		r, err := c.routeErr(at, id)
		if err == nil && r.Found {
			err = fmt.Errorf("it is at %s", r.Node)
		}
		return err
	})
}

// state waits until at sees another node in a state.
func (c *cluster) state(at *Node, of wire.NodeID, want raftfsm.NodeState) {
	c.t.Helper()
	c.until(fmt.Sprintf("%v is %v", of, want), func() error {
		if n, ok := at.fsm.Node(of); !ok || n.State != want {
			return fmt.Errorf("it is %v (%v)", n.State, ok)
		}
		return nil
	})
}

func isError(err error, want ...string) error {
	if err == nil {
		return fmt.Errorf("no error, want one with %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			return fmt.Errorf("%w: does not say %q", err, w)
		}
	}
	return nil
}
