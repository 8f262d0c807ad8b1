package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

// sendTo sends one message to an address and checks how it ends.
func (u *user) sendTo(to client.Address, text string, ack wire.AckMode, want wire.Code, count int) client.Result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := u.SendTo(ctx, to, []byte(text), client.WithAck(ack), client.WithTimeout(patience))
	if r.Code != want || r.Count != count {
		u.t.Fatalf("%s to %s: %v %s, %d reached (%v), want %v, %d", text, to, r.Code, r.Text, r.Count, err, want, count)
	}
	return r
}

func (u *user) join(groups ...string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, g := range groups {
		if err := u.Join(ctx, g); err != nil {
			u.t.Fatalf("%v joins %s: %v", u.ID(), g, err)
		}
	}
}

func (u *user) leave(group string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := u.Leave(ctx, group); err != nil {
		u.t.Fatalf("%v leaves %s: %v", u.ID(), group, err)
	}
}

func TestGroups(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice, bob, carol, dave := c.dial("alice", n1), c.dial("bob", n2), c.dial("carol", n2), c.dial("dave", n3)

	t.Log("a group without members is offline, and that is proven")
	alice.sendTo(client.ToGroup("lobby"), "x", wire.AckOwner, wire.Offline, 0)

	t.Log("a message goes once to each node that has members, and to each member")
	bob.join("lobby")
	carol.join("lobby")
	dave.join("lobby", "other")
	sent := n1.router.casts.forwarded.Load()
	r := alice.sendTo(client.ToGroup("lobby"), "hello", wire.AckOwner, wire.Delivered, 3)
	if got := n1.router.casts.forwarded.Load() - sent; got != 2 {
		t.Errorf("%d forwarded, want one for each of two nodes", got)
	}
	for _, u := range []*user{bob, carol, dave} {
		m := u.hears("hello")
		if m.From != "alice" || m.Kind != wire.ToGroup || m.Group != "lobby" || m.ID != r.ID {
			t.Errorf("%v got %+v, sent as %v", u.ID(), m, r.ID)
		}
	}

	t.Log("members reach themselves, here and elsewhere")
	alice.join("lobby")
	alice.sendTo(client.ToGroup("lobby"), "me too", wire.AckNone, wire.None, 0)
	for _, u := range []*user{alice, bob, carol, dave} {
		u.hears("me too")
	}

	t.Log("ack by the clients themselves")
	done := make(chan client.Result, 1)
	if _, err := alice.SendToAsync(client.ToGroup("lobby"), []byte("ack me"), wire.AckClient, patience, func(r client.Result) { done <- r }); err != nil {
		t.Fatal(err)
	}
	for _, u := range []*user{alice, bob, carol, dave} {
		u.hears("ack me")
	}
	if r := <-done; r.Code != wire.Delivered || r.Count != 4 {
		t.Errorf("%+v", r)
	}

	t.Log("direct messages and those to groups do not get in each other's way")
	for i := range 20 {
		alice.send("bob", fmt.Sprintf("direct %d", i), wire.AckOwner, wire.Delivered, patience)
		alice.sendTo(client.ToGroup("lobby"), fmt.Sprintf("group %d", i), wire.AckOwner, wire.Delivered, 4)
		bob.hears(fmt.Sprintf("direct %d", i))
		bob.hears(fmt.Sprintf("group %d", i))
	}

	t.Log("what the API says")
	ops := api{n3}
	page, err := ops.Groups(c.ctx, admin.GroupQuery{Limit: 1})
	if err != nil || len(page.Groups) != 1 || page.Next != "lobby" || page.Groups[0].Members != 4 || !slices.Equal(page.Groups[0].Nodes, []string{"n1", "n2", "n3"}) {
		t.Errorf("groups: %+v, %v", page, err)
	}
	page, err = ops.Groups(c.ctx, admin.GroupQuery{Limit: 10, Cursor: page.Next})
	if err != nil || len(page.Groups) != 1 || page.Groups[0].Group != "other" || page.Next != "" {
		t.Errorf("groups: %+v, %v", page, err)
	}
	topic := wire.Topic{Kind: wire.TopicGroup, Name: "lobby"}
	var members []string
	for cursor, i := "", 0; i == 0 || cursor != ""; i++ {
		m, err := ops.GroupMembers(c.ctx, topic, admin.GroupQuery{Limit: 3, Cursor: cursor})
		if err != nil || m.Count != 4 || len(m.Errors) != 0 || i > 1 {
			t.Fatalf("members: %+v, %v", m, err)
		}
		for _, v := range m.Members {
			members = append(members, v.Client+"@"+v.Node)
		}
		cursor = m.Next
	}
	if !slices.Equal(members, []string{"alice@n1", "bob@n2", "carol@n2", "dave@n3"}) {
		t.Errorf("members: %v", members)
	}
	res, err := ops.Send(c.ctx, admin.Message{
		Kind: wire.ToGroup, To: wire.ClientID{ID: "lobby"}, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}, Ack: wire.AckOwner, Timeout: patience, Payload: []byte("from ops"),
	})
	if err != nil || res.Code != wire.Delivered || res.Count != 4 {
		t.Errorf("API send: %+v, %v", res, err)
	}

	t.Log("who leaves is out, and an empty node is taken from the table after a while")
	dave.leave("lobby")
	alice.sendTo(client.ToGroup("lobby"), "without dave", wire.AckOwner, wire.Delivered, 3)
	carol.hangUp()
	c.until("carol is out", func() error {
		if n := n2.present.Load().topics.size(topic); n != 1 {
			return fmt.Errorf("%d members on n2", n)
		}
		return nil
	})
	c.until("n3 is out", func() error {
		if h := n1.fsm.Holders(topic, nil); len(h) != 2 {
			return fmt.Errorf("%v", h)
		}
		return nil
	})

	t.Log("a group that is closed")
	closed := make(chan string, 10)
	cfg, eve := dialConfig("eve", n3)
	cfg.Groups = []string{"lobby"}
	cfg.OnLeft = func(group string, why *wire.Error) { closed <- fmt.Sprintf("%s %v %s", group, why.Code, why.Text) }
	if err := c.dialErr(cfg, eve); err != nil {
		t.Fatal(err)
	}
	alice.sendTo(client.ToGroup("lobby"), "with eve", wire.AckOwner, wire.Delivered, 3)
	end, err := ops.CloseGroup(c.ctx, topic, "party is over")
	if err != nil || end.Count != 3 || len(end.Errors) != 0 {
		t.Errorf("close: %+v, %v", end, err)
	}
	if got := <-closed; got != "lobby group_closed party is over" {
		t.Errorf("eve was told %q", got)
	}
	c.until("bob knows", func() error {
		if g := bob.Groups(); len(g) != 0 {
			return fmt.Errorf("%v", g)
		}
		return nil
	})
	alice.sendTo(client.ToGroup("lobby"), "anybody?", wire.AckOwner, wire.Offline, 0)
	bob.join("lobby")
	alice.sendTo(client.ToGroup("lobby"), "again", wire.AckOwner, wire.Delivered, 1)
}

