package gateway

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// Over any time, what a bucket lets through is what was saved up and the rate times that time, and hardly less if asked all
// the time.
func TestBucket(t *testing.T) {
	for _, rate := range []int{1, 3, 100, 12345, 1e6} {
		for _, burst := range []time.Duration{500 * time.Millisecond, time.Second, 10 * time.Second} {
			var paid, taken int64
			cost := price(1, rate, 1)
			const seconds = 20
			for now := time.Duration(0); now < seconds*time.Second; now += tick {
				for {
					next, wait := take(paid, cost, int64(burst), int64(now))
					if wait > 0 {
						if again, left := take(paid, cost, int64(burst), int64(now)+wait); left > 0 || again <= paid {
							t.Fatalf("rate %d: told to wait for %v, and then for %v", rate, time.Duration(wait), time.Duration(left))
						}
						break
					}
					paid = next
					taken++
				}
			}
			most := int64(float64(rate)*(seconds+burst.Seconds())) + 1
			if taken > most+most/1000 || taken < int64(rate)*(seconds-1) {
				t.Errorf("rate %d, burst %v: %d taken in %d s, want up to %d", rate, burst, taken, seconds, most)
			}
		}
	}
	// What is larger than all that can be saved up passes when nothing is owed, and is paid for.
	next, wait := take(0, int64(10*time.Second), int64(time.Second), 0)
	if wait != 0 || next != int64(10*time.Second) {
		t.Errorf("a large one: %v, %v", next, wait)
	}
	if _, wait := take(next, 1, int64(time.Second), int64(5*time.Second)); wait != int64(4*time.Second)+1 {
		t.Errorf("behind it: wait for %v", time.Duration(wait))
	}
}

// Many sessions of a tenant together get what it may, however much each takes ahead.
func TestTenantBucketShared(t *testing.T) {
	ts := newTenants(Limiting{Limits: Limits{TenantRate: 9000}, Burst: time.Second, Nodes: func() int { return 3 }})
	ts.second(0)
	tn, _, err := ts.enter("acme", 0)
	if err != nil {
		t.Fatal(err)
	}
	var clock, taken atomic.Int64
	var wg sync.WaitGroup
	const sessions, seconds = 8, 5
	for now := time.Duration(0); now < seconds*time.Second; now += tick {
		clock.Store(int64(now))
		for range sessions {
			wg.Go(func() {
				m := &meter{}
				for {
					if wait, why := ts.charge(tn, m, 10, clock.Load()); wait > 0 {
						if why != DropTenantRate {
							t.Errorf("refused for %v", why)
						}
						return
					}
					taken.Add(1)
				}
			})
		}
		wg.Wait()
	}
	// A third of 9000 a second, and a second of it saved up.
	if n := taken.Load(); n > 3000*(seconds+1)+1 || n < 3000*(seconds-1) {
		t.Errorf("%d taken", n)
	}
	ts.leave(tn, clock.Load())
	if ts.second(clock.Load()); len(ts.all) != 1 {
		t.Error("a tenant that owes is forgotten: by leaving and coming back it would have all again")
	}
	if ts.second(clock.Load() + int64(10*time.Second)); len(ts.all) != 0 {
		t.Error("a tenant that has gone is kept")
	}
}

