package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func (s *Session) resting() rest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rest
}

func expectRest(t *testing.T, s *Session, want rest) {
	t.Helper()
	eventually(t, fmt.Sprintf("rest %d", want), func() bool { return s.resting() == want })
}

func atOnce(c *Config, _ *fakeNode) { c.Doze = 1 }

var ping = wire.AppendFrame(nil, &wire.Frame{Type: wire.TypePing})

// TestDoze: what comes wakes a session, whole or in parts; what goes does not.
func TestDoze(t *testing.T) {
	r := newRig(t, atOnce)
	c := r.dial()
	s := r.login(c, "bob")
	expectRest(t, s, dozing)
	for range 3 {
		c.write(ping)
		expect(t, c, wire.TypePong)
		expectRest(t, s, dozing)
	}
	var rc receipts
	if code := s.Deliver(message(1, wire.AckOwner, "hello"), &rc); code != wire.None {
		t.Fatal(code)
	}
	expect(t, c, wire.TypeDeliver)
	rc.wait(t, 1, wire.Delivered)
	expectRest(t, s, dozing)

	for cut := 1; cut < len(ping); cut++ {
		c.write(ping[:cut])
		expectRest(t, s, settling)
		c.write(append(ping[cut:len(ping):len(ping)], ping...)) // and another one
		expect(t, c, wire.TypePong)
		expect(t, c, wire.TypePong)
		expectRest(t, s, dozing)
	}
	c.write(ping[:1])
	expectRest(t, s, settling)
	s.Close(wire.Draining, "") // inside a frame
	expectKick(t, c, wire.Draining)
}

// TestDozeDeaf: when nobody waits for the bell any more, sessions are heard all the same.
func TestDozeDeaf(t *testing.T) {
	r := newRig(t, atOnce)
	asleep, late := r.dial(), r.dial()
	s := r.login(asleep, "asleep")
	expectRest(t, s, dozing)
	r.bell.close()
	expectRest(t, s, reading)
	r.login(late, "late")
	for range 3 {
		for _, c := range []*tcpClient{asleep, late} {
			c.write(ping)
			expect(t, c, wire.TypePong)
		}
	}
}

// TestDozeEnds: the ways in which a dozing session ends.
func TestDozeEnds(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, func(c *Config, _ *fakeNode) { c.KickTimeout = 100 * time.Millisecond }))
	enter := func(id string) (*tcpClient, *Session) {
		c := r.dial()
		s := r.login(c, id)
		expectRest(t, s, dozing)
		return c, s
	}
	c, s := enter("closed")
	s.Close(wire.Replaced, "")
	expectKick(t, c, wire.Replaced)
	<-s.Done()

	c, s = enter("gone")
	c.hangUp()
	<-s.Done()
	if s.CloseCode() != wire.ConnectionLost {
		t.Error(s.CloseCode())
	}

	c, s = enter("half gone")
	_ = c.nc.(*net.TCPConn).CloseWrite()
	<-s.Done()
	if s.CloseCode() != wire.ConnectionLost {
		t.Error(s.CloseCode())
	}

	c, s = enter("reset")
	_ = c.nc.(*net.TCPConn).SetLinger(0)
	c.hangUp()
	<-s.Done()

	c, s = enter("bye")
	c.send(&wire.Frame{Type: wire.TypeBye})
	<-s.Done()
	if s.CloseCode() != wire.Bye {
		t.Error(s.CloseCode())
	}

	c, s = enter("wrong")
	c.write([]byte{0, 0, 0, 1, 0xff})
	expectKick(t, c, wire.ProtocolError)
	<-s.Done()

	c, s = enter("silent")
	clock.advance(31 * time.Second)
	expectKick(t, c, wire.IdleTimeout)
	<-s.Done()

	c, s = enter("told to go")
	s.Goaway(wire.Draining, time.Second)
	expect(t, c, wire.TypeGoaway)
	expectRest(t, s, dozing)
	clock.advance(2 * time.Second)
	expectKick(t, c, wire.Draining)

	c, s = enter("left behind")
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	expectKick(t, c, wire.ShuttingDown)
}

