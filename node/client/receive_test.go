package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

func TestDuplicatesAndStaleEpochsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var a *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { a = n.nodes["a:1"].welcome(5) })
		a.deliver(5, 7, 1, wire.AckClient, "one")
		wantMessage(t, c, "one")
		if f := a.want(wire.TypeAck); f.Instance != 7 || f.ID != 1 {
			t.Errorf("acknowledged %+v", f)
		}
		a.deliver(4, 7, 2, wire.AckNone, "of a past epoch")
		a.deliver(5, 7, 3, wire.AckNone, "three")
		wantMessage(t, c, "three")
		a.conn.Close()
		b := n.nodes["b:1"].welcome(6)
		b.deliver(6, 7, 1, wire.AckClient, "one, again")
		// its sender still waits: the acknowledgement is repeated, the message is not
		if f := b.want(wire.TypeAck); f.Instance != 7 || f.ID != 1 {
			t.Errorf("acknowledged %+v", f)
		}
		b.deliver(6, 7, 3, wire.AckNone, "three, again")
		b.deliver(5, 7, 4, wire.AckNone, "of a past epoch")
		b.deliver(6, 8, 3, wire.AckNone, "three of another sender")
		wantMessage(t, c, "three of another sender")
		shut(t, c)
	})
}

func TestManualAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		cfg := n.config("a:1", "b:1")
		cfg.ManualAck = true
		var a *fakeConn
		c := open(t, cfg, func() { a = n.nodes["a:1"].welcome(1) })
		a.deliver(1, 7, 1, wire.AckClient, "one")
		m := wantMessage(t, c, "one")
		a.deliver(1, 7, 2, wire.AckNone, "asks for nothing")
		wantMessage(t, c, "asks for nothing").Ack()
		a.conn.Close()
		b := n.nodes["b:1"].welcome(2)
		b.deliver(2, 7, 1, wire.AckClient, "one, again") // neither a message nor an acknowledgement: the first is still being dealt with
		b.deliver(2, 7, 3, wire.AckClient, "three")
		wantMessage(t, c, "three")
		m.Ack()
		if f := b.want(wire.TypeAck); f.ID != 1 {
			t.Errorf("acknowledged %+v", f)
		}
		shut(t, c)
		m.Ack() // harmless
	})
}

func TestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		var c *Client
		got := make(chan string)
		cfg.OnMessage = func(m Message) {
			r, err := c.Send(context.Background(), m.From, []byte("re: "+string(m.Payload))) // a handler may send and wait
			got <- fmt.Sprint(string(m.Payload), " ", r.Code, " ", err)
		}
		var fc *fakeConn
		c = open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		for i := range uint64(100) {
			fc.deliver(1, 7, i+1, wire.AckClient, fmt.Sprint(i))
		}
		for i := range 100 {
			f := fc.want(wire.TypeSend)
			if want := fmt.Sprintf("re: %d", i); string(f.Payload) != want || f.To != "bob" {
				t.Fatalf("got %q to %s, want %q", f.Payload, f.To, want)
			}
			fc.result(f.ID, wire.Delivered)
			if g, want := <-got, fmt.Sprintf("%d delivered <nil>", i); g != want {
				t.Fatalf("handled %q, want %q", g, want)
			}
			if f := fc.want(wire.TypeAck); f.ID != uint64(i+1) {
				t.Fatalf("acknowledged %d, want %d", f.ID, i+1)
			}
		}
		if _, err := c.Receive(t.Context()); err == nil {
			t.Error("Receive works beside OnMessage")
		}
		shut(t, c)
	})
}

func TestApplicationThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		cfg.ReceiveBuffer = 10 * (1000 + messageCost)
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		written := make(chan int, 1000)
		go func() {
			for i := range 100 {
				fc.conn.Write(wire.AppendFrame(nil, &wire.Frame{
					Type: wire.TypeDeliver, From: "bob", Instance: 7, ID: uint64(i + 1), Epoch: 1, Payload: make([]byte, 1000),
				}))
				written <- i
			}
		}()
		synctest.Wait()
		if got := len(written); got < 10 || got > 30 { // the bound and what one read takes ahead
			t.Errorf("the node could write %d messages", got)
		}
		// silence is not held against a node that we do not listen to
		time.Sleep(5 * time.Minute)
		for i := range 100 {
			if m := receive(t, c); m.ID.Counter != uint64(i+1) || len(m.Payload) != 1000 {
				t.Fatalf("message %d is %s", i, m.ID)
			}
		}
		if len(n.dialed()) != 1 {
			t.Errorf("dialed %v", n.dialed())
		}
		shut(t, c)
	})
}

