package gateway

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func mustAuth(t *testing.T, keys ...Key) *Auth {
	t.Helper()
	a, err := NewAuth(keys, Issued{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRefusedLogins(t *testing.T) {
	good := Key{ID: "k", Alg: AlgHS256, Key: []byte(strings.Repeat("s", 32))}
	token := func(sub string) string {
		s, err := SignToken(good, sub, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	fail := atomic.Value{}
	both(t, func(c *Config, n *fakeNode) {
		c.DevMode, c.Auth = false, mustAuth(t, good)
		n.login = func(context.Context, *Session, func(time.Duration)) (Welcome, error) {
			return Welcome{}, fail.Load().(*wrapped)
		}
	}, func(t *testing.T, r *rig, dial func() client) {
		for _, x := range []struct {
			name   string
			change func(f *wire.Frame)
			err    error
			want   wire.Code
			text   string
		}{
			{"no token", func(f *wire.Frame) { f.Token = "" }, nil, wire.BadToken, "missing"},
			{"garbage", func(f *wire.Frame) { f.Token = "a.b.c" }, nil, wire.BadToken, "refused"},
			{"somebody else's", func(f *wire.Frame) { f.Token = token("carol") }, nil, wire.BadToken, "carol"},
			{"foreign tenant", func(f *wire.Frame) { f.Tenant = "other" }, nil, wire.BadToken, "tenant"},
			{"version", func(f *wire.Frame) { f.Version = 2 }, nil, wire.BadVersion, "speaks 1"},
			{"no instance", func(f *wire.Frame) { f.Instance = 0 }, nil, wire.ProtocolError, "instance"},
			{"bad id", func(f *wire.Frame) { f.Client = "a*" }, nil, wire.ProtocolError, "client"},
			{"node refuses", nil, wire.Errorf(wire.AlreadyOnline, "policy"), wire.AlreadyOnline, "policy"},
			{"node not ready", nil, wire.Errorf(wire.NotReady, "starting"), wire.NoQuorum, "starting"},
			{"node fails", nil, errors.New("disk on fire"), wire.Internal, "disk on fire"},
		} {
			fail.Store(&wrapped{x.err})
			c := dial()
			f := loginFrame("bob")
			f.Token = token("bob")
			if x.change != nil {
				x.change(f)
			}
			c.send(f)
			k := expectKick(t, c, x.want)
			if !strings.Contains(k.Text, x.text) {
				t.Errorf("%s: told %q", x.name, k.Text)
			}
			if (x.want.Class() == wire.RetryElsewhere) != (len(k.Addrs) > 0) || (x.want == wire.NoQuorum) != (k.RetryMS > 0) {
				t.Errorf("%s: alternatives %v, retry %d ms", x.name, k.Addrs, k.RetryMS)
			}
		}
		r.SetAccepting(false, wire.Draining)
		c := dial()
		c.send(loginFrame("bob")) // its token is not even looked at
		if k := expectKick(t, c, wire.Draining); len(k.Addrs) == 0 {
			t.Error("no alternatives while draining")
		}
		eventually(t, "all counted", func() bool {
			n := uint64(0)
			for _, k := range r.Stats().Logins {
				n += k
			}
			return n == 11
		})
	})
}

// wrapped makes every error one concrete type for atomic.Value.
type wrapped struct{ err error }

func (w *wrapped) Error() string { return w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

// malformed lists what a stranger may send on TCP: bytes, and a piece of the text he is told.
var malformed = []struct {
	name  string
	bytes string
	text  string
}{
	{"not our protocol", "GET / HTTP/1.1\r\n\r\n", "too large"},
	{"oversized", "\xff\xff\xff\xff", "too large"},
	{"empty frame", "\x00\x00\x00\x00", "empty"},
	{"not a map", "\x00\x00\x00\x01\x01", "malformed"},
	{"half a map", "\x00\x00\x00\x02\xa1\x00", "malformed"},
	{"not UTF-8", "\x00\x00\x00\x06\xa2\x00\x01\x01\x61\xff", "UTF-8"},
	{"tag", "\x00\x00\x00\x02\xc0\x00", "malformed"},
	{"ping first", "\x00\x00\x00\x03\xa1\x00\x08", "want login"},
	{"no type", "\x00\x00\x00\x01\xa0", "want login"},
	{"unknown type", "\x00\x00\x00\x04\xa1\x00\x18\x63", "want login"},
	{"server's frame", "\x00\x00\x00\x03\xa1\x00\x02", "want login"},
	{"login without fields", "\x00\x00\x00\x03\xa1\x00\x01", "client is missing"},
}

func TestMalformedTCP(t *testing.T) {
	r := newRig(t, nil)
	well := r.dial()
	r.login(well, "well")
	for _, x := range malformed {
		c := r.dial()
		c.write([]byte(x.bytes))
		if k := expectKick(t, c, wire.ProtocolError); !strings.Contains(k.Text, x.text) {
			t.Errorf("%s: told %q, want %q in it", x.name, k.Text, x.text)
		}
	}
	cut := r.dial() // ends inside a frame
	cut.write([]byte("\x00\x00\x00\x10\xa1"))
	_ = cut.nc.(*net.TCPConn).CloseWrite()
	if k := expectKick(t, cut, wire.ProtocolError); !strings.Contains(k.Text, "inside a frame") {
		t.Errorf("cut short: told %q", k.Text)
	}
	eventually(t, "all counted", func() bool { return r.Stats().Logins[wire.ProtocolError] == uint64(len(malformed))+1 })
	well.send(&wire.Frame{Type: wire.TypePing}) // nobody else noticed
	expect(t, well, wire.TypePong)
}

func TestMalformedWebSocket(t *testing.T) {
	r := newRig(t, func(c *Config, _ *fakeNode) { c.MaxPayload = 10_000 })
	for name, x := range map[string][2]string{
		"not JSON":       {"hello", "JSON"},
		"an array":       {"[]", "JSON"},
		"not UTF-8":      {"{\"type\":\"\xff\"}", "UTF-8"},
		"no type":        {"{}", ""},
		"unknown type":   {`{"type":"frobnicate"}`, "type"},
		"bad number":     {`{"type":"login","instance":"x"}`, "instance"},
		"ping first":     {`{"type":"ping"}`, "want login"},
		"oversized":      {`{"type":"send","payload":"` + strings.Repeat("x", 40_000) + `"}`, "too large"},
		"large payload":  {`{"type":"send","to":"x","id":"1","payload":"` + strings.Repeat("x", 10_001) + `"}`, "too large"},
		"deeply nested":  {`{"type":` + strings.Repeat("[", 5000), "JSON"},
		"broken base64":  {`{"type":"send","to":"x","id":"1","payload_b64":"!"}`, "payload_b64"},
		"truncated text": {`{"type":"login"`, "JSON"},
	} {
		c := r.dialWS()
		c.write(x[0])
		if k := expectKick(t, c, wire.ProtocolError); !strings.Contains(k.Text, x[1]) {
			t.Errorf("%s: told %q, want %q in it", name, k.Text, x[1])
		}
	}
	c := r.dialWS()
	if err := c.ws.Write(t.Context(), 2, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	expectKick(t, c, wire.ProtocolError)
}

func TestOutOfPlace(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) { c.MaxPayload = 1000 }, func(t *testing.T, r *rig, dial func() client) {
		for name, f := range map[string]*wire.Frame{
			"second login": loginFrame("bob"),
			"deliver":      {Type: wire.TypeDeliver, From: "x", Instance: 1, ID: 1, Epoch: 1},
			"send to none": {Type: wire.TypeSend, ID: 1},
			"ack of none":  {Type: wire.TypeAck},
		} {
			c := dial()
			r.login(c, "bob")
			c.send(f)
			if k := expectKick(t, c, wire.ProtocolError); k.Text == "" {
				t.Errorf("%s: told nothing", name)
			}
		}
		eventually(t, "all counted", func() bool { return r.Stats().Closes[wire.ProtocolError] == 4 })
	})
}

func TestAdmission(t *testing.T) {
	clock := newManualClock()
	both(t, manual(clock, func(c *Config, _ *fakeNode) { c.LoginRate, c.LoginBurst = 1, 2 }), func(t *testing.T, r *rig, dial func() client) {
		r.login(dial(), "a")
		r.login(dial(), "b")
		c := dial()
		if k := expectKick(t, c, wire.Busy); k.RetryMS < 500 || k.RetryMS > 30_000 || len(k.Addrs) != 1 {
			t.Errorf("%+v", k)
		}
		clock.mu.Lock()
		clock.now = clock.now.Add(time.Second)
		clock.mu.Unlock()
		r.login(dial(), "c")
		eventually(t, "three logins and one refusal to be counted", func() bool {
			st := r.Stats()
			return st.Drops[DropAdmission] == 1 && st.Logins[wire.Busy] == 1 && st.Logins[wire.OK] == 3
		})
	})
}

func TestMaxSessions(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) { c.MaxSessions = 1 }, func(t *testing.T, r *rig, dial func() client) {
		first := dial()
		s := r.login(first, "a")
		expectKick(t, dial(), wire.Busy)
		first.hangUp()
		<-s.Done()
		r.login(dial(), "b")
	})
}

// TestAdmissionBeforeTLS: a refused connection costs no handshake.
func TestAdmissionBeforeTLS(t *testing.T) {
	cert := selfSigned(t)
	var handshakes atomic.Int64
	r := newRig(t, func(c *Config, _ *fakeNode) {
		c.Clock = newManualClock()
		c.LoginRate, c.LoginBurst = 1, 1
		c.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			handshakes.Add(1)
			return &cert, nil
		}}
	})
	r.tls = &tls.Config{InsecureSkipVerify: true}
	r.login(r.dial(), "a")
	tcp, ws := r.Addrs()
	for _, addr := range []string{tcp, ws} {
		if c, err := tls.Dial("tcp", addr, r.tls); err == nil {
			_ = c.Close()
			t.Errorf("%s: let in", addr)
		}
	}
	if n := handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

// brokenListener fails a few times, as without file descriptors, then works, then is closed.
type brokenListener struct {
	net.Listener
	fails atomic.Int64
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errors.New("too many open files"))}
	}
	return l.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	r := newRig(t, nil)
	under, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &brokenListener{Listener: under}
	l.fails.Store(4)
	steady := &steadyListener{Listener: l, g: r.Gateway}
	begun := time.Now()
	go func() {
		c, err := net.Dial("tcp", under.Addr().String())
		if err == nil {
			_ = c.Close()
		}
	}()
	c, err := steady.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if d := time.Since(begun); d < 15*acceptPause || r.Stats().AcceptErrors != 4 {
		t.Errorf("after %v and %d errors", d, r.Stats().AcceptErrors)
	}
	_ = under.Close()
	if _, err := steady.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// FuzzFirstFrameTCP feeds whatever there is to a connection: the gateway must end it without hurting another one.
