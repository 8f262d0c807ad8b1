package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

// Both sides dial at the same moment, many times over: they agree on one connection per kind, and it works.
func TestSimultaneousDialSettles(t *testing.T) {
	for range 8 {
		c := newCluster(t)
		a, b := c.start(1), c.start(2)
		var wg sync.WaitGroup
		for _, kind := range []wire.CallKind{wire.CallAdmin, wire.CallRenew} {
			wg.Go(func() { _, _ = a.Call(testContext(t), 2, kind, nil) })
			wg.Go(func() { _, _ = b.Call(testContext(t), 1, kind, nil) })
		}
		wg.Wait()
		waitFor(t, "one connection per kind, the same on both sides", func() bool { return agree(a, b) })
		for _, kind := range []wire.CallKind{wire.CallAdmin, wire.CallRenew} {
			mustCall(t, a, 2, kind, "from a")
			mustCall(t, b, 1, kind, "from b")
		}
		if !agree(a, b) {
			t.Error("connections changed after they had settled")
		}
		closeMesh(t, a)
		closeMesh(t, b)
	}
}

// agree says whether both sides hold the two ends of the same connections.
func agree(a, b *Mesh) bool {
	pa, pb := a.peer(b.self), b.peer(a.self)
	if pa == nil || pb == nil {
		return false
	}
	for k := range kinds {
		la, lb := pa.slots[k].current(), pb.slots[k].current()
		if la == nil || lb == nil || la.dialled == lb.dialled {
			return false
		}
		var keys [2][]byte
		for i, l := range []*link{la, lb} {
			state := l.conn.ConnectionState().TLS
			keys[i], _ = state.ExportKeyingMaterial("imroute test", nil, 16)
		}
		if len(keys[0]) == 0 || !bytes.Equal(keys[0], keys[1]) {
			return false
		}
	}
	return true
}

// The lower id's own dial hangs at an address that is out of date: the peer's connection must be let in meanwhile.
func TestIncomingBeatsHangingDial(t *testing.T) {
	c := newCluster(t)
	a := c.start(1, configure(func(c *Config) { c.DialTimeout = testWait }))
	c.dir.set(2, deadPort(t))
	a.Connect(2)
	waitFor(t, "a dial under way", func() bool {
		s := a.peer(2).slots[kindData]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.dialling
	})
	var b *Mesh
	func() {
		old, _ := c.dir.lookup(2)
		b = c.start(2)
		c.dir.set(2, old)
	}()
	begun := time.Now()
	mustCall(t, b, 1, wire.CallAdmin, "let me in")
	mustCall(t, a, 2, wire.CallAdmin, "welcome")
	if d := time.Since(begun); d > testWait/2 {
		t.Errorf("took %v", d)
	}
}

func TestPeerRestarts(t *testing.T) {
	for _, samePort := range []bool{true, false} {
		c := newCluster(t)
		type event struct {
			id wire.NodeID
			up bool
		}
		events := make(chan event, 64)
		a := c.start(1, configure(func(c *Config) { c.OnPeer = func(id wire.NodeID, up bool) { events <- event{id, up} } }))
		b := c.start(2)
		bind := "127.0.0.1:0"
		if samePort {
			bind = b.Addr().String()
		}
		mustCall(t, a, 2, wire.CallAdmin, "hello")
		mustCall(t, a, 2, wire.CallRenew, "hello")
		next := func(up bool) {
			t.Helper()
			select {
			case e := <-events:
				if e.id != 2 || e.up != up {
					t.Fatalf("told %+v, want up %v", e, up)
				}
			case <-time.After(testWait):
				t.Fatalf("not told: up %v", up)
			}
		}
		next(true)
		before := a.Peers()[0].Traffic
		closeMesh(t, b)
		next(false)
		c.start(2, configure(func(c *Config) { c.Bind = bind }))
		waitFor(t, "reconnected without being asked", func() bool { return a.Connected(2) })
		next(true)
		mustCall(t, a, 2, wire.CallAdmin, "again")
		mustCall(t, a, 2, wire.CallRenew, "again")
		if now := a.Peers()[0].Traffic; before.Sent == 0 || before.Received == 0 || now.Sent <= before.Sent || now.Received <= before.Received {
			t.Errorf("traffic of all connections went from %+v to %+v", before, now)
		}
	}
}

// A peer that is killed says no goodbye: its successor's stateless reset, by the persistent key, or its hello tells.
func TestKilledPeerIsNoticed(t *testing.T) {
	c := newCluster(t)
	a := c.start(1)
	b := c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "hello")
	mustCall(t, a, 2, wire.CallRenew, "hello")
	bind := b.Addr().String()
	old := a.peer(2).slots[kindData].current()
	// Cutting the socket first keeps the goodbye from leaving.
	_ = b.udp.Close()
	_ = b.Close()
	c.start(2, configure(func(c *Config) { c.Bind = bind }))
	waitFor(t, "new connections", func() bool {
		l := a.peer(2).slots[kindData].current()
		return a.Connected(2) && l != nil && l != old
	})
	mustCall(t, a, 2, wire.CallAdmin, "again")
	mustCall(t, a, 2, wire.CallRenew, "again")
}