// TestDozeWhenQuiet: a session that has something to say keeps its goroutine until the wheel finds it quiet, and that disturbs
// nothing that is half received.
func TestDozeWhenQuiet(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, func(c *Config, _ *fakeNode) { c.MaxPayload, c.Idle, c.Doze = 1000, time.Hour, 2*time.Second }))
	c := r.dial()
	s := r.login(c, "bob")
	expectRest(t, s, dozing)
	for range 20 { // talks every second, for longer than Doze
		c.write(ping)
		expect(t, c, wire.TypePong)
		expectRest(t, s, reading)
		clock.advance(time.Second)
		expectRest(t, s, reading)
	}
	clock.advance(time.Second + 3*tick)
	expectRest(t, s, dozing)
	for range 5 { // after a long silence each time
		clock.advance(8 * time.Second)
		c.write(ping)
		expect(t, c, wire.TypePong)
		expectRest(t, s, dozing)
	}
	clock.advance(time.Second)
	c.write(ping) // soon again
	expect(t, c, wire.TypePong)
	expectRest(t, s, reading)
	clock.advance(3 * time.Second)
	expectRest(t, s, dozing)

	parts := func(frame []byte, answer wire.Type) {
		t.Helper()
		for range 2 { // so that it reads
			c.write(ping)
			expect(t, c, wire.TypePong)
			eventually(t, "it is dealt with", func() bool { return s.resting() != settling })
		}
		expectRest(t, s, reading)
		for len(frame) > 0 {
			in := r.Stats().BytesIn
			n := max(1, min(len(frame)/2, 5000))
			c.write(frame[:n])
			frame = frame[n:]
			eventually(t, "it is received", func() bool { return r.Stats().BytesIn >= in+uint64(n) })
			clock.advance(2*time.Second + 3*tick)
		}
		expect(t, c, answer)
		clock.advance(3 * time.Second)
		expectRest(t, s, dozing)
	}
	parts(ping, wire.TypePong)
	big := wire.Frame{Type: wire.TypeSend, To: "alice", ID: 1, Payload: make([]byte, 20_000)} // is read past
	parts(wire.AppendFrame(nil, &big), wire.TypeResult)
}

// TestDozeNotPossible: without the system's help a session keeps its goroutine and tries again later.
func TestDozeNotPossible(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, nil))
	broken := bell{fd: -1}
	good := r.bell
	r.bell = &broken
	c := r.dial()
	s := r.login(c, "bob")
	for range 3 {
		expectRest(t, s, reading)
		c.write(ping)
		expect(t, c, wire.TypePong)
		clock.advance(3 * time.Second)
	}
	s.Close(wire.Replaced, "")
	expectKick(t, c, wire.Replaced)
	r.bell = good
}

func TestNeverDozes(t *testing.T) {
	for name, change := range map[string]func(*Config, *fakeNode){
		"off": func(c *Config, _ *fakeNode) { c.Doze = -1 },
		"not the system's": func(c *Config, _ *fakeNode) {
			c.Listen = func(ctx context.Context, network, addr string) (net.Listener, error) {
				l, err := new(net.ListenConfig).Listen(ctx, network, addr)
				return struct{ net.Listener }{l}, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, change)
			c := r.dial()
			s := r.login(c, "bob")
			c.write(ping)
			expect(t, c, wire.TypePong)
			if r.bell != nil || s.resting() != awake {
				t.Errorf("rest %d", s.resting())
			}
			ws := r.dialWS()
			if s := r.login(ws, "eve"); s.resting() != awake {
				t.Errorf("WebSocket: rest %d", s.resting())
			}
		})
	}
}

// TestThousandsDoze: many doze, and all end when half of them are just being woken.
func TestThousandsDoze(t *testing.T) {
	const n = 1000
	r := newRig(t, func(c *Config, _ *fakeNode) { c.Doze, c.WS = 1, "" })
	clients := make([]*tcpClient, n)
	sessions := make([]*Session, n)
	for i := range clients {
		clients[i] = r.dial()
		sessions[i] = r.login(clients[i], fmt.Sprint("c", i))
	}
	for _, s := range sessions {
		expectRest(t, s, dozing)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, c := range clients[:n/2] {
			_, _ = c.nc.Write(ping) // some are closed already
		}
	})
	wg.Go(func() {
		for _, c := range clients[n/4 : n*3/4] {
			c.hangUp()
		}
	})
	r.CloseAll(wire.Draining)
	wg.Wait()
	for _, s := range sessions {
		<-s.Done()
	}
	for _, c := range clients {
		c.hangUp()
	}
}

