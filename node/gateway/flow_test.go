package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
)

func TestFlow(t *testing.T) {
	both(t, func(c *Config, n *fakeNode) {
		n.login = func(_ context.Context, s *Session, waiting func(time.Duration)) (Welcome, error) {
			waiting(1500 * time.Millisecond)
			if code := s.Deliver(&wire.Forward{From: "early", Instance: 1, Counter: 1, Epoch: 42}, nil); code != wire.None {
				t.Errorf("deliver before welcome: %v", code)
			}
			return Welcome{Epoch: 42}, nil
		}
		n.send = func(s *Session, f *wire.Frame) {
			s.Result(f.ID, wire.Delivered, "n2", "to "+f.To+": "+string(f.Payload))
		}
	}, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		c.send(loginFrame("bob"))
		if f := expect(t, c, wire.TypeWaiting); f.TimeoutMS != 1500 {
			t.Errorf("waiting: %+v", f)
		}
		w := expect(t, c, wire.TypeWelcome)
		if w.Epoch != 42 || w.Node != "n1" || w.IdleMS != 30_000 || w.MaxPayload != wire.MaxPayload || len(w.Addrs) != 1 {
			t.Errorf("welcome: %+v", w)
		}
		if f := expect(t, c, wire.TypeDeliver); f.From != "early" || f.Epoch != 42 {
			t.Errorf("early deliver: %+v", f)
		}
		s := r.node.session(t, "bob")
		if s.Transport() != strings.Split(w.Addrs[0], ".")[0] || s.RemoteAddr() == "" || s.ID().Attempt != 1 || r.Count() != 1 {
			t.Errorf("session %v %v %v, %d open", s.Transport(), s.RemoteAddr(), s.ID(), r.Count())
		}
		c.send(&wire.Frame{Type: wire.TypePing})
		expect(t, c, wire.TypePong)
		c.send(&wire.Frame{Type: wire.TypeSend, To: "carol", ID: 5, Ack: wire.AckOwner, Payload: []byte("hi \x00\xff")})
		if f := expect(t, c, wire.TypeResult); f.ID != 5 || f.Code != wire.Delivered || f.Node != "n2" || f.Text == "" {
			t.Errorf("result: %+v", f)
		}

		var rc receipts
		for i, ack := range []wire.AckMode{wire.AckNone, wire.AckOwner, wire.AckClient} {
			if code := s.Deliver(message(uint64(i+1), ack, fmt.Sprint("m", i)), &rc); code != wire.None {
				t.Fatalf("deliver: %v", code)
			}
			f := expect(t, c, wire.TypeDeliver)
			if f.From != "alice" || f.Instance != 7 || f.ID != uint64(i+1) || f.Epoch != 42 || string(f.Payload) != fmt.Sprint("m", i) {
				t.Errorf("deliver: %+v", f)
			}
			if (f.Ack == wire.AckClient) != (ack == wire.AckClient) {
				t.Errorf("ack wanted: %v for %v", f.Ack, ack)
			}
		}
		rc.wait(t, 2, wire.Delivered)
		if rc.of(3) != wire.None {
			t.Error("answered before the client's ack")
		}
		c.send(&wire.Frame{Type: wire.TypeAck, Instance: 7, ID: 3})
		rc.wait(t, 3, wire.Delivered)
		c.send(&wire.Frame{Type: wire.TypeAck, Instance: 7, ID: 3}) // once more is harmless
		c.send(&wire.Frame{Type: wire.TypePing})
		expect(t, c, wire.TypePong)
		s.Goaway(wire.Draining, 0)
		if f := expect(t, c, wire.TypeGoaway); f.Code != wire.Draining || len(f.Addrs) != 1 {
			t.Errorf("goaway: %+v", f)
		}
		if n, twice := rc.count(); n != 2 || twice != 0 {
			t.Errorf("%d receipts, %d twice", n, twice)
		}
		s.Close(wire.Kicked, "by test")
		if f := expectKick(t, c, wire.Kicked); f.Text != "by test" {
			t.Errorf("kick: %+v", f)
		}
		<-s.Done()
		if code := s.Deliver(message(9, wire.AckOwner, ""), &rc); code != wire.NotOwner {
			t.Errorf("deliver after the end: %v", code)
		}
		st := r.Stats()
		if st.MessagesIn != 1 || st.MessagesOut != 4 || st.Logins[wire.OK] != 1 || st.Closes[wire.Kicked] != 1 || st.Drops[DropStrayAck] != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// TestRawBytes is written without any code of ours, from the protocol's description.
func TestRawBytes(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	// {0: 1 (login), 1: "bob", 5: 9, 6: 1, 18: 1}, then {0: 8 (ping)}
	login, _ := hex.DecodeString("0000000e" + "a5" + "0001" + "0163626f62" + "0509" + "0601" + "1201")
	c.write(append(login, 0, 0, 0, 3, 0xa1, 0x00, 0x08))
	var head [4]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		t.Fatal(err)
	}
	welcome := make([]byte, head[3])
	if _, err := io.ReadFull(c.nc, welcome); err != nil || welcome[1] != 0 || welcome[2] != 2 {
		t.Fatalf("no welcome: % x %v", welcome, err)
	}
	pong := make([]byte, 7)
	if _, err := io.ReadFull(c.nc, pong); err != nil || !bytes.Equal(pong, []byte{0, 0, 0, 3, 0xa1, 0, 9}) {
		t.Fatalf("no pong: % x %v", pong, err)
	}
	if s := r.node.session(t, "bob"); s.ID() != (wire.SessionID{Instance: 9, Attempt: 1}) {
		t.Errorf("session %v", s.ID())
	}
}

// TestForeignWebSocket speaks JSON as a script would.
func TestForeignWebSocket(t *testing.T) {
	r := newRig(t, func(c *Config, n *fakeNode) {
		c.Mux = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
		n.send = func(s *Session, f *wire.Frame) { s.Result(f.ID, wire.Offline, "", "") }
	})
	c := r.dialWS()
	if c.ws.Subprotocol() != Subprotocol {
		t.Errorf("subprotocol %q", c.ws.Subprotocol())
	}
	c.write(`{"type":"login","client":"bob","instance":"18446744073709551615","attempt":"1","version":1,"new_field":[1]}`)
	read := func() map[string]any {
		t.Helper()
		_, b, err := c.ws.Read(t.Context())
		var m map[string]any
		if err != nil || json.Unmarshal(b, &m) != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return m
	}
	if m := read(); m["type"] != "welcome" || m["epoch"] != "1" || m["node"] != "n1" {
		t.Errorf("%v", m)
	}
	c.write(`{"type":"send","to":"carol","id":"18446744073709551614","ack":"client","payload":"ü"}`)
	if m := read(); m["type"] != "result" || m["id"] != "18446744073709551614" || m["code"] != 2.0 {
		t.Errorf("%v", m)
	}
	r.node.session(t, "bob").Deliver(message(1, wire.AckClient, "\xff"), &receipts{})
	if m := read(); m["type"] != "deliver" || m["payload_b64"] != "/w==" || m["ack"] != "client" || m["instance"] != "7" {
		t.Errorf("%v", m)
	}
	// a large frame is announced with its exact length
	r.node.session(t, "bob").Deliver(message(2, wire.AckNone, strings.Repeat("x", announced)), &receipts{})
	ahead := read()
	_, large, err := c.ws.Read(t.Context())
	if err != nil || ahead["type"] != "pong" || ahead["count"] != float64(len(large)) || len(large) <= announced {
		t.Errorf("%v announces %d bytes: %v", ahead, len(large), err)
	}
	c.write(`{"type":"bye"}`)
	if _, _, err := c.ws.Read(t.Context()); websocket.CloseStatus(err) != 4100 {
		t.Errorf("closed with %v, want 4100", err)
	}
	_, addr := r.Addrs()
	for path, want := range map[string]int{"/": 200, PathWS: 400} {
		res, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, res.StatusCode, want)
		}
	}
	_, res, err := websocket.Dial(t.Context(), "ws://"+addr+PathWS, &websocket.DialOptions{
		Subprotocols: []string{Subprotocol}, HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
	})
	if err == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestManyMessages checks order and content where writes gather many frames and readers lag.