func FuzzFirstFrameTCP(f *testing.F) {
	for _, x := range malformed {
		f.Add([]byte(x.bytes))
	}
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, loginFrame("bob")), &wire.Frame{Type: wire.TypeSend, To: "x", ID: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, out := net.Pipe()
		c := newTCPConn(out, nil, 10_000, new(atomic.Uint64))
		fuzzSession(t, c, func() {
			_ = in.SetDeadline(time.Now().Add(patience))
			go func() {
				_, _ = in.Write(b)
				_ = in.Close()
			}()
		})
		if len(b) >= 4 && binary.BigEndian.Uint32(b) > 10_000+wire.MaxHeader && c.fr.Buffered() > 64<<10 {
			t.Error("a lying length made it buffer")
		}
	})
}

// fuzzSession runs one session over c from start to end.
func fuzzSession(t *testing.T, c conn, feed func()) {
	n := &fakeNode{logins: map[*Session]int{}, closed: map[*Session]int{}, bySess: map[wire.ClientID]*Session{}}
	n.send = func(s *Session, f *wire.Frame) {
		if f.To == "" || f.ID == 0 {
			t.Errorf("not validated: %+v", f)
		}
	}
	g, err := New(Config{TCP: "127.0.0.1:0", DevMode: true, Backend: n, KickTimeout: 10 * time.Millisecond, MaxPayload: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	g.SetAccepting(true, wire.None)
	feed()
	g.admit(c)
	g.sessions.Wait()
	for s := range n.logins {
		if s.Client().Validate() != nil || s.ID().Instance == 0 || n.closed[s] != 1 {
			t.Errorf("logged in: %v %v, closed %d times", s.Client(), s.ID(), n.closed[s])
		}
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
