package gateway

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
)

// FuzzFirstFrameWS feeds a session one WebSocket text message, or raw bytes where WebSocket frames are expected.
func FuzzFirstFrameWS(f *testing.F) {
	f.Add([]byte(`{"type":"login","client":"bob","instance":"1","attempt":"1","version":1}`), false)
	f.Add([]byte(`{"type":"send","to":"x","id":"1","payload_b64":"AA=="}`), false)
	f.Add([]byte(`{"type":"login"`), false)
	f.Add([]byte("\xff"), false)
	f.Add([]byte("\x88\x80\x00\x00\x00\x00"), true)                  // close
	f.Add([]byte("\x01\x81\x00\x00\x00\x00{\x89\x80\x00\x00"), true) // fragment, then half a ping
	f.Add([]byte("\xc1\xff\xff\xff\xff\xff\xff\xff\xff\xff"), true)
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		in, out := net.Pipe()
		cork := &corkConn{Conn: out, under: out}
		req := httptest.NewRequest(http.MethodGet, PathWS, nil)
		for k, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": Subprotocol,
		} {
			req.Header.Set(k, v)
		}
		hj := &slimHijacker{ResponseWriter: &pipeWriter{ResponseRecorder: httptest.NewRecorder(), c: cork}}
		ws, err := websocket.Accept(hj, req, &websocket.AcceptOptions{Subprotocols: []string{Subprotocol}})
		if err != nil {
			t.Fatal(err)
		}
		if !raw {
			head := make([]byte, 14) // text, final, masked with zeros, 64-bit length
			head[0], head[1] = 0x81, 0xff
			binary.BigEndian.PutUint64(head[2:], uint64(len(b)))
			b = append(head, b...)
		}
		done := make(chan struct{})
		fuzzSession(t, newWSConn(ws, cork, 10_000, new(atomic.Uint64)), func() {
			_ = in.SetDeadline(time.Now().Add(patience))
			go func() {
				defer close(done)
				_, _ = in.Write(b)
				_ = in.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = io.Copy(io.Discard, in)
				_ = in.Close()
			}()
		})
		<-done
	})
}

// pipeWriter is an HTTP response whose connection can be taken over.
type pipeWriter struct {
	*httptest.ResponseRecorder
	c net.Conn
}

func (w *pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.c, bufio.NewReadWriter(bufio.NewReader(w.c), bufio.NewWriter(w.c)), nil
}

// BenchmarkDeliver is one session's path from Deliver to the socket, 128 B without ack.
func BenchmarkDeliver(b *testing.B) {
	n := &fakeNode{logins: map[*Session]int{}, closed: map[*Session]int{}, bySess: map[wire.ClientID]*Session{}}
	g, err := New(Config{TCP: "127.0.0.1:0", DevMode: true, Backend: n})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = g.Close(b.Context()) }()
	g.SetAccepting(true, wire.None)
	addr, _ := g.Addrs()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	_, _ = nc.Write(wire.AppendFrame(nil, loginFrame("bob")))
	fr := wire.NewFrameReader(nc, 0)
	var f wire.Frame
	if err := fr.Next(&f); err != nil || f.Type != wire.TypeWelcome {
		b.Fatal(f.Type, err)
	}
	s := n.bySess[wire.ClientID{ID: "bob"}]
	m := message(0, wire.AckNone, string(make([]byte, 128)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for i := 0; i < b.N; {
			m.Counter = uint64(i + 1)
			if s.Deliver(m, nil) == wire.None {
				i++
			} else {
				<-time.After(50 * time.Microsecond)
			}
		}
	}()
	for range b.N {
		if err := fr.Next(&f); err != nil {
			b.Fatal(err)
		}
	}
}
