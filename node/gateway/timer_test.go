package gateway

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestWheelModel arms, moves and stops timers at random and compares with a list that is searched.
func TestWheelModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	w := newWheel()
	timers := make([]timer, 50)
	for i := range timers {
		timers[i].s = &Session{}
	}
	want := make(map[*Session]time.Duration)
	now := time.Duration(0)
	for range 5000 {
		tm := &timers[rnd.IntN(len(timers))]
		at := now + time.Duration(rnd.Int64N(int64(400*time.Second))) - time.Second // some are over already
		due := max(at, now)
		switch rnd.IntN(4) {
		case 0:
			w.stop(tm)
			delete(want, tm.s)
		case 1:
			w.armEarlier(tm, at)
			if old, ok := want[tm.s]; !ok || due < old {
				want[tm.s] = due
			}
		case 2:
			w.arm(tm, at)
			want[tm.s] = due
		case 3:
			now += time.Duration(rnd.Int64N(int64(3 * time.Second)))
			if rnd.IntN(50) == 0 {
				now += time.Duration(rnd.Int64N(int64(300 * time.Second))) // a suspension
			}
			w.advance(now, func(s *Session) {
				if at, ok := want[s]; !ok || at > now {
					t.Fatalf("fired at %v, due %v (%v)", now, at, ok)
				}
				delete(want, s)
			})
			for _, at := range want {
				if at+2*tick < now {
					t.Fatalf("due %v, not fired at %v", at, now)
				}
			}
		}
	}
	for i := range timers {
		w.stop(&timers[i])
	}
	for i := range w.slots {
		if w.slots[i].next != &w.slots[i] {
			t.Fatal("a stopped timer is left in the wheel")
		}
	}
}

func manual(clock *manualClock, more func(c *Config, n *fakeNode)) func(c *Config, n *fakeNode) {
	return func(c *Config, n *fakeNode) {
		c.Clock = clock
		if more != nil {
			more(c, n)
		}
	}
}

// A login that waits for a fence counts as online from its end, not from its beginning.
func TestAgeCountsFromOpening(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, func(_ *Config, n *fakeNode) {
		n.login = func(_ context.Context, s *Session, waiting func(time.Duration)) (Welcome, error) {
			waiting(10 * time.Second)
			clock.advance(5 * time.Second)
			if age := s.Age(); age != 0 {
				t.Errorf("age %v before it is open", age)
			}
			return Welcome{Epoch: 7}, nil
		}
	}))
	c := r.dial()
	c.send(loginFrame("bob"))
	expect(t, c, wire.TypeWaiting)
	expect(t, c, wire.TypeWelcome)
	s := r.node.session(t, "bob")
	before := clock.Now()
	clock.advance(2 * time.Second)
	if want := clock.Now().Sub(before); s.Age() != want {
		t.Errorf("age %v, want %v", s.Age(), want)
	}
}

func TestIdle(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, nil))
	quiet, lively := r.dial(), r.dialWS()
	r.login(quiet, "quiet")
	s := r.login(lively, "lively")
	for range 10 {
		clock.advance(5 * time.Second)
		lively.send(&wire.Frame{Type: wire.TypePing})
		expect(t, lively, wire.TypePong)
		if at := clock.Now().Sub(s.Since()); at < 30*time.Second {
			if r.Count() != 2 {
				t.Fatalf("closed after %v", at)
			}
		}
	}
	expectKick(t, quiet, wire.IdleTimeout)
	clock.jump(time.Hour) // as after a suspension
	expectKick(t, lively, wire.IdleTimeout)
}

func TestHandshakeTimeout(t *testing.T) {
	both(t, nil, func(t *testing.T, _ *rig, _ func() client) {
		clock := newManualClock()
		r := newRig(t, manual(clock, nil))
		dial := func() client { return r.dial() }
		if t.Name() == "TestHandshakeTimeout/ws" {
			dial = func() client { return r.dialWS() }
		}
		c := dial()
		eventually(t, "the connection", func() bool { return r.Stats().Connections == 1 })
		clock.advance(9 * time.Second)
		if r.Stats().Connections != 1 {
			t.Fatal("closed early")
		}
		clock.advance(2 * time.Second)
		expectKick(t, c, wire.LoginTimeout)
	})
}