func TestCloseWhileTheApplicationDoesNotRead(t *testing.T) {
	for _, handler := range []bool{false, true} {
		t.Run(fmt.Sprintf("handler=%v", handler), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, "a:1")
				cfg := n.config("a:1")
				cfg.ReceiveBuffer = 1
				block := make(chan struct{})
				if handler {
					cfg.OnMessage = func(Message) { <-block }
				}
				var fc *fakeConn
				c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
				go func() {
					for i := range uint64(3) {
						fc.conn.Write(wire.AppendFrame(nil, &wire.Frame{Type: wire.TypeDeliver, From: "b", Instance: 7, ID: i + 1, Epoch: 1}))
					}
				}()
				synctest.Wait()
				if handler {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Close: %v", err)
					}
					close(block)
				}
				shut(t, c)
				if !handler {
					receive(t, c) // what had arrived is not lost
				}
			})
		})
	}
}

func TestReceiveAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		fc.deliver(1, 7, 1, wire.AckNone, "last words")
		fc.kick(wire.Frame{Code: wire.Kicked})
		<-c.Done()
		wantMessage(t, c, "last words")
		for range 3 {
			_, err := c.Receive(t.Context())
			wantCode(t, err, wire.Kicked)
		}
		shut(t, c)
	})
}

func TestReceiveContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		c := open(t, n.config("a:1"), func() { n.nodes["a:1"].welcome(1) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		shut(t, c)
	})
}

func TestMalformedServerFrames(t *testing.T) {
	frame := func(f wire.Frame) []byte { return wire.AppendFrame(nil, &f) }
	for name, b := range map[string][]byte{
		"no CBOR":           {0, 0, 0, 3, 0xff, 0xff, 0xff},
		"empty":             {0, 0, 0, 0},
		"absurd length":     {0xff, 0xff, 0xff, 0xff},
		"no type":           {0, 0, 0, 1, 0xa0},
		"login":             frame(wire.Frame{Type: wire.TypeLogin}),
		"second welcome":    frame(wire.Frame{Type: wire.TypeWelcome, Epoch: 3, Node: "n"}),
		"deliver without":   frame(wire.Frame{Type: wire.TypeDeliver, From: "bob"}),
		"result without id": frame(wire.Frame{Type: wire.TypeResult, Code: wire.Delivered}),
		"kick without code": frame(wire.Frame{Type: wire.TypeKick}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, "a:1", "b:1")
				st := newStates()
				cfg := n.config("a:1", "b:1")
				cfg.OnState = st.on
				var fc *fakeConn
				c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
				st.want(t, Connected)
				if _, err := fc.conn.Write(b); err != nil {
					t.Fatal(err)
				}
				if closed := st.want(t, Closed); closed.Code != wire.ProtocolError || !closed.Retrying {
					t.Errorf("state %q", closed)
				}
				n.nodes["b:1"].welcome(2)
				shut(t, c)
			})
		})
	}
}

func TestUnknownFramesAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		fc.send(wire.Frame{Type: 99, Text: "of a later version"})
		fc.deliver(1, 7, 1, wire.AckNone, "known")
		wantMessage(t, c, "known")
		shut(t, c)
	})
}

func TestMalformedLoginAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1", "c:1")
		c := open(t, n.config("a:1", "b:1", "c:1"), func() {
			fc := n.nodes["a:1"].accept()
			fc.want(wire.TypeLogin)
			fc.deliver(1, 7, 1, wire.AckNone, "too early")
			fc = n.nodes["b:1"].accept()
			fc.want(wire.TypeLogin)
			fc.send(wire.Frame{Type: wire.TypeWelcome, Node: "without an epoch"})
			n.nodes["c:1"].welcome(1)
		})
		shut(t, c)
	})
}