func TestManyMessages(t *testing.T) {
	both(t, func(c *Config, _ *fakeNode) { c.QueueBytes = 8 << 20 }, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		s := r.login(c, "bob")
		const n = 3000
		var rc receipts
		go func() {
			for i := uint64(1); i <= n; i++ {
				ack := wire.AckNone
				if i%10 == 0 {
					ack = wire.AckOwner
				}
				if code := s.Deliver(message(i, ack, strings.Repeat("x", int(i%1500))), &rc); code != wire.None {
					t.Errorf("message %d: %v", i, code)
				}
			}
		}()
		for i := uint64(1); i <= n; i++ {
			f := expect(t, c, wire.TypeDeliver)
			if f.ID != i || len(f.Payload) != int(i%1500) {
				t.Fatalf("message %d: got %d with %d bytes", i, f.ID, len(f.Payload))
			}
		}
		eventually(t, "all receipts", func() bool { n, _ := rc.count(); return n == 300 })
		eventually(t, "the writer's end", func() bool { return r.st.writers.Load() == 0 })
	})
}

func TestTLS(t *testing.T) {
	cert := selfSigned(t)
	r := newRig(t, func(c *Config, _ *fakeNode) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	r.tls = &tls.Config{RootCAs: pool, ServerName: "localhost"}
	c := r.dial()
	s := r.login(c, "bob")
	var rc receipts
	s.Deliver(message(1, wire.AckOwner, strings.Repeat("x", 100_000)), &rc)
	expect(t, c, wire.TypeDeliver)
	rc.wait(t, 1, wire.Delivered)
	s.Close(wire.Replaced, "")
	expectKick(t, c, wire.Replaced)

	_, addr := r.Addrs()
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tls}}
	defer hc.CloseIdleConnections()
	ws, _, err := websocket.Dial(t.Context(), "wss://"+addr+PathWS, &websocket.DialOptions{Subprotocols: []string{Subprotocol}, HTTPClient: hc})
	if err != nil {
		t.Fatal(err)
	}
	w := &wsClient{t, ws}
	s = r.login(w, "carol")
	s.Deliver(message(1, wire.AckOwner, "x"), &rc)
	expect(t, w, wire.TypeDeliver)
	s.Close(wire.Replaced, "")
	expectKick(t, w, wire.Replaced)

	plain := (&rig{Gateway: r.Gateway, t: t}).dial() // no TLS on a TLS port
	_, _ = plain.nc.Write([]byte("\x00\x00\x00\x03\xa1\x00\x08"))
	for b := make([]byte, 256); ; {
		if _, err := plain.nc.Read(b); err != nil {
			break // an alert may come first
		}
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