func TestLoginTimeout(t *testing.T) {
	clock := newManualClock()
	began := make(chan struct{})
	r := newRig(t, manual(clock, func(_ *Config, n *fakeNode) {
		n.login = func(ctx context.Context, _ *Session, _ func(time.Duration)) (Welcome, error) {
			close(began)
			<-ctx.Done()
			return Welcome{}, context.Cause(ctx)
		}
	}))
	c := r.dial()
	c.send(loginFrame("bob"))
	<-began
	clock.advance(16 * time.Second)
	expectKick(t, c, wire.LoginTimeout)
}

func TestCloseDuringLogin(t *testing.T) {
	began := make(chan *Session, 1)
	r := newRig(t, func(_ *Config, n *fakeNode) {
		n.login = func(ctx context.Context, s *Session, _ func(time.Duration)) (Welcome, error) {
			s.Deliver(&wire.Forward{Epoch: 1, Instance: 1, Counter: 1, From: "x"}, nil)
			began <- s
			<-ctx.Done()
			return Welcome{Epoch: 1}, nil // too late
		}
	})
	c := r.dial()
	c.send(loginFrame("bob"))
	s := <-began
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectKick(t, c, wire.LeaseLost)
	<-s.Done()
	if st := r.Stats(); st.Logins[wire.LeaseLost] != 1 || st.Logins[wire.OK] != 0 {
		t.Errorf("logins %v", st.Logins)
	}
}

func TestTokenEnds(t *testing.T) {
	clock := newManualClock()
	key := Key{ID: "k", Alg: AlgHS256, Key: make([]byte, 32)}
	r := newRig(t, manual(clock, func(c *Config, _ *fakeNode) {
		c.DevMode, c.Auth, c.Idle = false, mustAuth(t, key), time.Hour
	}))
	token, err := signToken(key, Issued{}, "bob", "acme", nil, nil, clock.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	f := loginFrame("")
	f.Token = token
	c.send(f)
	expect(t, c, wire.TypeWelcome)
	r.node.mu.Lock()
	if r.node.bySess[wire.ClientID{Tenant: "acme", ID: "bob"}] == nil {
		t.Error("client and tenant not taken from the token")
	}
	r.node.mu.Unlock()
	clock.advance(59 * time.Second)
	if r.Count() != 1 {
		t.Fatal("closed early")
	}
	clock.advance(2 * time.Second)
	expectKick(t, c, wire.TokenExpired)
	again := r.dial()
	again.send(f)
	expectKick(t, again, wire.TokenExpired)
}

func TestGoawayClosesLater(t *testing.T) {
	clock := newManualClock()
	r := newRig(t, manual(clock, nil))
	c := r.dial()
	s := r.login(c, "bob")
	s.Goaway(wire.Draining, 5*time.Second)
	if f := expect(t, c, wire.TypeGoaway); f.TimeoutMS != 5000 {
		t.Errorf("%+v", f)
	}
	clock.advance(4 * time.Second)
	if r.Count() != 1 {
		t.Fatal("closed early")
	}
	clock.advance(2 * time.Second)
	expectKick(t, c, wire.Draining)
}

// TestSupersededAfterGoaway: the log says who wanted that client to move.
func TestSupersededAfterGoaway(t *testing.T) {
	for name, asked := range map[string]bool{"asked": true, "own": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.dial()
			s := r.login(c, "bob")
			if asked {
				s.Goaway(wire.Draining, 5*time.Second)
				expect(t, c, wire.TypeGoaway)
			}
			s.Close(wire.Superseded, "a later connection")
			want := "a later connection"
			if asked {
				want = "it connected elsewhere, as this node had asked it to (draining)"
			}
			if f := expectKick(t, c, wire.Superseded); f.Text != want {
				t.Errorf("%q, want %q", f.Text, want)
			}
		})
	}
}