// TestDedupeAgainstModel compares the window with a plain set for traffic that stays within it.
func TestDedupeAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var d dedupe
	seen := make(map[[2]uint64]bool)
	marked := make(map[[2]uint64]bool)
	next := make(map[uint64]uint64)
	for range 200000 {
		from := rng.Uint64N(20)
		id := next[from] + 1 + rng.Uint64N(3)
		if rng.IntN(3) == 0 && id > 400 {
			id -= rng.Uint64N(400)
		}
		next[from] = max(next[from], id)
		k := [2]uint64{from, id}
		fresh, acked := d.add(from, id)
		if fresh == seen[k] || acked != marked[k] {
			t.Fatalf("message %v: fresh %v, acked %v; seen %v, acked %v", k, fresh, acked, seen[k], marked[k])
		}
		seen[k] = true
		if rng.IntN(2) == 0 {
			d.markAcked(from, id)
			marked[k] = true
		}
	}
}

// Messages without acknowledgement take no room and never come twice, nor behind a later one.
func TestDedupeOneWay(t *testing.T) {
	var d dedupe
	for id := range uint64(10 * dedupeIDs) {
		if !d.pass(1, 2*id+1) {
			t.Fatalf("%d was refused", 2*id+1)
		}
		for _, again := range []uint64{2*id + 1, 2 * id} {
			if d.pass(1, again) {
				t.Fatalf("%d passed behind %d", again, 2*id+1)
			}
		}
	}
	if s := d.sender(1); s.ids != nil {
		t.Errorf("%d ids", len(s.ids))
	}
	if fresh, acked := d.add(1, 7); fresh || acked { // a node asks what it has not heard of before it sends again
		t.Error("one that passed came again with an acknowledgement, and was taken")
	}
	if fresh, _ := d.add(1, 30*dedupeIDs); !fresh || d.pass(1, 30*dedupeIDs-1) {
		t.Error("an acknowledged one counts for those behind it")
	}
}

func TestDedupeIsBounded(t *testing.T) {
	var d dedupe
	for from := range uint64(5 * dedupeSenders) {
		d.add(from, 1)
	}
	if n := len(d.young) + len(d.old); n < dedupeSenders || n > 2*dedupeSenders {
		t.Errorf("%d senders remembered", n)
	}
	for id := range uint64(10 * dedupeIDs) {
		d.add(1, id+1)
		d.markAcked(1, id+1)
	}
	if s := d.sender(1); len(s.ids) > 2*dedupeIDs || len(s.acked) > 2*dedupeIDs || cap(s.ids) > 4*dedupeIDs {
		t.Errorf("%d ids, %d acknowledged", len(s.ids), len(s.acked))
	}
	if fresh, _ := d.add(1, 10*dedupeIDs-dedupeIDs+1); fresh {
		t.Error("an id within the window was forgotten")
	}
}

func FuzzServerBytes(f *testing.F) {
	frame := func(fr wire.Frame) []byte { return wire.AppendFrame(nil, &fr) }
	f.Add(frame(wire.Frame{Type: wire.TypeDeliver, From: "bob", Instance: 7, ID: 1, Epoch: 1, Payload: []byte("x")}))
	f.Add(frame(wire.Frame{Type: wire.TypeKick, Code: wire.Busy, RetryMS: 1 << 31, Addrs: []string{"b:1", "ws://", "%"}}))
	f.Add(append(frame(wire.Frame{Type: wire.TypeGoaway, Code: wire.Draining}), 0, 0, 0, 1, 0xa0))
	f.Add([]byte{0xff, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, "a:1")
			cfg := n.config("a:1")
			cfg.DisableReconnect = true
			var fc *fakeConn
			c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
			fc.conn.Write(b)
			fc.conn.Close()
			<-c.Done()
			for {
				if _, err := c.Receive(t.Context()); err != nil {
					break
				}
			}
			shut(t, c)
		})
	})
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"a:1", "tls://a:1", "ws://a/x", "wss://[::1]:5/v1/ws", "http://a:1", "a", ":1", "tcp://a:1/x", "%zz", "ws://u:p@h:1/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		again, err := parseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %+v, read again %+v (%v)", s, a, again, err)
		}
		for _, from := range []string{"tls://x:1", "wss://x:1"} {
			secure, _ := parseAddress(from)
			if told, ok := resolveTold(s, secure); ok && !told.secure() {
				t.Errorf("%q told over %s became %s", s, from, told)
			}
		}
		if strings.ContainsAny(a.host, "/?#") {
			t.Errorf("host %q", a.host)
		}
	})
}