func TestLimitedMessages(t *testing.T) {
	clock := newManualClock()
	var sent atomic.Int64
	change := manual(clock, func(c *Config, n *fakeNode) {
		sent.Store(0)
		c.Limits = Limiting{
			Limits:  Limits{ClientRate: 4, ClientBytes: 1000},
			Tenants: map[string]Limits{"big": {}, "acme": {TenantRate: 6}, "heavy": {TenantBytes: 1000}},
		}
		n.send = func(*Session, *wire.Frame) { sent.Add(1) }
	})
	both(t, change, func(t *testing.T, r *rig, dial func() client) {
		in := func(tenant, id string) client {
			c := dial()
			f := loginFrame(id)
			f.Tenant = tenant
			c.send(f)
			expect(t, c, wire.TypeWelcome)
			return c
		}
		id := uint64(0)
		// say sends n messages and returns how many were refused; every one of them is told.
		say := func(c client, n, size int, text string) (refused int) {
			t.Helper()
			for range n {
				id++
				c.send(&wire.Frame{Type: wire.TypeSend, To: "x", ID: id, Payload: []byte(strings.Repeat("x", size))})
			}
			c.send(&wire.Frame{Type: wire.TypePing})
			for {
				var f wire.Frame
				if err := c.recv(&f); err != nil {
					t.Fatal(err)
				}
				if f.Type == wire.TypePong {
					return refused
				}
				if f.Type != wire.TypeResult || f.Code != wire.RateLimited || f.RetryMS < 250 || f.RetryMS > 2000 || !strings.Contains(f.Text, text) {
					t.Fatalf("%+v", f)
				}
				refused++
			}
		}
		want := func(what string, got, want int) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %d refused, want %d", what, got, want)
			}
		}
		bob, carol := in("", "bob"), in("", "carol")
		want("a second's worth and three more", say(bob, 7, 1, "this client sends more messages"), 3)
		want("another client of the same tenant", say(carol, 4, 1, "-"), 0)
		clock.advance(time.Second)
		want("a second later", say(bob, 5, 1, "messages"), 1)
		clock.advance(20 * time.Second)
		want("more is not saved up", say(bob, 8, 1, "messages"), 4)
		clock.advance(time.Second)
		want("bytes", say(carol, 3, 600, "more bytes"), 2)
		want("a tenant without limits", say(in("big", "bob"), 50, 500, "-"), 0)

		a, b := in("acme", "a"), in("acme", "b")
		n := say(a, 5, 1, "-")
		want("a tenant's two clients together", n+say(b, 5, 1, "this tenant sends more messages"), 4)
		want("a tenant's bytes", say(in("heavy", "a"), 2, 900, "this tenant sends more bytes"), 1)

		st := r.Stats()
		for why, n := range map[Drop]uint64{DropClientRate: 8, DropClientBytes: 2, DropTenantRate: 4, DropTenantBytes: 1} {
			if st.Drops[why] != n {
				t.Errorf("%v: %d counted, want %d", why, st.Drops[why], n)
			}
		}
		if got := sent.Load(); got != int64(id)-15 {
			t.Errorf("%d of %d messages reached the node", got, id)
		}
	})
}

func TestLimitedLogins(t *testing.T) {
	clock := newManualClock()
	change := manual(clock, func(c *Config, _ *fakeNode) {
		c.Limits = Limiting{
			Tenants: map[string]Limits{"few": {TenantSessions: 5}, "slow": {TenantLogins: 2}},
			Nodes:   func() int { return 2 },
		}
	})
	both(t, change, func(t *testing.T, r *rig, dial func() client) {
		in := func(tenant, id string) client {
			c := dial()
			f := loginFrame(id)
			f.Tenant = tenant
			c.send(f)
			return c
		}
		clock.advance(2 * time.Second) // so that it knows how many nodes there are
		var few []client
		for i := range 3 { // half of five, rounded up
			few = append(few, in("few", fmt.Sprint(i)))
			expect(t, few[i], wire.TypeWelcome)
		}
		if k := expectKick(t, in("few", "d"), wire.Busy); !strings.Contains(k.Text, "3 of 5") || k.RetryMS == 0 || len(k.Addrs) == 0 {
			t.Errorf("%+v", k)
		}
		expect(t, in("other", "a"), wire.TypeWelcome)
		few[0].hangUp()
		eventually(t, "it has left", func() bool { return r.tenants.all["few"].sessions.Load() == 2 })
		expect(t, in("few", "d"), wire.TypeWelcome)

		expect(t, in("slow", "a"), wire.TypeWelcome) // one a second at each of two nodes
		if k := expectKick(t, in("slow", "b"), wire.Busy); !strings.Contains(k.Text, "logs in more often") {
			t.Errorf("%+v", k)
		}
		clock.advance(time.Second)
		expect(t, in("slow", "b"), wire.TypeWelcome)
		st := r.Stats()
		if st.Drops[DropTenantSessions] != 1 || st.Drops[DropTenantLogins] != 1 {
			t.Errorf("%v", st.Drops)
		}
	})
}

