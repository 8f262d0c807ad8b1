package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// TestPeerIsNoClientPort: an answer that is no frame, and none at all, are told apart from a node's.
func TestPeerIsNoClientPort(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		peer   Peer
		text   string
	}{
		"http":   {"HTTP/1.1 400 Bad Request\r\n\r\n", PeerForeign, "a:1 does not speak the client protocol"},
		"alert":  {"\x15\x03\x01\x00\x02\x02\x46", PeerForeign, "a:1 does not speak the client protocol"},
		"closed": {"", PeerMute, "a:1 closed the connection without an answer"},
		"kick":   {string(wire.AppendFrame(nil, &wire.Frame{Type: wire.TypeKick, Code: wire.Busy, Text: "later"})), PeerNode, "later"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, "a:1")
				st := newStates()
				cfg := n.config("a:1")
				cfg.OnState = st.on
				c := open(t, cfg, func() {
					fc := n.nodes["a:1"].accept()
					fc.want(wire.TypeLogin)
					if c.answer != "" {
						_, _ = fc.conn.Write([]byte(c.answer))
					}
					fc.conn.Close()
					s := st.want(t, Closed)
					if s.Peer != c.peer || !strings.Contains(s.Text, c.text) || s.Addr != "a:1" || !s.Retrying {
						t.Errorf("%+v", s)
					}
					n.nodes["a:1"].welcome(1) // it is tried again all the same
				})
				shut(t, c)
			})
		})
	}
}

// TestMoveIsNotASupersession: who moves because its node asked it to hears that, and not that a later connection took over, when
// the old session ends before the new one is welcomed.
func TestMoveIsNotASupersession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		st := newStates()
		cfg := n.config("a:1", "b:1")
		cfg.OnState = st.on
		var old *fakeConn
		c := open(t, cfg, func() { old = n.nodes["a:1"].welcome(1) })
		st.want(t, Connected)
		old.send(wire.Frame{Type: wire.TypeGoaway, Code: wire.Draining, TimeoutMS: 10000, Addrs: []string{"b:1"}})
		fresh := n.nodes["b:1"].accept()
		fresh.want(wire.TypeLogin)
		old.kick(wire.Frame{Code: wire.Superseded, Text: "a later connection took over"})
		if s := st.want(t, Closed); s.Code != wire.Draining || !s.Retrying || s.After != 0 || !strings.Contains(s.Text, "asked to connect elsewhere") {
			t.Errorf("%+v", s)
		}
		fresh.send(wire.Frame{Type: wire.TypeWelcome, Epoch: 2, Node: "b", IdleMS: 30000, MaxPayload: 1 << 20})
		st.want(t, Connected)

		// without a goaway it is what it says
		fresh.kick(wire.Frame{Code: wire.Superseded, Text: "a later connection took over"})
		if s := st.want(t, Closed); s.Code != wire.Superseded || s.After > time.Minute {
			t.Errorf("%+v", s)
		}
		n.nodes["b:1"].welcome(3)
		shut(t, c)
	})
}