// TestDozeSoak has clients talk in whole and in pieces, at once or after a pause, while others send to them and close them, and
// time runs fast: nothing that was sent may lie unread.
func TestDozeSoak(t *testing.T) {
	const clients, rounds = 12, 15
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i, quiet := range []time.Duration{1, tick, 4 * tick} {
		t.Run(quiet.String(), func(t *testing.T) {
			clock := newManualClock()
			r := newRig(t, manual(clock, func(c *Config, _ *fakeNode) {
				c.Doze, c.WS = quiet, ""
				c.Idle, c.HandshakeTimeout, c.LoginTimeout = 24*time.Hour, 24*time.Hour, 24*time.Hour
				c.KickTimeout = 20 * time.Millisecond
			}))
			stop := make(chan struct{})
			var time_, wg sync.WaitGroup
			time_.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Microsecond):
						clock.advance(tick)
					}
				}
			})
			for k := range clients {
				wg.Go(func() { soak(t, r, rand.New(rand.NewPCG(seed, uint64(100*i+k))), fmt.Sprint("c", k), rounds) })
			}
			wg.Wait()
			close(stop)
			time_.Wait()
		})
	}
}

// soak is one client; it may use only those of t's methods that other goroutines may.
func soak(t *testing.T, r *rig, rnd *rand.Rand, id string, rounds int) {
	addr, _ := r.Addrs()
	pause := func(most time.Duration) { <-time.After(time.Duration(rnd.Int64N(int64(most)))) }
	for attempt := range 4 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		c := &tcpClient{t, nc}
		var f wire.Frame
		write := func(b []byte) bool {
			for len(b) > 0 {
				n := 1 + rnd.IntN(len(b))
				if _, err := nc.Write(b[:n]); err != nil {
					return false
				}
				if b = b[n:]; rnd.IntN(3) == 0 {
					pause(500 * time.Microsecond)
				}
			}
			return true
		}
		write(wire.AppendFrame(nil, loginFrame(id)))
		if err := c.recv(&f); err != nil || f.Type != wire.TypeWelcome {
			t.Errorf("%s: %v %v", id, f.Type, err)
			return
		}
		r.node.mu.Lock()
		s := r.node.bySess[wire.ClientID{ID: id}]
		r.node.mu.Unlock()
		for round := range rounds {
			pings := 1 + rnd.IntN(3)
			for range pings {
				if !write(ping) {
					t.Errorf("%s: cannot write", id)
					return
				}
			}
			delivers := rnd.IntN(2)
			if delivers > 0 {
				if code := s.Deliver(message(uint64(round+1), wire.AckNone, strings.Repeat("x", rnd.IntN(100))), nil); code != wire.None {
					t.Errorf("%s: %v", id, code)
				}
			}
			for pings+delivers > 0 {
				err := c.recv(&f)
				switch {
				case err == nil && f.Type == wire.TypePong:
					pings--
				case err == nil && f.Type == wire.TypeDeliver:
					delivers--
				default:
					t.Errorf("%s: round %d, resting %d: %+v %v", id, round, s.resting(), f.Type, err)
					return
				}
			}
			if rnd.IntN(2) == 0 {
				pause(2 * time.Millisecond)
			}
		}
		switch (attempt + rnd.IntN(2)) % 4 {
		case 0:
			_ = nc.Close()
		case 1:
			b := binary.BigEndian.AppendUint32(nil, 100) // and no more of it
			_, _ = nc.Write(b[:1+rnd.IntN(4)])
			s.Close(wire.Draining, "")
		case 2:
			go s.Close(wire.Draining, "") // at the same time
			_, _ = nc.Write(ping)
		case 3:
			_ = nc.(*net.TCPConn).CloseWrite()
		}
		select {
		case <-s.Done():
		case <-time.After(patience):
			t.Errorf("%s: does not end, resting %d", id, s.resting())
		}
		_ = nc.Close()
	}
}

// TestCloseBeforeDoze: a session that is closed after there was nothing to read, and before it dozes, does not.
func TestCloseBeforeDoze(t *testing.T) {
	r := newRig(t, func(c *Config, n *fakeNode) {
		c.Doze = 1
		n.send = func(s *Session, _ *wire.Frame) { // the read goroutine
			s.Close(wire.Draining, "")
			if s.doze() {
				t.Error("dozes on")
			}
		}
	})
	c := r.dial()
	s := r.login(c, "bob")
	expectRest(t, s, dozing)
	c.send(&wire.Frame{Type: wire.TypeSend, To: "alice", ID: 1, Payload: []byte("x")})
	expectKick(t, c, wire.Draining)
	<-s.Done()
}
