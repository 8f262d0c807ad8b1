package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/node"
	"imroute/node/admin"
)

// simulation is a cluster of whole nodes in this process, in virtual time and on a network in memory. Their disks are real.
type simulation struct {
	t     *testing.T
	seed  uint64
	net   *simNet
	c     *Cluster // what a Workload needs of one: history, addresses, admin clients
	nodes []*simNode
	ctx   context.Context
	token string

	mu    sync.Mutex
	story []string // what was done to the cluster, with times
	wrong []string // what no fault explains
}

// simNode is one node and what is left of it while it is down. Its fields belong to the goroutine that torments processes.
type simNode struct {
	s         *simulation
	i         int
	name      string
	disk      int // counts data folders: a node that lost its own is another member under the same name
	n         *node.Node
	log       *tailLog
	ended     chan struct{} // closed when the node ended, by itself or not; nil: it was never started
	left      bool          // it left the cluster: valid after ended
	expecting bool          // to end. Guarded by s.mu
	leaving   bool          // it was asked to leave. Guarded by s.mu
}

// simTimings are FastTimings with more room for a slow network: no time passes but what the network takes.
func simTimings() Timings { return FastTimings() }

func newSimulation(t *testing.T, seed uint64, now func() time.Duration) *simulation {
	random := rand.New(rand.NewPCG(seed, 1))
	base := 20*time.Microsecond + time.Duration(random.Int64N(int64(2*time.Millisecond)))
	h := newHistory()
	h.now = now
	s := &simulation{
		t: t, seed: seed, ctx: t.Context(), net: newSimNet(3, base, random),
		c: &Cluster{Timings: simTimings(), Seed: seed, dir: simDir(t), history: h},
	}
	s.c.dial, s.c.Net = s.net.dial, s.net.paths
	for i := range 3 {
		n := &simNode{s: s, i: i, name: fmt.Sprintf("n%d", i+1), log: &tailLog{}}
		shown := &Node{Name: n.name, Index: i, c: s.c, ClientTCP: n.addr(7901), ClientWS: n.addr(7902), AdminAddr: n.addr(7903), inProcess: n.running}
		var err error
		shown.admin, err = admin.NewClient(admin.ClientConfig{Addrs: []string{shown.AdminAddr}, DialContext: s.net.dial, DialTimeout: time.Second, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		s.nodes, s.c.Nodes = append(s.nodes, n), append(s.c.Nodes, shown)
	}
	return s
}

// simDir is a folder where syncing costs little, if the machine has one.
func simDir(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "imroute-sim-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func (n *simNode) addr(port int) string {
	return net.JoinHostPort(simAddr(n.i).String(), fmt.Sprint(port))
}

// label names what a disk holds: the member, of which there may be several with one name in a run.
func (n *simNode) label() string { return fmt.Sprintf("%s.%d", n.name, n.disk) }

func (n *simNode) journal(label string) string { return filepath.Join(n.s.c.dir, label+".journal") }

func (n *simNode) config() node.Config {
	t := n.s.c.Timings
	b := func(port int) node.Bind { return node.Bind{Bind: n.addr(port)} }
	return node.Config{
		Name: n.name, Data: filepath.Join(n.s.c.dir, n.label()), Dev: true, Mesh: b(7900), ClientTCP: b(7901), ClientWS: b(7902), Admin: b(7903),
		Timings: node.Timings{Heartbeat: t.Heartbeat, Election: t.Election, Lease: t.Lease, Margin: t.Margin, Renew: t.Renew, Quiet: t.Quiet},
		Idle:    t.Idle, TakeoverBurst: 1_000_000, CheckEvery: 5 * time.Second, MinFreeDisk: 1, Journal: n.journal(n.label()), Host: n.s.net.host(n.i),
	}
}

// note keeps a line of what happens.
func (s *simulation) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.story = append(s.story, fmt.Sprintf("%10.3fs ", s.since().Seconds())+fmt.Sprintf(format, args...))
}

func (s *simulation) blame(format string, args ...any) {
	s.note("WRONG: "+format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// simEpoch is when the time of every bubble begins.
var simEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *simulation) since() time.Duration { return time.Since(simEpoch) }

// begin founds the cluster and waits until all three vote.
func (s *simulation) begin() {
	t := s.t
	if err := s.nodes[0].start(func(c *node.Config) { c.Bootstrap = true }); err != nil {
		t.Fatal(err)
	}
	s.nodes[0].awaitReady()
	token, err := s.c.Nodes[0].admin.CreateToken(s.ctx, 24*time.Hour)
	if err != nil {
		t.Fatal("token:", err)
	}
	s.token = token.Token
	var wg sync.WaitGroup
	for _, n := range s.nodes[1:] {
		wg.Go(func() {
			if err := n.start(n.joining); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.awaitWhole()
}

func (n *simNode) joining(c *node.Config) {
	c.Token = n.s.token
	for _, o := range n.s.nodes {
		if o != n {
			c.Join = append(c.Join, o.addr(7900))
		}
	}
}

// start runs the node with the disk it has.
func (n *simNode) start(change func(*node.Config)) error {
	cfg := n.config()
	if change != nil {
		change(&cfg)
	}
	nd, err := node.New(cfg, slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: simLogLevel()})))
	if err != nil {
		return err
	}
	n.s.note("start %s", n.label())
	n.s.c.history.process(n.label(), ProcessStart)
	n.s.net.plug(n.i)
	n.expect(false)
	ctx, cancel := context.WithTimeout(n.s.ctx, 15*time.Second)
	defer cancel()
	if err := nd.Open(ctx); err != nil {
		n.s.net.unplug(n.i)
		return fmt.Errorf("starting %s: %w", n.label(), err)
	}
	n.n, n.ended, n.left = nd, make(chan struct{}), false
	go func(ended chan struct{}) {
		defer close(ended)
		err := nd.Wait()
		switch {
		case n.expected():
		case n.asked() && err != nil || err == nil: // whether or not it has heard that it is out
			n.left = true
		case err != nil:
			n.s.blame("%s ended by itself: %v", n.label(), err)
		}
	}(n.ended)
	return nil
}

func (n *simNode) expect(v bool) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.expecting = v
}

func (n *simNode) expected() bool {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	return n.expecting
}

// askLeave notes that the node was asked to leave: from then on it may, even if it was started anew since.
func (n *simNode) askLeave(v bool) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.leaving = v
}

