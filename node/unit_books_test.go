package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

func TestPlanMembership(t *testing.T) {
	const v, n = true, false
	m := func(id wire.NodeID, voter bool) store.Member { return store.Member{ID: id, Voter: voter} }
	type members = []store.Member
	nodes := func(roles ...raftfsm.Role) (out []raftfsm.Node) {
		for i, r := range roles {
			out = append(out, raftfsm.Node{ID: wire.NodeID(i + 1), Role: r, State: raftfsm.Up})
		}
		return out
	}
	dead := func(id int, nodes []raftfsm.Node) []raftfsm.Node {
		nodes[id-1].State = raftfsm.Down
		return nodes
	}
	const auto, voter, non, gone = raftfsm.RoleAuto, raftfsm.RoleVoter, raftfsm.RoleNonVoter, raftfsm.RoleRemoved
	for _, c := range []struct {
		name   string
		config members
		nodes  []raftfsm.Node
		target int
		ready  []wire.NodeID
		want   plan
	}{
		{"one alone", members{m(1, v)}, nodes(auto), 3, []wire.NodeID{1}, plan{}},
		{"a joiner is a non-voter first", members{m(1, v)}, nodes(auto, auto), 3, []wire.NodeID{1, 2}, plan{planAdd, 2}},
		{"a second voter waits for a third", members{m(1, v), m(2, n)}, nodes(auto, auto), 3, []wire.NodeID{1, 2}, plan{}},
		{"and for its catching up", members{m(1, v), m(2, n), m(3, n)}, nodes(auto, auto, auto), 3, []wire.NodeID{1, 2}, plan{}},
		{"then comes first", members{m(1, v), m(3, n), m(2, n)}, nodes(auto, auto, auto), 3, []wire.NodeID{1, 2, 3}, plan{planPromote, 2}},
		{"two are made three", members{m(1, v), m(2, v), m(3, n)}, nodes(auto, auto, auto), 3, []wire.NodeID{3}, plan{planPromote, 3}},
		{"the target is reached", members{m(1, v), m(2, v), m(3, v), m(4, n)}, nodes(auto, auto, auto, auto), 3, []wire.NodeID{4}, plan{}},
		{"four of five are no gain", members{m(1, v), m(2, v), m(3, v), m(4, n)}, nodes(auto, auto, auto, auto), 5, []wire.NodeID{4}, plan{}},
		{"a target of one", members{m(1, v), m(2, n), m(3, n)}, nodes(auto, auto, auto), 1, []wire.NodeID{2, 3}, plan{}},
		{"an operator wants no voter", members{m(1, v), m(2, v), m(3, v)}, nodes(auto, non, auto), 3, nil, plan{planDemote, 2}},
		{"but the last one stays", members{m(1, v)}, nodes(non), 3, nil, plan{}},
		{"an operator wants a voter past the target", members{m(1, v), m(2, n)}, nodes(auto, voter), 1, []wire.NodeID{2}, plan{planPromote, 2}},
		{"once it is ready", members{m(1, v), m(2, n)}, nodes(auto, voter), 1, nil, plan{}},
		{"a non-voter is never promoted", members{m(1, v), m(2, n), m(3, n)}, nodes(auto, non, non), 3, []wire.NodeID{2, 3}, plan{}},
		{"who left the table leaves the configuration", members{m(1, v), m(2, v), m(9, v)}, nodes(auto, auto), 3, nil, plan{planRemove, 9}},
		{"who is to be removed is no voter first", members{m(1, v), m(2, v), m(3, v)}, nodes(auto, gone, auto), 3, nil, plan{planDemote, 2}},
		{"but the last voter stays", members{m(1, v)}, nodes(gone), 3, nil, plan{}},
		{"and stays until its incarnation has ended", members{m(1, v), m(2, n)}, nodes(auto, gone), 3, []wire.NodeID{1, 2}, plan{}},
		{"then it is forgotten", members{m(1, v), m(2, n)}, dead(2, nodes(auto, gone)), 3, nil, plan{planForget, 2}},
		{"whether or not it ever got into the configuration", members{m(1, v)}, dead(2, nodes(auto, gone)), 3, nil, plan{planForget, 2}},
		{"not while it is a voter", members{m(1, v), m(2, v)}, dead(2, nodes(auto, gone)), 3, nil, plan{planDemote, 2}},
		{"joins before removals", members{m(1, v), m(9, v)}, nodes(auto, auto), 3, nil, plan{planAdd, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := planMembership(c.config, c.nodes, c.target, func(id wire.NodeID) bool { return slices.Contains(c.ready, id) })
			if got != c.want {
				t.Errorf("got %v %v, want %v %v", got.what, got.node, c.want.what, c.want.node)
			}
		})
	}
}