// A client that joins too fast is held up, and gets into everything.
func TestPacedJoins(t *testing.T) {
	r := newRig(t, func(c *Config, _ *fakeNode) {
		c.Limits = Limiting{Limits: Limits{ClientRate: 20}, Burst: 500 * time.Millisecond}
	})
	c := r.dial()
	r.login(c, "bob")
	start := time.Now()
	for i := uint64(1); i <= 16; i++ {
		c.send(&wire.Frame{Type: wire.TypeJoin, To: fmt.Sprint("room", i), ID: i})
	}
	for i := uint64(1); i <= 16; i++ {
		if f := expect(t, c, wire.TypeResult); f.ID != i || f.Code != wire.Joined {
			t.Fatalf("%+v", f)
		}
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("all joined within %v", took)
	}
	for i := uint64(1); i <= 40; i++ { // and one that goes meanwhile is not waited for
		c.send(&wire.Frame{Type: wire.TypeJoin, To: fmt.Sprint("room", i), ID: i})
	}
	s := r.node.session(t, "bob")
	s.Close(wire.Kicked, "")
	<-s.Done()
}

// A client that sends without reading its answers for a while is read no further, and loses neither its session nor an answer.
func TestAnswersHoldUpSender(t *testing.T) {
	both(t, func(c *Config, n *fakeNode) {
		c.QueueBytes = 32 << 10
		n.send = func(s *Session, f *wire.Frame) { s.Result(f.ID, wire.Offline, "", strings.Repeat("why ", 200)) }
	}, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		r.login(c, "bob")
		const n = 8000 // some 6 MB of answers: more than sockets take
		go func() {
			for i := uint64(1); i <= n; i++ {
				c.send(&wire.Frame{Type: wire.TypeSend, To: "x", ID: i})
			}
		}()
		eventually(t, "it is held up", func() bool { return r.Stats().HeldUp > 0 })
		for i := uint64(1); i <= n; i++ {
			if f := expect(t, c, wire.TypeResult); f.ID != i || f.Code != wire.Offline {
				t.Fatalf("answer %d: %+v", i, f)
			}
		}
	})
}

// A message over the limit is refused, and the session goes on.
func TestTooLargeMessage(t *testing.T) {
	both(t, func(c *Config, n *fakeNode) {
		c.MaxPayload = 1000
		n.send = func(s *Session, f *wire.Frame) { s.Result(f.ID, wire.Delivered, "", "") }
	}, func(t *testing.T, r *rig, dial func() client) {
		c := dial()
		r.login(c, "bob")
		sizes := []int{1001, 1900}
		if _, tcp := c.(*tcpClient); tcp {
			sizes = append(sizes, 20_000, 300_000, 2<<20)
		}
		for i, size := range sizes {
			c.send(&wire.Frame{Type: wire.TypeSend, To: "x", ID: uint64(2*i + 1), Payload: []byte(strings.Repeat("x", size))})
			if f := expect(t, c, wire.TypeResult); f.ID != uint64(2*i+1) || f.Code != wire.TooLarge || !strings.Contains(f.Text, fmt.Sprintf("payload of %d bytes, the limit is 1000", size)) {
				t.Errorf("%d bytes: %+v", size, f)
			}
			c.send(&wire.Frame{Type: wire.TypeSend, To: "x", ID: uint64(2*i + 2), Payload: []byte("small")})
			if f := expect(t, c, wire.TypeResult); f.ID != uint64(2*i+2) || f.Code != wire.Delivered {
				t.Errorf("behind %d bytes: %+v", size, f)
			}
		}
		if n := r.Stats().Drops[DropTooLarge]; n != uint64(len(sizes)) {
			t.Errorf("%d counted", n)
		}
	})
}

func TestBadLimits(t *testing.T) {
	for want, l := range map[string]Limiting{
		"client-rate is -1":    {Limits: Limits{ClientRate: -1}},
		`tenant "a": tenant-b`: {Tenants: map[string]Limits{"a": {TenantBytes: 2e9}}},
		"must not contain":     {Tenants: map[string]Limits{"a:b": {}}},
		"Burst is 1ms":         {Burst: time.Millisecond},
	} {
		c := Config{TCP: "127.0.0.1:0", DevMode: true, Backend: &fakeNode{}, Limits: l}
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

func BenchmarkCharge(b *testing.B) {
	ts := newTenants(Limiting{Limits: Limits{ClientRate: 1e7, ClientBytes: 1e9, TenantRate: 1e7, TenantBytes: 1e9}, Burst: time.Minute})
	tn, _, err := ts.enter("acme", 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		m := &meter{}
		for now := int64(0); pb.Next(); now += 1000 {
			ts.charge(tn, m, 1, now)
		}
	})
}