func TestRefusals(t *testing.T) {
	type situation struct {
		name   string
		ident  func(c *cluster, t *testing.T) *Identity // of node 2; nil: a good one
		setup  func(c *cluster)
		is     error
		reason string // in the dialler's error
	}
	otherCA := func(clusterID uint64) func(*cluster, *testing.T) *Identity {
		return func(_ *cluster, t *testing.T) *Identity {
			ca, err := NewCA(clusterID)
			if err != nil {
				t.Fatal(err)
			}
			return issueIdentity(t, ca, 2, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		}
	}
	for _, s := range []situation{
		{"non-member", nil, func(c *cluster) { c.dir.remove(2) }, ErrNotMember, "not a member"},
		{"foreign CA", otherCA(0xc1), nil, ErrIdentity, "not issued by this cluster's CA"},
		{"expired", func(c *cluster, t *testing.T) *Identity {
			return issueIdentity(t, c.ca, 2, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
		}, nil, ErrIdentity, "expired at"},
		{"not yet valid", func(c *cluster, t *testing.T) *Identity {
			return issueIdentity(t, c.ca, 2, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
		}, nil, ErrIdentity, "clocks"},
		{"other cluster, same CA", func(c *cluster, t *testing.T) *Identity {
			ca := *c.ca
			ca.cluster = 0xc2
			return issueIdentity(t, &ca, 2, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		}, nil, ErrIdentity, "00000000000000c2"},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newCluster(t)
			log := &syncBuffer{}
			a := c.start(1, configure(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) }))
			ident := c.identity(2)
			if s.ident != nil {
				ident = s.ident(c, t)
			}
			// The dialler trusts the acceptor, so that it is the acceptor's word that is tested.
			ident.Roots = c.identity(2).Roots
			ident.Cluster = c.ca.cluster
			c.dir.set(2, deadPort(t))
			if s.setup != nil {
				s.setup(c)
			}
			_, err := Probe(testContext(t), a.Addr().String(), ident)
			if !errors.Is(err, s.is) || !strings.Contains(err.Error(), s.reason) {
				t.Errorf("dialler: %v", err)
			}
			if !strings.Contains(log.String(), s.reason) {
				t.Errorf("the acceptor's log does not say %q: %s", s.reason, log)
			}
			// And the other way round: the dialler refuses such an acceptor.
			if s.ident == nil {
				return
			}
			c.start(2, configure(func(cfg *Config) { cfg.Identity = ident }))
			_, err = a.Call(testContext(t), 2, wire.CallAdmin, nil)
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), s.reason) {
				t.Errorf("dialling it: %v", err)
			}
		})
	}
}

func TestImpostor(t *testing.T) {
	c := newCluster(t)
	a := c.start(1)
	x := c.start(3)
	c.dir.set(2, x.Addr().String())
	_, err := a.Call(testContext(t), 2, wire.CallAdmin, nil)
	if !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "node 0000000000000003 answers where node 0000000000000002 was expected") {
		t.Errorf("got %v", err)
	}
	mustCall(t, a, 3, wire.CallAdmin, "the real three")
}

func TestRemovedMemberIsCutOff(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1), c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "hello")
	mustCall(t, b, 1, wire.CallRenew, "hello")
	c.dir.remove(2)
	a.Drop(2)
	if a.Connected(2) || len(a.Peers()) != 0 {
		t.Error("still there")
	}
	waitFor(t, "the removed one notices", func() bool { return !b.Connected(1) })
	if _, err := a.Call(testContext(t), 2, wire.CallRenew, nil); !errors.Is(err, ErrNotMember) {
		t.Errorf("call to a removed member: %v", err)
	}
	_, err := b.Call(testContext(t), 1, wire.CallRenew, nil)
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrNotMember) {
		t.Errorf("call from a removed member: %v", err)
	}
	if p := a.peer(2); p != nil {
		t.Error("a removed member got in again")
	}
	// It may come back.
	c.dir.set(2, b.Addr().String())
	mustCall(t, b, 1, wire.CallRenew, "back")
}

func TestRenewedIdentityIsUsed(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1), c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "hello")
	renewed := c.identity(2)
	if err := b.UpdateIdentity(renewed); err != nil {
		t.Fatal(err)
	}
	if err := b.UpdateIdentity(c.identity(3)); !errors.Is(err, ErrIdentity) {
		t.Errorf("another node's certificate: %v", err)
	}
	mustCall(t, a, 2, wire.CallAdmin, "the old connection goes on")
	_ = a.peer(2).slots[kindData].current().conn.CloseWithError(closeBye, "")
	mustCall(t, a, 2, wire.CallAdmin, "and a new one is made")
	l, _ := a.peer(2).slots[kindData].get(testContext(t))
	if got := l.conn.ConnectionState().TLS.PeerCertificates[0].SerialNumber; got.Cmp(renewed.Cert.Leaf.SerialNumber) != 0 {
		t.Error("the old certificate is still shown")
	}
}