func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		running, round := 0, 0
		release := make(chan error)
		r := newRounds(ctx, func(ctx context.Context, qs []int) ([]string, error) {
			if running++; running > 1 {
				t.Error("two rounds at once")
			}
			defer func() { running-- }()
			round++
			at := round
			select {
			case err := <-release:
				if err != nil {
					return nil, err
				}
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			var as []string
			for _, q := range qs {
				as = append(as, fmt.Sprintf("%d in %d of %d", q, at, len(qs)))
			}
			return as, nil
		})
		answers := map[int]string{}
		var mu sync.Mutex
		ask := func(ctx context.Context, q int) {
			go func() {
				a, err := r.do(ctx, q)
				if err != nil {
					a = err.Error()
				}
				mu.Lock()
				defer mu.Unlock()
				answers[q] = a
			}()
			synctest.Wait()
		}
		ask(ctx, 1)
		ask(ctx, 2) // the first round is under way: 2 and 3 join the next
		ask(ctx, 3)
		impatient, cancel := context.WithCancelCause(ctx)
		ask(impatient, 4)
		cancel(errors.New("gave up"))
		synctest.Wait()
		release <- nil
		synctest.Wait()
		ask(ctx, 5) // round 2 is under way
		release <- nil
		synctest.Wait()
		release <- errors.New("lost")
		synctest.Wait()
		ask(ctx, 6)
		end(errors.New("closed"))
		synctest.Wait()
		r.wait()
		ask(context.Background(), 7)
		want := map[int]string{1: "1 in 1 of 1", 2: "2 in 2 of 3", 3: "3 in 2 of 3", 4: "gave up", 5: "lost", 6: "closed", 7: "closed"}
		for q, w := range want {
			if answers[q] != w {
				t.Errorf("%d: %q, want %q", q, answers[q], w)
			}
		}
		if round != 4 {
			t.Errorf("%d rounds, want 4", round)
		}
	})
}

func TestConfirmer(t *testing.T) {
	const self wire.NodeID = 1
	yes := func(q wire.ConfirmRequest) (wire.ConfirmReply, error) {
		return wire.ConfirmReply(q), nil
	}
	newer := func(q wire.ConfirmRequest) (wire.ConfirmReply, error) {
		return wire.ConfirmReply{Nonce: q.Nonce, Term: q.Term + 1}, nil
	}
	older := func(q wire.ConfirmRequest) (wire.ConfirmReply, error) {
		return wire.ConfirmReply{Nonce: q.Nonce + 1, Term: q.Term}, nil
	}
	down := func(wire.ConfirmRequest) (wire.ConfirmReply, error) { return wire.ConfirmReply{}, errors.New("down") }
	type voter = func(wire.ConfirmRequest) (wire.ConfirmReply, error)
	var hangs voter // never answers
	for _, c := range []struct {
		name   string
		self   bool // the leader is a voter
		others []voter
		want   wire.Code
	}{
		{"alone", true, nil, wire.OK},
		{"all", true, []voter{yes, yes}, wire.OK},
		{"one down", true, []voter{yes, down}, wire.OK},
		{"one hangs", true, []voter{hangs, yes}, wire.OK},
		{"two down", true, []voter{down, down}, wire.Unavailable},
		{"two hang", true, []voter{hangs, hangs}, wire.Unavailable},
		{"a newer term", true, []voter{newer, newer}, wire.Unavailable},
		{"answers of another round", true, []voter{older, older}, wire.Unavailable},
		{"two of four are no majority", true, []voter{yes, down, down}, wire.Unavailable},
		{"the leader is no voter and does not count", false, []voter{yes, down}, wire.Unavailable},
		{"the leader is no voter, all say yes", false, []voter{yes, yes}, wire.OK},
		{"no voters", false, nil, wire.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancel(t.Context())
				cf := &confirmer{
					self: self, timeout: time.Second, leading: func() (uint64, bool) { return 7, true },
					voters: func() (ids []wire.NodeID, _ error) {
						if c.self {
							ids = append(ids, self)
						}
						for i := range c.others {
							ids = append(ids, wire.NodeID(i+2))
						}
						return ids, nil
					},
					ask: func(ctx context.Context, to wire.NodeID, q wire.ConfirmRequest) (wire.ConfirmReply, error) {
						if to == self {
							t.Error("asked itself")
						}
						if f := c.others[to-2]; f != nil {
							return f(q)
						}
						<-ctx.Done()
						return wire.ConfirmReply{}, ctx.Err()
					},
				}
				cf.open(ctx)
				start := time.Now()
				err := cf.confirm(ctx, 7)
				if got := codeOf(err); got != c.want {
					t.Errorf("got %v (%v), want %v", got, err, c.want)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("took %v, longer than a round may", took)
				}
				if c.want == wire.OK {
					if err := cf.confirm(ctx, 6); !errors.Is(err, errNotLeader) {
						t.Errorf("a former term was confirmed: %v", err)
					}
				}
				cf.leading = func() (uint64, bool) { return 0, false }
				if err := cf.confirm(ctx, 7); !errors.Is(err, errNotLeader) {
					t.Errorf("confirmed without leading: %v", err)
				}
				end()
				cf.rounds.wait()
			})
		})
	}
}

