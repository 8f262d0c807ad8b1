package node

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/discover"
)

// lanInMemory carries announcements between the nodes of a test; parts that it is cut into do not hear each other.
type lanInMemory struct {
	mu    sync.Mutex
	conns map[*lanConn]bool
	parts map[string]int // by the node's name
}

type lanConn struct {
	l      *lanInMemory
	node   string
	in     chan []byte
	closed chan struct{}
	once   sync.Once
}

func (l *lanInMemory) open(node string) func(discover.LANConfig) (discover.Conn, error) {
	return func(discover.LANConfig) (discover.Conn, error) {
		c := &lanConn{l: l, node: node, in: make(chan []byte, 256), closed: make(chan struct{})}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.conns == nil {
			l.conns = map[*lanConn]bool{}
		}
		l.conns[c] = true
		return c, nil
	}
}

func (l *lanInMemory) cut(parts map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = parts
}

func (c *lanConn) Send(b []byte) error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if !c.l.conns[c] {
		return net.ErrClosed
	}
	for to := range c.l.conns {
		if c.l.parts[to.node] != c.l.parts[c.node] {
			continue
		}
		select {
		case to.in <- append([]byte(nil), b...):
		default: // as a full socket buffer
		}
	}
	return nil
}

func (c *lanConn) Receive(buf []byte) (int, string, error) {
	select {
	case b := <-c.in:
		return copy(buf, b), "192.0.2.1", nil
	case <-c.closed:
		return 0, "", net.ErrClosed
	}
}

func (c *lanConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	delete(c.l.conns, c)
	return nil
}

func (c *cluster) discovering(name string, lan *lanInMemory) Config {
	cfg := c.config(name)
	cfg.Discover = Discover{Mode: DiscoverLAN, Cluster: "office", Secret: "correct horse battery", Wait: 500 * time.Millisecond, Listen: lan.open(name)}
	return cfg
}

// openAll starts nodes at the same moment and waits until all are ready.
func (c *cluster) openAll(cfgs ...Config) []*Node {
	c.t.Helper()
	nodes, errs := make([]*Node, len(cfgs)), make([]error, len(cfgs))
	var wg sync.WaitGroup
	for i, cfg := range cfgs {
		wg.Go(func() { nodes[i], errs[i] = c.open(cfg) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			c.t.Fatalf("%s: %v", cfgs[i].Name, err)
		}
		c.ready(nodes[i])
	}
	return nodes
}

// TestS2Discovery: nodes that start at the same moment found one cluster, later ones join it, and after a restart a member
// needs no words at all and is found again.
func TestS2Discovery(t *testing.T) {
	c := newCluster(t)
	lan := &lanInMemory{}
	nodes := c.openAll(c.discovering("n1", lan), c.discovering("n2", lan), c.discovering("n3", lan))
	for _, n := range nodes[1:] {
		if n.ClusterID() != nodes[0].ClusterID() {
			t.Fatalf("%s is in cluster %s, n1 in %s", n.Name(), n.ClusterID(), nodes[0].ClusterID())
		}
	}
	c.voters(3, nodes...)

	// All stop, one after the other; those that come back go on announcing themselves without being told.
	for _, n := range nodes {
		c.stop(n)
	}
	var again []Config
	for _, n := range nodes {
		cfg := c.config(n.Name())
		cfg.Discover.Listen = lan.open(n.Name())
		again = append(again, cfg)
	}
	nodes = c.openAll(again...)
	late := c.discovering("late", lan)
	late.Name = "" // it gets one
	n := c.openAll(late)[0]
	if n.ClusterID() != nodes[0].ClusterID() || n.Name() == "" {
		t.Fatalf("%q is in cluster %s", n.Name(), n.ClusterID())
	}

	// Who may not, and why.
	for name, try := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"secret": {func(cfg *Config) { cfg.Discover.Secret += "!" }, "another secret: check --secret"},
		"mode":   {func(cfg *Config) { cfg.Dev = false }, "in development mode: start this node with --dev"},
		"name":   {func(cfg *Config) { cfg.Name = "n2" }, "n2"},
		"silent": {func(cfg *Config) { cfg.Discover.Secret = "" }, "--cluster and --secret belong together"},
	} {
		cfg := c.discovering("x"+name, lan)
		try.change(&cfg)
		if _, err := c.open(cfg); err == nil || !strings.Contains(err.Error(), try.want) {
			t.Errorf("%s: %v, want %q", name, err, try.want)
		}
	}

	// A member that is told to be silent lets nobody in by the secret.
	c.stop(n)
	quiet := c.config("late")
	quiet.Name = ""
	quiet.Discover = Discover{Mode: DiscoverOff, Listen: func(discover.LANConfig) (discover.Conn, error) { panic("it listens") }}
	n = c.start(quiet)
	key, err := discover.NewKey("office", "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.checkJoinToken(key.Token()); err == nil {
		t.Error("a silent member takes the secret's token")
	}
	if err := nodes[0].checkJoinToken(key.Token()); err != nil {
		t.Error(err)
	}
}

