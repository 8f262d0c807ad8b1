package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub connects layers in memory.
type hub struct {
	mu     sync.Mutex
	layers map[raft.ServerAddress]*layer
}

func newHub() *hub { return &hub{layers: make(map[raft.ServerAddress]*layer)} }

type layer struct {
	hub    *hub
	addr   raft.ServerAddress
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *hub) layer(id wire.NodeID) *layer {
	l := &layer{hub: h, addr: raft.ServerAddress(id.String()), accept: make(chan net.Conn), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.layers[l.addr] = l
	return l
}

func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *layer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *layer) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} } // never to be dialled

func (l *layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.hub.mu.Lock()
	to := l.hub.layers[addr]
	l.hub.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("nobody is called %q", addr)
	}
	a, b := net.Pipe()
	select {
	case to.accept <- b:
		return a, nil
	case <-to.closed:
	case <-l.closed:
	case <-time.After(timeout):
	}
	_, _ = a.Close(), b.Close()
	return nil, errors.New("connection refused")
}

// sumFSM adds numbers up, and remembers how often it was applied.
type sumFSM struct {
	mu         sync.Mutex
	sum, n     uint64
	restoreErr error
	gate       chan struct{} // Apply waits for it if not nil
}

func (f *sumFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *sumFSM) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			f.sum += binary.BigEndian.Uint64(l.Data)
			f.n++
			out[i] = f.sum
		}
	}
	return out
}

type sumSnap [16]byte

func (f *sumFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var s sumSnap
	binary.BigEndian.PutUint64(s[:], f.sum)
	binary.BigEndian.PutUint64(s[8:], f.n)
	return s, nil
}

func (s sumSnap) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(s[:])
	return errors.Join(err, sink.Close())
}
func (sumSnap) Release() {}

func (f *sumFSM) Restore(r io.ReadCloser) error {
	var s sumSnap
	if _, err := io.ReadFull(r, s[:]); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum, f.n = binary.BigEndian.Uint64(s[:]), binary.BigEndian.Uint64(s[8:])
	return f.restoreErr
}

func (f *sumFSM) read() (sum, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sum, f.n
}

func num(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// node is a member under test.
type node struct {
	*Store
	id    wire.NodeID
	fsm   *sumFSM
	fatal chan error // what Fatal was told
}

type option func(*Config)

// open opens a member, which must succeed; tryOpen may fail.
func open(t testing.TB, h *hub, id wire.NodeID, dir string, opts ...option) *node {
	t.Helper()
	n, err := tryOpen(t, h, id, dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryOpen(t testing.TB, h *hub, id wire.NodeID, dir string, opts ...option) (*node, error) {
	n := &node{id: id, fsm: new(sumFSM), fatal: make(chan error, 8)}
	cfg := Config{
		Dir: dir, Local: id, FSM: n.fsm, Layer: h.layer(id), Fatal: func(err error) { n.fatal <- err },
		Heartbeat: 100 * time.Millisecond, Election: 100 * time.Millisecond, CommitInterval: 5 * time.Millisecond, RPCTimeout: time.Second,
	}
	if os.Getenv("STORE_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", uint64(id))
	}
	for _, o := range opts {
		o(&cfg)
	}
	var err error
	if n.Store, err = Open(cfg); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = n.Close() })
	return n, nil
}

// patience is far above what anything takes, also with the race detector on a busy machine.
const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := newPoll()
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func waitLeads(t testing.TB, n *node) {
	t.Helper()
	var l Leadership
	for !l.Leading {
		var err error
		if l, err = n.WaitLeadership(within(t), l); err != nil {
			t.Fatal(err)
		}
	}
}

func mustPropose(t testing.TB, n *node, v uint64) (sum, index uint64) {
	t.Helper()
	r, index, err := n.Propose(within(t), num(v))
	if err != nil {
		t.Fatal(err)
	}
	return r.(uint64), index
}

// single is a cluster of one, which leads.
func single(t testing.TB, dir string, opts ...option) *node {
	t.Helper()
	n := open(t, newHub(), 1, dir, opts...)
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, n)
	return n
}

// cluster is three voters, the first of which leads.
func cluster(t testing.TB, h *hub, opts ...option) []*node {
	t.Helper()
	var nodes []*node
	for id := wire.NodeID(1); id <= 3; id++ {
		nodes = append(nodes, open(t, h, id, t.TempDir(), opts...))
	}
	lead := nodes[0]
	if err := lead.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, lead)
	for _, n := range nodes[1:] {
		if err := lead.AddNonvoter(within(t), n.id); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the joiner has caught up", func() bool { return n.CommitIndex() >= lead.CommitIndex() })
		if err := lead.Promote(within(t), n.id); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func leaderOf(t testing.TB, nodes ...*node) *node {
	t.Helper()
	var lead *node
	eventually(t, "somebody leads and the others know", func() bool {
		lead = nil
		for _, n := range nodes {
			if n.IsLeader() {
				lead = n
			}
		}
		for _, n := range nodes {
			if lead == nil || n.Leadership().Leader != lead.id {
				return false
			}
		}
		return true
	})
	return lead
}

func others(nodes []*node, not *node) (r []*node) {
	for _, n := range nodes {
		if n != not {
			r = append(r, n)
		}
	}
	return r
}