func TestLeaseHolder(t *testing.T) {
	l := leaseHolder{length: 4 * time.Second, margin: time.Second}
	if l.holds(0) || l.left(time.Second) > 0 {
		t.Error("holds without a grant")
	}
	l.granted(l.until(10*time.Second, 0))
	if !l.holds(13*time.Second-1) || l.holds(13*time.Second) || l.left(11*time.Second) != 2*time.Second {
		t.Error("counted from somewhere else than the sending")
	}
	l.granted(l.until(9*time.Second, 0)) // an older renewal's answer is late
	if !l.holds(13*time.Second - 1) {
		t.Error("an older grant shortened it")
	}
	l.drop()
	if l.holds(11 * time.Second) {
		t.Error("holds after drop")
	}
}

func TestGrantor(t *testing.T) {
	const s = time.Second
	m := member{node: 1, incarnation: 5, live: true}
	fresh := func() *grantor {
		g := newGrantor(3, 4*s, s)
		g.observe(0, []member{m})
		return g
	}
	expired := func(g *grantor, at time.Duration, m member) bool { return len(g.expired(at, []member{m})) == 1 }

	g := fresh()
	if expired(g, 5*s, m) || !expired(g, 5*s+1, m) {
		t.Error("a new leader must treat everybody as renewed at its barrier, for length + margin")
	}
	if code := g.renew(5*s, m, 5); code != wire.BadIncarnation {
		t.Errorf("an expiring incarnation was granted: %v", code)
	}
	if !expired(g, 6*s, m) {
		t.Error("the mark was forgotten before the table knows")
	}
	next := member{node: 1, incarnation: 6, live: true}
	if expired(g, 7*s, next) || g.renew(7*s, next, 6) != wire.OK {
		t.Error("the next incarnation begins with a full timer")
	}
	if g.renew(7*s, next, 5) != wire.BadIncarnation {
		t.Error("a former incarnation was granted")
	}
	g = fresh()
	if g.renew(4*s, m, 5) != wire.OK || expired(g, 9*s, m) || !expired(g, 9*s+1, m) {
		t.Error("counted from somewhere else than the receipt")
	}
	g = fresh()
	g.renew(4*s, m, 5)
	g.renew(2*s, m, 5) // overtaken
	if expired(g, 9*s, m) {
		t.Error("an older renewal shortened the lease")
	}
	dead := m
	dead.live = false
	if g.renew(3*s, dead, 5) != wire.BadIncarnation || expired(g, 100*s, dead) {
		t.Error("a node that is down is neither granted nor expired")
	}
	g = fresh()
	m.removed = true
	if g.renew(2*s, m, 5) != wire.Refused || expired(g, 5*s, m) || !expired(g, 5*s+1, m) {
		t.Error("a node being removed gets nothing more and runs out")
	}
}

