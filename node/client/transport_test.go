package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
)

// echo is a node's side of one connection: it lets everybody in, answers every send and delivers it back to its sender.
type echo struct {
	mu     sync.Mutex
	epoch  wire.Epoch
	logins []wire.Frame
}

func (e *echo) serve(read func(*wire.Frame) error, write func(*wire.Frame) error) {
	var f wire.Frame
	var from string
	var instance uint64
	for read(&f) == nil {
		e.mu.Lock()
		epoch := e.epoch
		e.mu.Unlock()
		var out []wire.Frame
		switch f.Type {
		case wire.TypeLogin:
			e.mu.Lock()
			e.epoch++
			epoch = e.epoch
			e.logins = append(e.logins, *f.Clone())
			e.mu.Unlock()
			from, instance = f.Clone().Client, f.Instance
			out = []wire.Frame{{Type: wire.TypeWelcome, Epoch: epoch, Node: "n1", IdleMS: 30000, MaxPayload: 1 << 20}}
		case wire.TypeSend:
			out = []wire.Frame{{
				Type: wire.TypeDeliver, From: from, Instance: instance, ID: f.ID, Epoch: epoch, Ack: f.Ack, Payload: f.Payload,
			}}
			if f.Ack != wire.AckNone {
				out = append(out, wire.Frame{Type: wire.TypeResult, ID: f.ID, Code: wire.Delivered, Node: "n1"})
			}
		case wire.TypePing:
			out = []wire.Frame{{Type: wire.TypePong}}
		case wire.TypeBye:
			return
		}
		for _, o := range out {
			if write(&o) != nil {
				return
			}
		}
	}
}

func (e *echo) serveConn(conn net.Conn) {
	defer conn.Close()
	r := wire.NewFrameReader(conn, 0)
	defer r.Close()
	e.serve(r.Next, func(f *wire.Frame) error {
		_, err := conn.Write(wire.AppendFrame(nil, f))
		return err
	})
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/ws" {
		http.NotFound(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(4 << 20)
	e.serve(func(f *wire.Frame) error {
		_, b, err := conn.Read(r.Context())
		if err != nil {
			return err
		}
		return wire.UnmarshalFrameJSON(b, f)
	}, func(f *wire.Frame) error {
		b, err := wire.MarshalFrameJSON(f)
		if err != nil {
			return err
		}
		return conn.Write(r.Context(), websocket.MessageText, b)
	})
}

// listen serves e over real sockets and returns its address.
func (e *echo) listen(tb testing.TB, scheme string) (addr string, roots *x509.CertPool) {
	tb.Helper()
	var cert tls.Certificate
	if scheme == "tls" || scheme == "wss" {
		cert, roots = selfSigned(tb)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if roots != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	if scheme == "ws" || scheme == "wss" {
		srv := httptest.NewUnstartedServer(e)
		srv.Listener.Close()
		srv.Listener = ln
		srv.Start()
		tb.Cleanup(srv.Close)
		return scheme + "://" + ln.Addr().String(), roots
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { e.serveConn(conn) })
		}
	})
	tb.Cleanup(func() { ln.Close(); wg.Wait() })
	return scheme + "://" + ln.Addr().String(), roots
}