func TestBroadcast(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice, bob, bot := c.dial("alice", n1), c.dial("bob", n2), c.dial("bot-1", n3)
	cfg, other := dialConfig("stranger", n3)
	cfg.Tenant = "acme"
	if err := c.dialErr(cfg, other); err != nil {
		t.Fatal(err)
	}
	alice.sendTo(client.ToAll(), "all", wire.AckOwner, wire.Delivered, 3)
	alice.sendTo(client.ToOthers(), "others", wire.AckOwner, wire.Delivered, 2)
	alice.sendTo(client.ToPrefix("bo"), "prefix", wire.AckOwner, wire.Delivered, 2)
	alice.sendTo(client.ToPrefix("bot-"), "bots", wire.AckOwner, wire.Delivered, 1)
	alice.sendTo(client.ToPrefix("zzz"), "nobody", wire.AckOwner, wire.Offline, 0)
	for u, want := range map[*user][]string{alice: {"all"}, bob: {"all", "others", "prefix"}, bot: {"all", "others", "prefix", "bots"}} {
		got := map[string]wire.Kind{}
		for range want { // the orders of different addresses have nothing to do with each other
			ctx, cancel := context.WithTimeout(c.ctx, patience)
			m, err := u.Receive(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			got[string(m.Payload)] = m.Kind
		}
		for _, w := range want {
			if _, ok := got[w]; !ok {
				t.Errorf("%v did not get %s, only %v", u.ID(), w, got)
			}
		}
	}
	other.sendTo(client.ToAll(), "acme", wire.AckOwner, wire.Delivered, 1)
	other.hears("acme")
}

// TestOthersOfTheAPI: the API's others are those of the name that it sends for, on every node; it may be the name of a user.
func TestOthersOfTheAPI(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	c.dial("alice", n1)
	c.dial("bob", n2)
	c.dial("bob/phone", n1)
	c.dial("api", n3)
	for from, want := range map[string]uint32{"alice": 3, "bob": 2, "bob/phone": 3, "": 4, "api": 3} {
		m := admin.Message{From: from, Kind: wire.ToOthers, Payload: []byte("api's"), Ack: wire.AckOwner, Timeout: patience, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}}
		if r, err := (api{n3}).Send(c.ctx, m); err != nil || r.Code != wire.Delivered || r.Count != want {
			t.Errorf("to others than %q: %+v %v, want %d", from, r, err, want)
		}
	}
}