func TestClaims(t *testing.T) {
	bob := wire.ClientID{ID: "bob"}
	begun := func(ss ...string) *claims[string] {
		c := newClaims[string]()
		for _, s := range ss {
			c.begin(bob, s)
		}
		return c
	}
	empty := func(t *testing.T, c *claims[string]) {
		t.Helper()
		if n := len(c.shard(bob).clients); n != 0 {
			t.Errorf("%d claims are left: %+v", n, *c.shard(bob).clients[bob])
		}
	}
	t.Run("open and end", func(t *testing.T) {
		c := begun("a")
		if _, ok := c.find(bob, 0); ok {
			t.Error("found without an epoch")
		}
		if l := c.learn(bob, "a", 4); !l.open || len(l.close) != 0 {
			t.Errorf("learn: %+v", l)
		}
		if s, ok := c.find(bob, 4); !ok || s != "a" {
			t.Error("not found under its epoch")
		}
		if _, ok := c.find(bob, 3); ok {
			t.Error("found under another epoch")
		}
		if e := c.ended(bob, "a"); e != 4 {
			t.Errorf("unregister %v, want 4", e)
		}
		if e := c.ended(bob, "a"); e != 0 {
			t.Errorf("ended twice unregisters %v", e)
		}
		empty(t, c)
	})
	t.Run("a later one closes an earlier one", func(t *testing.T) {
		c := begun("a", "b")
		c.learn(bob, "a", 4)
		l := c.learn(bob, "b", 5)
		if !l.open || !slices.Equal(l.close, []string{"a"}) {
			t.Errorf("learn: %+v", l)
		}
		if _, ok := c.find(bob, 4); ok {
			t.Error("the former one is found still")
		}
		if e := c.ended(bob, "a"); e != 0 {
			t.Errorf("the replaced one unregisters %v", e)
		}
		if s, ok := c.current(bob); !ok || s != "b" {
			t.Error("the new one is not current")
		}
		c.ended(bob, "b")
		empty(t, c)
	})
	t.Run("an earlier epoch learned late closes itself", func(t *testing.T) {
		c := begun("a", "b")
		c.learn(bob, "b", 5)
		if l := c.learn(bob, "a", 4); l.open || len(l.close) != 0 {
			t.Errorf("learn: %+v", l)
		}
		if s, _ := c.find(bob, 5); s != "b" {
			t.Error("the newer one was closed")
		}
	})
	t.Run("pending ended before its epoch is known", func(t *testing.T) {
		c := begun("a")
		if e := c.ended(bob, "a"); e != 0 {
			t.Errorf("unregisters %v", e)
		}
		if l := c.learn(bob, "a", 4); l.open {
			t.Error("opened after its end")
		}
		empty(t, c)
	})
	t.Run("revoke closes what is open up to the epoch", func(t *testing.T) {
		c := begun("a")
		c.learn(bob, "a", 4)
		if _, had := c.revoke(bob, 3, 0); had {
			t.Error("an older revoke closed a newer session")
		}
		if s, had := c.revoke(bob, 4, 0); !had || s != "a" {
			t.Errorf("closes %q, %v", s, had)
		}
		if _, ok := c.find(bob, 4); ok {
			t.Error("found after the revoke")
		}
		if got := c.closing(bob); len(got) != 1 || got[0] != "a" {
			t.Errorf("%v are waited for, want the revoked one", got)
		}
		if e := c.ended(bob, "a"); e != 4 {
			t.Errorf("unregisters %d: whoever revoked may not have waited, so it is done once more", e)
		}
		empty(t, c)
	})
	t.Run("a refused epoch in flight", func(t *testing.T) {
		c := begun("a")
		if _, had := c.revoke(bob, 4, 9); had {
			t.Error("there was nothing open")
		}
		c.answered(8, []wire.ClientID{bob}) // another batch
		if l := c.learn(bob, "a", 4); l.open {
			t.Error("a refused epoch was opened")
		}
		c.answered(9, []wire.ClientID{bob})
		empty(t, c)
	})
	t.Run("a refusal concerns no later epoch", func(t *testing.T) {
		c := begun("a")
		c.revoke(bob, 4, 9)
		if l := c.learn(bob, "a", 5); !l.open {
			t.Error("a later epoch was refused")
		}
		c.answered(9, []wire.ClientID{bob})
		if s, _ := c.find(bob, 5); s != "a" {
			t.Error("gone with the refusal")
		}
	})
	t.Run("nothing in flight, nothing to remember", func(t *testing.T) {
		c := newClaims[string]()
		c.revoke(bob, 4, 0)
		empty(t, c)
	})
}