func (n *simNode) asked() bool {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	return n.leaving
}

func (n *simNode) running() bool {
	if n.ended == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// crash takes the node off the network before it knows, and then ends it. What it does on its disk while it ends is what it
// could have done before.
func (n *simNode) crash() {
	n.s.note("crash %s", n.label())
	n.s.c.history.process(n.label(), ProcessKill)
	n.s.net.unplug(n.i)
	n.close()
}

// stop ends the node in order.
func (n *simNode) stop() {
	n.s.note("stop %s", n.label())
	n.s.c.history.process(n.label(), ProcessStop)
	n.close()
	n.s.net.unplug(n.i)
}

func (n *simNode) close() {
	n.expect(true)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stacks := make(chan string, 1)
	late := time.AfterFunc(20*time.Second, func() {
		var b bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		stacks <- b.String()
	})
	defer late.Stop()
	// That connections were cut which did not end in time is no fault: an unused one to the admin API counts as busy for 5 s.
	if err := n.n.Close(ctx); ctx.Err() != nil {
		n.s.blame("%s does not end: %v\n%s", n.label(), err, <-stacks)
	} else if err != nil {
		n.s.note("closing %s: %v", n.label(), err)
	}
	<-n.ended
}

// ensure brings the node up whatever became of it: a member that left comes back as a new one.
func (n *simNode) ensure() error {
	if n.running() {
		return nil
	}
	if n.left {
		n.stop()
		n.disk++
		n.askLeave(false)
	}
	var change func(*node.Config)
	if n.disk > 0 {
		change = n.joining // harmless for a member
	}
	err := n.start(change)
	if err != nil && n.asked() {
		n.left = true // its start says that it is out
	}
	return err
}

func (n *simNode) awaitReady() {
	select {
	case <-n.n.Ready():
	case <-time.After(startWait):
		n.s.t.Fatalf("%s was not ready in time", n.label())
	}
}

// awaitWhole waits until every node takes clients and votes.
func (s *simulation) awaitWhole() {
	s.t.Helper()
	s.c.Await(s.t, "a whole cluster", startWait, func(ctx context.Context) error {
		for i, n := range s.nodes {
			if err := n.ensure(); err != nil {
				return err
			}
			if r, err := s.c.Nodes[i].admin.Ready(ctx); err != nil {
				return err
			} else if !r.Ready {
				if !n.asked() && slices.Contains(r.Reasons, "draining") { // its drain could not be cancelled while faults lasted
					_, err := s.c.Nodes[i].admin.Drain(ctx, n.name, true)
					return errors.Join(err, fmt.Errorf("%s was draining", n.name))
				}
				return fmt.Errorf("%s is not ready: %s", n.name, strings.Join(r.Reasons, ", "))
			}
		}
		p, err := s.c.Nodes[0].admin.RaftPeers(ctx)
		if err != nil {
			return err
		}
		voters := 0
		for _, v := range p.Peers {
			if v.Voter {
				voters++
			}
		}
		if voters != len(s.nodes) {
			return fmt.Errorf("%d voters", voters)
		}
		return nil
	})
}

// end stops everything; the bubble must be empty afterwards.
func (s *simulation) end() {
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() {
			if n.n != nil {
				n.close()
			}
			s.c.Nodes[i].admin.Close()
		})
	}
	wg.Wait()
}

// evidence reads the journals of all members there were.
func (s *simulation) evidence() (Evidence, error) {
	e := Evidence{History: s.c.history.snapshot(), Timings: s.c.Timings, Journals: map[string][]JournalLine{}}
	for _, n := range s.nodes {
		for disk := range n.disk + 1 {
			label := fmt.Sprintf("%s.%d", n.name, disk)
			lines, err := readJournal(n.journal(label))
			if err != nil {
				return e, err
			}
			e.Journals[label] = lines
		}
	}
	return e, nil
}

// tailLog keeps the end of a log.
type tailLog struct {
	mu    sync.Mutex
	lines []string
}

const tailLines = 300

func (l *tailLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= 2*tailLines {
		l.lines = append(l.lines[:0], l.lines[len(l.lines)-tailLines:]...)
	}
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *tailLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-tailLines):], "")
}

func simLogLevel() slog.Level {
	if os.Getenv("IMROUTE_SIM_DEBUG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// agree waits until all nodes answer with the same table.
func (s *simulation) agree() { s.c.AwaitAgreement(s.t, startWait) }
