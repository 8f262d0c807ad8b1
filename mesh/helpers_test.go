package mesh

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testWait = 15 * time.Second // generous: the machine may be busy

// directory is the membership of a test cluster, shared by its meshes.
type directory struct {
	mu    sync.Mutex
	addrs map[wire.NodeID]string
}

func (d *directory) set(id wire.NodeID, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[id] = addr
}

func (d *directory) remove(id wire.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.addrs, id)
}

func (d *directory) lookup(id wire.NodeID) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.addrs[id]
	return a, ok
}

// cluster makes meshes with certificates of one CA.
type cluster struct {
	t   *testing.T
	ca  *CA
	dir *directory
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ca, err := NewCA(0xc1)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, ca, &directory{addrs: map[wire.NodeID]string{}}}
}

func (c *cluster) identity(id wire.NodeID) *Identity {
	c.t.Helper()
	return issueIdentity(c.t, c.ca, id, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

func issueIdentity(t *testing.T, ca *CA, id wire.NodeID, from, until time.Time) *Identity {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.issue(id, key.Public(), from, until)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	ident, err := LoadIdentity(cert, keyPEM, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return ident
}

// start opens a mesh, enters its address into the directory and closes it with the test.
func (c *cluster) start(id wire.NodeID, change ...func(*Config, *Mesh)) *Mesh {
	c.t.Helper()
	cfg := Config{
		Bind: "127.0.0.1:0", Identity: c.identity(id), ResetKey: [32]byte{1, byte(id)}, Members: c.dir.lookup,
		Logger: slog.New(slog.NewTextHandler(testLog{c.t}, nil)).With("node", uint64(id)), JoinRate: 1000,
	}
	for _, f := range change {
		f(&cfg, nil)
	}
	m, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Handle(wire.CallAdmin, echo)
	m.Handle(wire.CallRenew, echo)
	for _, f := range change {
		f(&Config{}, m)
	}
	if err := m.Open(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { closeMesh(c.t, m) })
	c.dir.set(id, m.Addr().String())
	return m
}

func handle(kind wire.CallKind, h Handler) func(*Config, *Mesh) {
	return func(_ *Config, m *Mesh) {
		if m != nil {
			m.Handle(kind, h)
		}
	}
}

func configure(f func(*Config)) func(*Config, *Mesh) {
	return func(c *Config, m *Mesh) {
		if m == nil {
			f(c)
		}
	}
}

func echo(_ context.Context, _ wire.NodeID, req []byte) ([]byte, error) { return req, nil }

func closeMesh(t *testing.T, m *Mesh) {
	t.Helper()
	begun := time.Now()
	if err := m.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("close took %v", d)
	}
}

// testLog sends log lines to the test's output; lines after the test's end are nobody's, as Close ended the goroutines.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(testWait)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", testWait, what)
		}
	}
}

func mustCall(t *testing.T, from *Mesh, to wire.NodeID, kind wire.CallKind, text string) {
	t.Helper()
	b, err := from.Call(testContext(t), to, kind, []byte(text))
	if err != nil || string(b) != text {
		t.Fatalf("call from %v to %v: %q, %v", from.self, to, b, err)
	}
}

// deadPort is a loopback address where nobody answers.
func deadPort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}