func TestConfigValidate(t *testing.T) {
	ok := func() Config { return Config{Name: "n1", Data: "d"} }
	c := ok()
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	if d := DefaultConfig(); c.Timings != d.Timings || c.Mesh != d.Mesh || c.Voters != 3 || c.Lanes != d.Lanes || c.MaxPayload != 1<<20 {
		t.Errorf("defaults: %+v", c)
	}
	for want, change := range map[string]func(*Config){
		"--data":             func(c *Config) { c.Data = "" },
		"--bootstrap":        func(c *Config) { c.Bootstrap, c.Join = true, []string{"a:1"} },
		"--token":            func(c *Config) { c.Token = "t" },
		"mesh: address":      func(c *Config) { c.Mesh.Bind = "nowhere" },
		"--advertise-admin":  func(c *Config) { c.Admin.Bind = "0.0.0.0:1" },
		"--advertise-client": func(c *Config) { c.ClientTCP.Bind = ":1" },
		"max-payload":        func(c *Config) { c.MaxPayload = 1 << 30 },
		"lanes":              func(c *Config) { c.Lanes = 1000 },
		"idle":               func(c *Config) { c.Idle = time.Millisecond },
		"voters":             func(c *Config) { c.Voters = 4 },
		"max-sessions":       func(c *Config) { c.MaxSessions = -1 },
		"pending-max":        func(c *Config) { c.PendingMax = 1 },
		"duplicate":          func(c *Config) { c.Duplicate = "fight" },
		"name":               func(c *Config) { c.Name = "a b" },
		"heartbeat":          func(c *Config) { c.Timings.Heartbeat = time.Microsecond },
		"--lease":            func(c *Config) { c.Timings.Lease = time.Second },
		"quiet":              func(c *Config) { c.Timings.Quiet = time.Second },
	} {
		c := ok()
		change(&c)
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := fast.validate(); err != nil {
		t.Error(err)
	}
	edge := DefaultTimings()
	edge.Lease = edge.Renew + edge.Margin + 3*edge.Heartbeat + 2*edge.Election + slack
	edge.Quiet = edge.Lease
	if err := edge.validate(); err != nil {
		t.Errorf("exactly enough: %v", err)
	}
	edge.Lease--
	if edge.validate() == nil {
		t.Error("a nanosecond too short was taken")
	}
	n, err := New(ok(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(t.Context()); err != nil { // never opened
		t.Error(err)
	}
}

// A member that was read from the table before a NodeUp neither gets anything nor takes the later incarnation's marks away.
func TestGrantorKeepsTheLaterIncarnation(t *testing.T) {
	g := newGrantor(1, time.Second, 100*time.Millisecond)
	older, later := member{node: 7, incarnation: 1, live: true}, member{node: 7, incarnation: 2, live: true}
	g.observe(0, []member{older})
	g.observe(0, []member{later})
	if got := g.expired(2*time.Second, []member{later}); len(got) != 1 {
		t.Fatalf("%v expired", got)
	}
	if code := g.renew(2*time.Second, older, 1); code != wire.BadIncarnation {
		t.Errorf("the older incarnation was answered %v", code)
	}
	if got := g.expired(2*time.Second, []member{older}); len(got) != 0 {
		t.Errorf("the older incarnation expired: %v", got)
	}
	if code := g.renew(2*time.Second, later, 2); code != wire.BadIncarnation {
		t.Errorf("an expired incarnation was answered %v", code)
	}
}