func TestUserDevices(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	bob := c.dial("bob", n1)
	bob.sendTo(client.ToUser("alice"), "x", wire.AckOwner, wire.Offline, 0)
	bob.send("alice", "x", wire.AckOwner, wire.Offline, patience)
	phone, web := c.dial("alice/phone", n2), c.dial("alice/web", n3)

	t.Log("the id of a user is all his devices, to whoever has just logged in too")
	bob.sendTo(client.ToClient("alice"), "one", wire.AckOwner, wire.Delivered, 2)
	bob.sendTo(client.ToUser("alice"), "two", wire.AckOwner, wire.Delivered, 2)
	for _, u := range []*user{phone, web} {
		u.hears("one")
		u.hears("two")
	}
	plain := c.dial("alice", n1)
	bob.sendTo(client.ToClient("alice"), "three", wire.AckOwner, wire.Delivered, 3)
	for _, u := range []*user{phone, web, plain} {
		u.hears("three")
	}
	bob.send("alice/phone", "just you", wire.AckOwner, wire.Delivered, patience)
	phone.hears("just you")

	r, err := api{n2}.Route(c.ctx, admin.RouteQuery{Client: wire.ClientID{ID: "alice"}, Consistency: admin.Linearizable})
	if err != nil || !r.Found || len(r.Devices) != 2 || r.Devices[0].Client != "alice/phone" || r.Devices[1].Node != "n3" {
		t.Errorf("route: %+v, %v", r, err)
	}

	t.Log("one that is gone is not counted")
	web.hangUp()
	c.routeGoes(n1, "alice/web")
	bob.sendTo(client.ToUser("alice"), "four", wire.AckOwner, wire.Delivered, 2)
	phone.hears("four")
	plain.hears("four")
}

