package nodetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/node/admin"
)

// Timings are those of the nodes' leases and of Raft; see node.Timings.
type Timings struct {
	Heartbeat, Election, Lease, Margin, Renew, Quiet, Idle time.Duration
}

// FastTimings make failures show within seconds and still leave slow machines some room.
func FastTimings() Timings {
	return Timings{
		Heartbeat: 200 * time.Millisecond, Election: 200 * time.Millisecond, Lease: 2 * time.Second, Margin: 150 * time.Millisecond,
		Renew: 200 * time.Millisecond, Quiet: 4 * time.Second, Idle: 2 * time.Second,
	}
}

// CalmTimings are near those that a node has by default: what is done in order must go unnoticed, also on a machine that is
// too busy for FastTimings, where leadership may change at any time.
func CalmTimings() Timings {
	return Timings{
		Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, Lease: 4 * time.Second, Margin: 250 * time.Millisecond,
		Renew: 300 * time.Millisecond, Quiet: 8 * time.Second, Idle: 2 * time.Second,
	}
}

// DefaultTimings are those that a node has if it is told none.
func DefaultTimings() Timings {
	return Timings{
		Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, Lease: 4 * time.Second, Margin: 250 * time.Millisecond,
		Renew: 500 * time.Millisecond, Quiet: 10 * time.Second, Idle: 30 * time.Second,
	}
}

// Options of a cluster. Zero values mean the default named.
type Options struct {
	Nodes   int      // default 3
	Timings Timings  // default FastTimings()
	Seed    uint64   // of everything random in the harness; default: from IMROUTE_SEED, else random. It is logged
	Args    []string // more flags of "imctl node start", for every node

	Spare      int      // so many more nodes are prepared and do not run: they have not joined yet
	DiskBytes  int64    // each node's data folder is a file system of its own, in memory and this large; see NeedsDisks. 0: none
	Namespaces bool     // each node runs in a network namespace of its own, and Cluster.Spaces stands for Net; see NeedsNamespaces
	Env        []string // more variables, "name=value", for every node
	Binary     string   // imctl to run; default Binary(t)
}

// Cluster is some nodes that found each other. Its methods are for the test's own goroutine, unless they say otherwise.
type Cluster struct {
	Nodes   []*Node
	Net     *Network // nil with Options.Namespaces
	Spaces  *Spaces  // nil without
	Timings Timings
	Seed    uint64

	dir     string
	args    []string
	env     []string
	history *History
	dial    func(ctx context.Context, network, addr string) (net.Conn, error) // of clients; nil: a net.Dialer
}

// startWait bounds how long a cluster or a node may take to come up. Generous: it is waited for, not slept.
const startWait = 40 * time.Second