// TestSplitLAN: two clusters that a split network made are seen as soon as it is whole again, and joining is refused.
func TestSplitLAN(t *testing.T) {
	c := newCluster(t)
	lan := &lanInMemory{}
	lan.cut(map[string]int{"n2": 1})
	nodes := c.openAll(c.discovering("n1", lan), c.discovering("n2", lan))
	if nodes[0].ClusterID() == nodes[1].ClusterID() {
		t.Fatal("they are one cluster through the split")
	}
	status := func(n *Node) admin.ClusterStatus {
		st, err := api{n}.ClusterStatus(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := status(nodes[0]); st.Health != admin.HealthOK {
		t.Fatalf("%+v", st)
	}
	lan.cut(nil)
	for i, n := range nodes {
		c.until(n.Name()+" sees the other cluster", func() error {
			other := nodes[1-i]
			st := status(n)
			if all := strings.Join(st.Problems, "\n"); st.Health != admin.HealthDegraded || !strings.Contains(all, "another cluster, "+other.ClusterID()+" (node "+other.Name()) || !strings.Contains(all, "Give one up") {
				return fmt.Errorf("%s: %v", st.Health, st.Problems)
			}
			if n.discovery.foreignClusters() != 1 {
				return fmt.Errorf("counts %v other clusters", n.discovery.foreignClusters())
			}
			return nil
		})
	}
	newcomer := c.discovering("n3", lan)
	newcomer.Discover.Wait = 3 * time.Second // it listens longer before it takes the first cluster that it hears of
	if _, err := c.open(newcomer); err == nil || !strings.Contains(err.Error(), "two clusters announce themselves") {
		t.Errorf("a newcomer: %v", err)
	}
	c.stop(nodes[1])
	c.until("the given-up cluster is forgotten", func() error {
		if st := status(nodes[0]); st.Health != admin.HealthOK {
			return fmt.Errorf("%v", st.Problems)
		}
		return nil
	})
	if n := c.openAll(c.discovering("n3", lan))[0]; n.ClusterID() != nodes[0].ClusterID() {
		t.Error("n3 is not in the cluster that is left")
	}
}

// TestJoinTriesAgain: a node that is started before the one it joins waits for it, and one that is refused does not.
func TestJoinTriesAgain(t *testing.T) {
	c := newCluster(t)
	n1 := c.found("n1")
	token, at := c.token(n1), n1.Addrs()
	c.stop(n1)

	cfg := c.config("n2")
	cfg.Join, cfg.Token, cfg.JoinWait = []string{"127.0.0.1:1", "dns:localhost:" + portOf(t, at.Mesh)}, token, patience
	joined := make(chan error, 1)
	go func() {
		n2, err := c.open(cfg)
		if err == nil {
			c.ready(n2)
		}
		joined <- err
	}()
	again := c.config("n1")
	again.Mesh.Bind = at.Mesh
	c.start(again)
	if err := <-joined; err != nil {
		t.Fatal(err)
	}

	wrong := c.config("n3")
	wrong.Join, wrong.Token, wrong.JoinWait = []string{at.Mesh}, strings.TrimSpace(token), time.Hour
	wrong.Name = "n2"
	if _, err := c.open(wrong); err == nil || !isFinal(err) {
		t.Errorf("with a name that is taken: %v", err)
	}
	gone := c.config("n4")
	gone.Join, gone.Token, gone.JoinWait = []string{"127.0.0.1:1"}, token, 100*time.Millisecond
	if _, err := c.open(gone); err == nil || isFinal(err) {
		t.Errorf("with nobody there: %v", err)
	}
}

func portOf(t *testing.T, addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDefaultName(t *testing.T) {
	if name := defaultName(wire.NodeID(0x1234abcd)); !strings.HasSuffix(name, "-abcd") {
		t.Error(name)
	}
}
