package gateway

import (
	"testing"

	"imroute/mesh/wire"
)

// Requests to a service come in any order, each once; the results of those that were taken are remembered.
func TestServiceOrder(t *testing.T) {
	s := bareSession(t, 7)
	s.g.cfg.QueueBytes = 1 << 20
	give := func(kind wire.Kind, counter uint64) wire.Code {
		m := wire.Forward{From: "alice", To: "clock", Kind: kind, Instance: 9, Counter: counter, LeftMS: 1000, Payload: []byte("now?")}
		return s.Deliver(&m, nil)
	}
	order := []uint64{5, 3, 9, 1, 7, 8, 2, 100, 50}
	for _, c := range order {
		if code := give(wire.ToService, c); code != wire.None {
			t.Fatalf("%d: %v", c, code)
		}
	}
	for _, c := range order {
		if code := give(wire.ToService, c); code != wire.None { // a repeat without ack is accepted and dropped
			t.Fatalf("again %d: %v", c, code)
		}
	}
	if n := s.g.Stats().Drops[DropDuplicate]; n != uint64(len(order)) {
		t.Errorf("%d duplicates dropped, want %d", n, len(order))
	}
	for i := uint64(1); i < 5*uint64(s.g.cfg.DedupeWindow); i++ { // forwards and back, past the window
		c := 1000 + i ^ 1
		if code := give(wire.ToService, c); code != wire.None {
			t.Fatalf("%d: %v", c, code)
		}
	}
	var f wire.Frame
	for got := 0; ; got++ {
		c := s.dlv.take()
		if c == nil {
			break
		}
		start := 0
		for _, it := range c.items {
			if err := wire.DecodeFrame(c.buf[start+wire.LengthBytes:it.end], &f); err != nil {
				t.Fatal(err)
			}
			if err := f.Validate(false); err != nil || f.Kind != wire.ToService || f.To != "clock" || f.TimeoutMS != 1000 || f.Epoch != 7 {
				t.Fatalf("%+v: %v", f, err)
			}
			start = it.end
		}
	}
}

// States never make a session a slow reader: there is no room, and somebody tells them later.
func TestPresenceRoom(t *testing.T) {
	s := bareSession(t, 7)
	f := wire.Frame{Type: wire.TypePresence, Client: "bob", Online: 1, Node: "n2", Epoch: 3}
	n := 0
	for s.Presence(&f) {
		if n++; n > 10_000 {
			t.Fatal("no bound")
		}
	}
	if n == 0 || s.ctl.cost > s.g.cfg.QueueBytes/2+1000 {
		t.Errorf("%d states, %d bytes", n, s.ctl.cost)
	}
	s.Result(1, wire.OK, "", "")
	if s.closing {
		t.Error("closed for being slow")
	}
	s.closing = true
	if s.Presence(&f) {
		t.Error("a closing session took a state")
	}
}

// The frames of services and presence come to the backend and back, over both transports.
func TestServiceFrames(t *testing.T) {
	r := newRig(t, nil)
	for name, c := range map[string]client{TransportTCP: r.dial(), TransportWS: r.dialWS()} {
		r.login(c, "alice-"+name)
		recv := func() (f wire.Frame) {
			t.Helper()
			if err := c.recv(&f); err != nil {
				t.Fatal(err)
			}
			return f
		}
		for i, f := range []wire.Frame{
			{Type: wire.TypeJoin, Kind: wire.ToService, To: "clock", Count: 3},
			{Type: wire.TypeLeave, Kind: wire.ToService, To: "clock"},
			{Type: wire.TypeWatch, IDs: []string{"bob", "carol"}},
			{Type: wire.TypeWatch, To: wire.FriendsList},
			{Type: wire.TypeUnwatch, IDs: []string{"bob"}},
			{Type: wire.TypeUnwatch},
		} {
			f.ID = uint64(i + 1)
			c.send(&f)
			for range f.IDs {
				if f.Type != wire.TypeWatch {
					break
				}
				if got := recv(); got.Type != wire.TypePresence || got.Client == "" {
					t.Fatalf("%+v", got)
				}
			}
			if got := recv(); got.Type != wire.TypeResult || got.ID != f.ID || got.Node != f.To {
				t.Fatalf("%+v: %+v", f, got)
			}
		}
	}
}