// TestGroupOrderWhileMembersMove: each member sees each sender's messages in sending order and none twice, while members are
// sent from node to node, and stays a member.
func TestGroupOrderWhileMembersMove(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	nodes := []*Node{n1, n2, n3}
	const senders, movers = 3, 4
	type seen struct {
		mu   sync.Mutex
		last [senders]int
		n    int
	}
	var members [movers]seen
	var users [movers]*user
	for i := range movers {
		cfg, u := dialConfig(fmt.Sprintf("m%d", i), nodes...)
		cfg.Groups = []string{"g"}
		cfg.OnMessage = func(m client.Message) {
			var from, k int
			if _, err := fmt.Sscanf(string(m.Payload), "%d.%d", &from, &k); err != nil {
				t.Errorf("%q", m.Payload)
				return
			}
			s := &members[i]
			s.mu.Lock()
			defer s.mu.Unlock()
			if k <= s.last[from] {
				t.Errorf("m%d: %d of sender %d after %d", i, k, from, s.last[from])
			}
			s.last[from] = k
			s.n++
		}
		if err := c.dialErr(cfg, u); err != nil {
			t.Fatal(err)
		}
		users[i] = u
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var sent [senders]int
	for i := range senders {
		u := c.dial(fmt.Sprintf("s%d", i), nodes[i])
		wg.Go(func() {
			for k := 1; !stop.Load(); k++ {
				ack := wire.AckOwner
				if k%3 != 0 {
					ack = wire.AckNone
				}
				if r, err := u.SendTo(c.ctx, client.ToGroup("g"), fmt.Appendf(nil, "%d.%d", i, k), client.WithAck(ack), client.WithTimeout(patience)); err != nil && r.Code != wire.Offline && r.Code != wire.Timeout && r.Code != wire.Unknown {
					t.Errorf("sender %d: %v", i, err)
				}
				sent[i] = k
			}
		})
	}
	for round := range 12 {
		u := users[round%movers]
		st := u.State()
		c.moveFrom(u, st.Node, nodes)
	}
	stop.Store(true)
	wg.Wait()
	last := c.dial("last", n1)
	last.sendTo(client.ToGroup("g"), "0.999999999", wire.AckOwner, wire.Delivered, movers)
	for i := range members {
		c.until(fmt.Sprintf("m%d has the last one", i), func() error {
			members[i].mu.Lock()
			defer members[i].mu.Unlock()
			if members[i].last[0] != 999999999 || members[i].n == 0 {
				return fmt.Errorf("last %v of %d", members[i].last, members[i].n)
			}
			return nil
		})
		t.Logf("m%d got %d of %v", i, members[i].n, sent)
	}
}

// moveFrom makes a client's node send it elsewhere, and waits until it is there.
func (c *cluster) moveFrom(u *user, from string, nodes []*Node) {
	c.t.Helper()
	for _, n := range nodes {
		if n.Name() != from {
			continue
		}
		l := n.present.Load()
		s, ok := l.claims.current(u.ID())
		if !ok {
			c.t.Fatalf("%v is not on %s", u.ID(), from)
		}
		s.Close(wire.Draining, "move on")
	}
	u.sees("another node", func(s client.State) bool { return s.Kind == client.Connected && s.Epoch > 0 && s.Node != from })
}

func TestGroupLimitsAndReconnect(t *testing.T) {
	c := newCluster(t)
	n1 := c.found("n1")
	r := rawLogin(t, n1, "raw", 1, 1)
	r.want(wire.TypeWelcome)
	for i := range wire.MaxGroups {
		r.write(&wire.Frame{Type: wire.TypeJoin, To: fmt.Sprintf("g%d", i), ID: uint64(i + 1)})
	}
	for range wire.MaxGroups {
		if f := r.want(wire.TypeResult); f.Code != wire.Joined {
			t.Fatalf("%+v", f)
		}
	}
	r.write(&wire.Frame{Type: wire.TypeJoin, To: "one more", ID: 5000})
	if f := r.want(wire.TypeResult); f.Code != wire.Refused || f.ID != 5000 {
		t.Fatalf("%+v", f)
	}
	r.write(&wire.Frame{Type: wire.TypeJoin, To: "g1", ID: 5001}) // again
	if f := r.want(wire.TypeResult); f.Code != wire.Joined {
		t.Fatalf("%+v", f)
	}
	r.write(&wire.Frame{Type: wire.TypeLeave, To: "g1", ID: 5002})
	if f := r.want(wire.TypeResult); f.Code != wire.Left {
		t.Fatalf("%+v", f)
	}
	l := n1.present.Load()
	if st := l.topics.stats(); st.members != wire.MaxGroups-1 {
		t.Errorf("%+v", st)
	}
	_ = r.conn.Close()
	c.until("nothing is left", func() error {
		if st := l.topics.stats(); st.members != 0 || st.topics != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})

	t.Log("more groups than a login can carry are all joined again")
	u := c.dial("many", n1)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("many-%d", i))
	}
	u.join(names...)
	s, _ := l.claims.current(u.ID())
	s.Close(wire.IdleTimeout, "again")
	u.sees("the reconnect", func(s client.State) bool { return s.Kind == client.Connected && s.Epoch > 2 })
	u.join(names...)
	alice := c.dial("alice", n1)
	for _, g := range names {
		alice.sendTo(client.ToGroup(g), g, wire.AckOwner, wire.Delivered, 1)
	}
}