// Start brings a cluster up and waits until every node takes clients and votes. It ends with the test; if the test failed,
// the last lines of every node's log are shown.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	binary := o.Binary
	if binary == "" {
		binary = Binary(t)
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Timings == (Timings{}) {
		o.Timings = FastTimings()
	}
	if o.Seed == 0 {
		o.Seed = seedOf(t)
	}
	t.Logf("seed %d (IMROUTE_SEED=%d runs it again)", o.Seed, o.Seed)
	dir, err := os.MkdirTemp("", "imroute-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Timings: o.Timings, Seed: o.Seed, dir: dir, args: o.Args, env: o.Env, history: newHistory()}
	t.Cleanup(func() { c.end(t) })

	var inner []netip.AddrPort
	for i := range o.Nodes + o.Spare {
		n := &Node{
			Name: "n" + strconv.Itoa(i+1), Index: i, c: c, binary: binary, data: filepath.Join(dir, "n"+strconv.Itoa(i+1)),
			mesh: freeAddr(t, "udp"), ClientTCP: freeAddr(t, "tcp"), ClientWS: freeAddr(t, "tcp"), AdminAddr: freeAddr(t, "tcp"),
		}
		if n.admin, err = admin.NewClient(admin.ClientConfig{Addrs: []string{n.AdminAddr}, DialTimeout: time.Second, Timeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
		c.Nodes = append(c.Nodes, n)
		inner = append(inner, netip.MustParseAddrPort(n.mesh))
		if o.DiskBytes > 0 {
			if n.disk, err = mountDisk(n.data, o.DiskBytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	if o.Namespaces {
		c.Spaces, err = newSpaces(c.Nodes)
	} else {
		c.Net, err = newNetwork(inner, o.Seed)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Nodes[0].begin(t, "--bootstrap")
	c.Nodes[0].AwaitReady(t)
	if o.Nodes > 1 {
		token := c.Token(t, c.Nodes[0])
		for _, n := range c.Nodes[1:o.Nodes] {
			n.begin(t, "--join", c.Nodes[0].Mesh(), "--token", token)
		}
		for _, n := range c.Nodes[1:o.Nodes] {
			n.AwaitReady(t)
		}
	}
	c.AwaitVoters(t, min(o.Nodes, 3))
	return c
}

// Token makes a join token at a node.
func (c *Cluster) Token(t testing.TB, at *Node) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	token, err := at.admin.CreateToken(ctx, time.Hour)
	if err != nil {
		t.Fatal("join token:", err)
	}
	return token.Token
}

// AwaitVoters waits until there are that many, not counting any that is no member any more: Raft's configuration follows the
// table a little later.
func (c *Cluster) AwaitVoters(t testing.TB, voters int) {
	t.Helper()
	at := c.running(t)
	c.Await(t, fmt.Sprintf("%d voters", voters), startWait, func(ctx context.Context) error {
		p, err := at.admin.RaftPeers(ctx)
		if err != nil {
			return err
		}
		nodes, err := at.admin.Nodes(ctx)
		if err != nil {
			return err
		}
		have, stale := 0, 0
		for _, peer := range p.Peers {
			switch {
			case !peer.Voter:
			case slices.ContainsFunc(nodes, func(n admin.Node) bool { return n.ID == peer.ID }):
				have++
			default:
				stale++
			}
		}
		if have != voters || stale > 0 {
			return fmt.Errorf("there are %d, and %d that are no members", have, stale)
		}
		return nil
	})
}

// running is a node that runs.
func (c *Cluster) running(t testing.TB) *Node {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Running() && !n.paused {
			return n
		}
	}
	t.Fatal("no node runs")
	return nil
}

// seedOf takes the seed from the environment, so that a run can be repeated.
func seedOf(t testing.TB) uint64 {
	v := os.Getenv("IMROUTE_SEED")
	if v == "" {
		return rand.Uint64()>>32 + 1
	}
	seed, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("IMROUTE_SEED %q: %v", v, err)
	}
	return seed
}

// given are the ports that freeAddr has given out. It never gives one twice, for nobody may listen there yet.
var given sync.Map

// freeAddr finds a port outside the range from which the kernel takes the ports of outgoing connections, for one of a node that
// is down must not be taken by a client meanwhile, and outside the one from which stories take theirs (20000 and up).
func freeAddr(t testing.TB, network string) string {
	t.Helper()
	for range 200 {
		port := 10_000 + rand.IntN(10_000)
		if _, loaded := given.LoadOrStore(port, true); loaded {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if network == "udp" {
			if l, err := net.ListenPacket("udp", addr); err == nil {
				_ = l.Close()
				return addr
			}
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port found")
	return ""
}

// poll is the time between two looks at a condition.
const poll = 20 * time.Millisecond

// Await waits until f returns nil and ends the test if that takes longer than timeout. f's context bounds one look.
func (c *Cluster) Await(t testing.TB, what string, timeout time.Duration, f func(ctx context.Context) error) {
	t.Helper()
	if err := awaitErr(timeout, f); err != nil {
		t.Fatalf("waited %v for %s: %v", timeout, what, err)
	}
}

func awaitErr(timeout time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		look, stop := context.WithTimeout(ctx, 2*time.Second)
		err := f(look)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Wait lets d pass: the length of a fault, not a way to wait for something.
func (c *Cluster) Wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// Leader waits until a node that runs leads and returns it.
func (c *Cluster) Leader(t testing.TB) *Node {
	t.Helper()
	var leader *Node
	c.Await(t, "a leader", startWait, func(ctx context.Context) error {
		for _, n := range c.Nodes {
			if !n.Running() || n.paused {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			d, err := n.admin.Node(ctx, n.Name)
			cancel()
			if err == nil && d.Detail != nil && d.Detail.RaftState == admin.RoleLeader {
				leader = n
				return nil
			}
		}
		return errors.New("no node says that it leads")
	})
	return leader
}

// Follower waits for a leader and returns a node that is not it: the one with the most clients.
func (c *Cluster) Follower(t testing.TB) *Node {
	t.Helper()
	leader := c.Leader(t)
	have := c.history.clients()
	var most *Node
	for _, n := range c.Nodes {
		if n != leader && n.Running() && (most == nil || have[n.Name] > have[most.Name]) {
			most = n
		}
	}
	if most == nil {
		t.Fatal("there is no follower")
	}
	return most
}

// AwaitSpread waits until every node that runs has clients of the workload: a fault of a node without any proves little.
func (c *Cluster) AwaitSpread(t testing.TB) {
	t.Helper()
	c.Await(t, "clients at every node", startWait, func(context.Context) error {
		have := c.history.clients()
		for _, n := range c.Nodes {
			if n.Running() && have[n.Name] == 0 {
				return fmt.Errorf("%s has none", n.Name)
			}
		}
		return nil
	})
}

// Others are all nodes but n, without those that never joined.
func (c *Cluster) Others(n *Node) []*Node {
	var out []*Node
	for _, o := range c.Nodes {
		if o != n && o.run != nil {
			out = append(out, o)
		}
	}
	return out
}

// AwaitAgreement waits until all nodes that run, and nobody else, are members and answer with the same table.
func (c *Cluster) AwaitAgreement(t testing.TB, timeout time.Duration) {
	t.Helper()
	at, members := c.running(t), 0
	for _, n := range c.Nodes {
		if n.Running() {
			members++
		}
	}
	c.Await(t, "the same table everywhere", timeout, func(ctx context.Context) error {
		r, err := at.admin.VerifyTables(ctx)
		if err != nil {
			return err
		}
		if !r.Agree || len(r.Nodes) != members {
			return fmt.Errorf("tables: %+v", r)
		}
		return nil
	})
}

// evidence is what is known of the run so far. Journals are read as they are.
func (c *Cluster) evidence() (Evidence, error) {
	e := Evidence{History: c.history.snapshot(), Timings: c.Timings, Journals: map[string][]JournalLine{}}
	for _, n := range c.Nodes {
		for _, who := range n.identities() {
			lines, err := readJournal(n.c.journal(who))
			if err != nil {
				return e, err
			}
			e.Journals[who] = lines
		}
	}
	return e, nil
}

// keep writes the history down beside the journals, if they are to stay.
func (c *Cluster) keep(t testing.TB, e *Evidence) {
	if os.Getenv("IMROUTE_KEEP") == "" {
		return
	}
	b, err := json.Marshal(e.History)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "history.json"), b, 0o600)
	}
	if err != nil {
		t.Log("keeping the history:", err)
	}
}

// end stops everything and says what went wrong in the nodes.
func (c *Cluster) end(t testing.TB) {
	for _, n := range c.Nodes {
		n.finish()
		n.admin.Close()
		if why := n.complaints(); why != "" {
			t.Errorf("node %s: %s", n.Name, why)
		}
	}
	if c.Net != nil {
		c.Net.close()
	}
	if c.Spaces != nil {
		if err := c.Spaces.close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	}
	for _, n := range c.Nodes {
		if err := n.disk.close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	}
	if t.Failed() {
		for _, n := range c.Nodes {
			t.Logf("--- log of %s, its end ---\n%s", n.Name, strings.Join(n.logTail(60), "\n"))
		}
		if os.Getenv("IMROUTE_KEEP") != "" {
			t.Logf("logs, journals and data are kept in %s", c.dir)
			return
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Logf("removing %s: %v", c.dir, err)
	}
}