// Whatever strangers do, members go on.
func TestStrangersCostOnlyThemselves(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1), c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "before")
	good := a.peer(2).slots[kindData].current()

	raw, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for i := range 200 {
		_, _ = raw.Write(bytes.Repeat([]byte{byte(i * 37), byte(i)}, 1+i*3))
	}
	s, err := dialSocket(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	dial := func(alpn string, cert *tls.Certificate) (*quic.Conn, error) {
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}
		if cert != nil {
			conf.Certificates = []tls.Certificate{*cert}
		}
		return s.Dial(testContext(t), a.Addr(), conf, nil)
	}
	gone := func(what string, conn *quic.Conn, err error, reason string) {
		t.Helper()
		if err == nil {
			select {
			case <-conn.Context().Done():
				err = context.Cause(conn.Context())
			case <-time.After(testWait):
				t.Errorf("%s: still connected", what)
				return
			}
		}
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", what, err, reason)
		}
	}
	send := func(conn *quic.Conn, b []byte) {
		if st, err := conn.OpenStreamSync(testContext(t)); err == nil {
			_, _ = st.Write(b)
		}
	}
	conn, err := dial(alpnData, nil)
	gone("no certificate", conn, err, "no certificate")
	conn, err = dial("h3", nil)
	gone("another protocol", conn, err, "")
	c.dir.set(3, "127.0.0.1:1")
	cert := c.identity(3).Cert
	conn, err = dial(alpnData, &cert)
	if err == nil {
		send(conn, []byte("\x01\xff\xffgarbage"))
	}
	gone("garbage for a hello", conn, err, "hello of 65535 bytes")
	conn, err = dial(alpnRaft, &cert)
	if err == nil {
		send(conn, []byte{streamCall, 7, 0, 0})
	}
	gone("a call before the hello", conn, err, "want a hello")
	conn, err = dial(alpnRaft, &cert)
	if err == nil {
		var buf bytes.Buffer
		_ = writeHello(&buf, &hello{Node: 2, Process: 1}, true)
		send(conn, buf.Bytes())
	}
	gone("somebody else's name", conn, err, "hello names node")
	conn, err = dial(alpnJoin, nil)
	if err == nil {
		send(conn, []byte("\xff\xff\xff\xff"))
	}
	gone("oversized join", conn, err, "at most")

	// A member that sends garbage on a stream loses the stream.
	l := b.peer(1).slots[kindData].current()
	for _, g := range []string{"\x00", "\xff\xff", "\x02raft on the data connection", "\x03\x07\xff\xff\xff\xff\xff\xff\xff\xff", "\x04\xff"} {
		st, err := l.conn.OpenStreamSync(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = st.Write([]byte(g))
		_ = st.SetReadDeadline(time.Now().Add(testWait))
		for err == nil { // a reply to the call, a reset for the others
			_, err = st.Read(make([]byte, 100))
		}
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Errorf("%q: neither answered nor reset", g)
		}
		resetStream(st)
	}
	if now := a.peer(2).slots[kindData].current(); now != good {
		t.Error("the members' connection did not survive")
	}
	mustCall(t, a, 2, wire.CallAdmin, "after")
}

func TestProbe(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1), c.start(2)
	mustCall(t, a, 2, wire.CallAdmin, "hello")
	before := b.peer(1).slots[kindData].current()
	id, err := Probe(testContext(t), b.Addr().String(), c.identity(1))
	if err != nil || id != 2 {
		t.Errorf("%v, %v", id, err)
	}
	if b.peer(1).slots[kindData].current() != before {
		t.Error("the probe replaced a connection")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Probe(ctx, deadPort(t), c.identity(1)); err == nil {
		t.Error("nobody answered, and no error")
	}
}

func TestConfigNamesTheField(t *testing.T) {
	c := newCluster(t)
	good := Config{Bind: "127.0.0.1:0", Identity: c.identity(1), Members: c.dir.lookup}
	for field, change := range map[string]func(*Config){
		"Bind":        func(c *Config) { c.Bind = "" },
		"Identity":    func(c *Config) { c.Identity = nil },
		"Members":     func(c *Config) { c.Members = nil },
		"Lanes":       func(c *Config) { c.Lanes = 65 },
		"IdleTimeout": func(c *Config) { c.IdleTimeout = time.Second },
		"DialTimeout": func(c *Config) { c.DialTimeout = -1 },
		"MaxMessage":  func(c *Config) { c.MaxMessage = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	m, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("close before open: %v", err)
	}
	if err := m.Open(); err == nil {
		t.Error("opened after close")
	}
}

func TestBufferSizes(t *testing.T) {
	m := newCluster(t).start(1)
	r, s := m.BufferSizes()
	if r == 0 || s == 0 {
		t.Errorf("receive %d, send %d", r, s)
	}
	if small := r < wantBuffer || s < wantBuffer; small != (m.BufferWarning() != "") {
		t.Errorf("receive %d, send %d, warning %q", r, s, m.BufferWarning())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
