package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// recorder is a state machine that remembers what it applied.
type recorder struct {
	mu  sync.Mutex
	log []string
}

func (r *recorder) Apply(l *raft.Log) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, string(l.Data))
	return nil
}

func (r *recorder) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.log {
		if l == s {
			return true
		}
	}
	return false
}

func (r *recorder) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("not needed here") }
func (r *recorder) Restore(rc io.ReadCloser) error      { return rc.Close() }

type raftNode struct {
	mesh *Mesh
	fsm  *recorder
	raft *raft.Raft
	tr   *raft.NetworkTransport
}

func startRaft(t *testing.T, m *Mesh, members []wire.NodeID) *raftNode {
	t.Helper()
	n := &raftNode{mesh: m, fsm: &recorder{}}
	quiet := hclog.New(&hclog.LoggerOptions{Output: io.Discard})
	n.tr = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.RaftLayer(), MaxPool: 3, MaxRPCsInFlight: 1, Timeout: 2 * time.Second, Logger: quiet,
	})
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(m.Self().String())
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	conf.Logger = quiet
	store := raft.NewInmemStore()
	snaps := raft.NewInmemSnapshotStore()
	var servers []raft.Server
	for _, id := range members {
		servers = append(servers, raft.Server{ID: raft.ServerID(id.String()), Address: raft.ServerAddress(id.String())})
	}
	err := raft.BootstrapCluster(conf, store, store, snaps, n.tr, raft.Configuration{Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	n.raft, err = raft.NewRaft(conf, n.fsm, store, store, snaps, n.tr)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *raftNode) stop(t *testing.T) {
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	if err := n.tr.Close(); err != nil {
		t.Error(err)
	}
	closeMesh(t, n.mesh)
}

func TestRaftThroughElections(t *testing.T) {
	c := newCluster(t)
	ids := []wire.NodeID{1, 2, 3}
	nodes := map[wire.NodeID]*raftNode{}
	for _, id := range ids {
		nodes[id] = startRaft(t, c.start(id), ids)
	}
	defer func() {
		for _, n := range nodes {
			n.stop(t)
		}
	}()
	apply := func(s string) *raftNode {
		t.Helper()
		var leader *raftNode
		waitFor(t, "a leader that applies "+s, func() bool {
			for _, n := range nodes {
				if n.raft.State() == raft.Leader && n.raft.Apply([]byte(s), time.Second).Error() == nil {
					leader = n
					return true
				}
			}
			return false
		})
		for id, n := range nodes {
			waitFor(t, "applied by "+id.String(), func() bool { return n.fsm.has(s) })
		}
		return leader
	}
	first := apply("one")
	if first.tr.LocalAddr() != raft.ServerAddress(first.mesh.Self().String()) {
		t.Errorf("raft thinks it is at %v", first.tr.LocalAddr())
	}
	first.stop(t)
	delete(nodes, first.mesh.Self())
	second := apply("two")
	if second == first {
		t.Error("the dead one leads")
	}
	big := make([]byte, 1<<20)
	if err := second.raft.Apply(big, time.Second).Error(); err != nil {
		t.Errorf("an entry of 1 MiB: %v", err)
	}
}

func TestRaftStreamIsANetConn(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1), c.start(2)
	out, err := a.RaftLayer().Dial(raft.ServerAddress(wire.NodeID(2).String()), time.Second*5)
	if err != nil {
		t.Fatal(err)
	}
	in, err := b.RaftLayer().Accept()
	if err != nil {
		t.Fatal(err)
	}
	if out.RemoteAddr().String() != in.LocalAddr().String() || in.RemoteAddr().String() != wire.NodeID(1).String() {
		t.Errorf("%v → %v, %v", out.LocalAddr(), out.RemoteAddr(), in.RemoteAddr())
	}
	if _, err := out.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := in.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	_ = in.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	var ne net.Error
	if _, err := in.Read(buf); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("read past its deadline: %v", err)
	}
	_ = in.SetReadDeadline(time.Now().Add(testWait))
	// A Write that nobody reads is stuck; Close cuts it off.
	stuck := make(chan error, 1)
	go func() {
		_, err := out.Write(make([]byte, 64<<20))
		stuck <- err
	}()
	if _, err := io.ReadFull(in, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-stuck:
		if err == nil {
			t.Error("64 MiB went nowhere without an error")
		}
	case <-time.After(testWait):
		t.Error("Close left a Write stuck")
	}
	for err = nil; err == nil; {
		_, err = in.Read(buf)
	}
	if errors.As(err, &ne) && ne.Timeout() {
		t.Error("the other end does not notice the close")
	}
	for _, bad := range []raft.ServerAddress{"127.0.0.1:1", "0000000000000009", ""} {
		if _, err := a.RaftLayer().Dial(bad, time.Second); err == nil {
			t.Errorf("dialled %q", bad)
		}
	}
	_ = in.Close()
	_ = a.RaftLayer().Close()
	if _, err := a.RaftLayer().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

// AwaitRaft waits through failed attempts until the member is there, does not wait for what is no member, and ends with its
// context and with the mesh.
func TestAwaitRaft(t *testing.T) {
	c := newCluster(t)
	a := c.start(1)
	if err := a.AwaitRaft(testContext(t), 9); !errors.Is(err, ErrNotMember) {
		t.Errorf("for no member: %v", err)
	}
	c.dir.set(2, "127.0.0.1:1") // nobody answers there
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.AwaitRaft(over, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	came := make(chan error, 1)
	go func() { came <- a.AwaitRaft(testContext(t), 2) }()
	c.start(2)
	if err := <-came; err != nil {
		t.Errorf("the member came up: %v", err)
	}
	if err := a.AwaitRaft(over, 2); err != nil {
		t.Errorf("for one that is connected: %v", err)
	}
	c.dir.remove(2)
	a.Drop(2)
	if err := a.AwaitRaft(testContext(t), 2); !errors.Is(err, ErrNotMember) {
		t.Errorf("for one that was removed: %v", err)
	}
}