func selfSigned(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTransports(t *testing.T) {
	for _, scheme := range []string{"tcp", "tls", "ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			var e echo
			addr, roots := e.listen(t, scheme)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cfg := Config{Addrs: []string{addr}, Client: "alice", Tenant: "acme", Token: "secret"}
			if roots != nil {
				cfg.TLS = &tls.Config{RootCAs: roots}
			}
			c, err := Dial(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if l := e.logins[0]; l.Client != "alice" || l.Tenant != "acme" || l.Token != "secret" || l.Instance != c.Instance() ||
				l.Attempt != 1 || l.Version != wire.ProtocolVersion {
				t.Errorf("login %+v", l)
			}
			if st := c.State(); st.Kind != Connected || st.Node != "n1" || st.Epoch != 1 {
				t.Errorf("state %q", st)
			}
			big := make([]byte, 300<<10)
			rand.Read(big)
			for _, payload := range [][]byte{nil, []byte("hello, wörld"), {0xff, 0}, big} {
				r, err := c.Send(ctx, "alice", payload)
				if err != nil || r.Owner != "n1" || r.RTT <= 0 {
					t.Fatalf("%+v, %v", r, err)
				}
				m, err := c.Receive(ctx)
				if err != nil || m.From != "alice" || m.ID != r.ID || m.Epoch != 1 || !slices.Equal(m.Payload, payload) {
					t.Fatalf("received %s from %q with %d bytes, %v", m.ID, m.From, len(m.Payload), err)
				}
			}
			const burst = 2000
			results := make(chan Result, burst)
			for i := range burst {
				if _, err := c.SendAsync("alice", fmt.Append(nil, i), wire.AckOwner, patience, func(r Result) { results <- r }); err != nil {
					t.Fatal(err)
				}
			}
			for i := range burst {
				m, err := c.Receive(ctx)
				if err != nil || string(m.Payload) != fmt.Sprint(i) {
					t.Fatalf("message %d is %q, %v", i, m.Payload, err)
				}
				if r := <-results; r.Code != wire.Delivered {
					t.Fatalf("result %+v", r)
				}
			}
			if err := c.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrongPlaces(t *testing.T) {
	var e echo
	ws, _ := e.listen(t, "ws")
	tcp, _ := e.listen(t, "tcp")
	sec, _ := e.listen(t, "tls") // whose certificate we do not trust
	c, err := Dial(t.Context(), Config{Addrs: []string{ws + "/elsewhere", sec, tcp}, Client: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if got := "tcp://" + c.State().Addr; got != tcp {
		t.Errorf("connected to %s", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Addrs is empty":  {Client: "a"},
		"Addrs[0]":        {Client: "a", Addrs: []string{"nonsense"}},
		"Client":          {Addrs: []string{"a:1"}},
		"QueueBytes":      {Client: "a", Addrs: []string{"a:1"}, QueueBytes: -1},
		"BackoffMax":      {Client: "a", Addrs: []string{"a:1"}, BackoffMin: 2, BackoffMax: 1},
		"Timeout":         {Client: "a", Addrs: []string{"a:1"}, Timeout: 1},
		"Client or Tenan": {Client: "a", Tenant: "a/b", Addrs: []string{"a:1"}},
	} {
		if _, err := Dial(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
}

func TestToldAddressesNeverLoseTLS(t *testing.T) {
	for _, tc := range []struct{ told, from, want string }{
		{"h:1", "a:1", "h:1"},
		{"h:1", "tls://a:1", "tls://h:1"},
		{"h:1", "wss://a:1/x", "wss://h:1/x"},
		{"ws://h:1", "a:1", "ws://h:1/v1/ws"},
		{"ws://h:1", "tls://a:1", ""},
		{"tcp://h:1", "wss://a:1", ""},
		{"wss://h:1", "tls://a:1", "wss://h:1/v1/ws"},
		{"junk", "a:1", ""},
	} {
		from, err := parseAddress(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		a, ok := resolveTold(tc.told, from)
		if ok != (tc.want != "") || ok && a.String() != tc.want {
			t.Errorf("%s told over %s: %s (%v), want %q", tc.told, tc.from, a, ok, tc.want)
		}
	}
}

// sink is a node that answers sends with ack and reads on, with no work beside that.
func sink(tb testing.TB) string {
	tb.Helper()
	var e echo
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := wire.NewFrameReader(conn, 0)
		var out []byte
		e.serve(r.Next, func(f *wire.Frame) error {
			if f.Type != wire.TypeDeliver {
				out = wire.AppendFrame(out, f)
			}
			if r.Buffered() > 0 && len(out) < chunkBytes {
				return nil
			}
			_, err := conn.Write(out)
			out = out[:0]
			return err
		})
	})
	tb.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func BenchmarkSendAsync(b *testing.B) {
	for _, ack := range []wire.AckMode{wire.AckNone, wire.AckOwner} {
		b.Run(ack.String(), func(b *testing.B) {
			c, err := Dial(b.Context(), Config{Addrs: []string{sink(b)}, Client: "alice"})
			if err != nil {
				b.Fatal(err)
			}
			const window = 1000
			slots := make(chan struct{}, window)
			done := func(Result) { <-slots }
			payload := make([]byte, 128)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if ack != wire.AckNone {
					slots <- struct{}{}
				}
				for {
					if _, err = c.SendAsync("bob", payload, ack, 0, done); err != ErrOverloaded {
						break
					}
					_ = c.awaitRoom(b.Context(), time.Second)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			for range window {
				if ack != wire.AckNone {
					slots <- struct{}{}
				}
			}
			b.StopTimer()
			if err := c.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}
