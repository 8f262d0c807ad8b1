package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/node/gateway"
)

// TestTenantsNeverMeet has the same ids and groups in three tenants, one of them without a name, and tries every way in which
// anything could get from one to another.
func TestTenantsNeverMeet(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	tenants := []string{"", "acme", "beta"}
	us := map[string]map[string]*user{} // by tenant and id
	for i, tenant := range tenants {
		us[tenant] = map[string]*user{}
		for j, id := range []string{"alice", "bob", "eve/phone", "eve/web"} {
			cfg, u := dialConfig(id, []*Node{n1, n2, n3}[(i+j)%3])
			cfg.Tenant = tenant
			if err := c.dialErr(cfg, u); err != nil {
				t.Fatalf("%s:%s: %v", tenant, id, err)
			}
			us[tenant][id] = u
			u.join("lobby")
		}
	}
	colon := c.dial("acme:bob", n1) // looks like bob of acme where the two are written together
	c.until("every node knows all", func() error {
		for _, n := range []*Node{n1, n2, n3} {
			if st := n.fsm.Stats(); st.Routes != 13 {
				return fmt.Errorf("%s has %d routes", n.Name(), st.Routes)
			}
		}
		return nil
	})

	// Everything below is sent once by each tenant's alice, and must be heard by its own, in this order and nothing else.
	heard := map[string][]string{}
	say := func(to client.Address, what string, count int, by ...string) {
		t.Helper()
		for _, tenant := range tenants {
			us[tenant]["alice"].sendTo(to, tenant+" "+what, wire.AckOwner, wire.Delivered, count)
		}
		for _, id := range by {
			heard[id] = append(heard[id], what)
		}
	}
	say(client.ToClient("bob"), "direct", 0, "bob")
	say(client.ToClient("eve"), "to the devices", 2, "eve/phone", "eve/web")
	say(client.ToUser("eve"), "to the user", 2, "eve/phone", "eve/web")
	say(client.ToGroup("lobby"), "to the group", 4, "alice", "bob", "eve/phone", "eve/web")
	say(client.ToPrefix("eve"), "to a prefix", 2, "eve/phone", "eve/web")
	for i, tenant := range tenants { // the tenant without a name has one more client
		more := 0
		if tenant == "" {
			more = 1
		}
		us[tenant]["alice"].sendTo(client.ToOthers(), tenant+" to the others", wire.AckOwner, wire.Delivered, 3+more)
		us[tenant]["alice"].sendTo(client.ToAll(), tenant+" to all", wire.AckOwner, wire.Delivered, 4+more)
		at := api{[]*Node{n3, n1, n2}[i]}
		for _, m := range []admin.Message{
			{Kind: wire.ToClient, To: wire.ClientID{ID: "bob"}, Payload: []byte(tenant + " API direct")},
			{Kind: wire.ToGroup, To: wire.ClientID{ID: "lobby"}, Payload: []byte(tenant + " API group")},
			{Kind: wire.ToPrefix, To: wire.ClientID{ID: "bo"}, Payload: []byte(tenant + " API prefix")},
			{Kind: wire.ToUser, To: wire.ClientID{ID: "eve"}, Payload: []byte(tenant + " API user")},
			{Kind: wire.ToAll, Payload: []byte(tenant + " API all")},
		} {
			m.To.Tenant, m.Ack, m.Timeout, m.From = tenant, wire.AckOwner, patience, "alice"
			m.ID = wire.MessageID{Instance: wire.NewID(), Counter: 1}
			if r, err := at.Send(c.ctx, m); err != nil || r.Code != wire.Delivered {
				t.Errorf("%s: %+v, %v", m.Payload, r, err)
			}
		}
	}
	every := []string{"alice", "bob", "eve/phone", "eve/web"}
	note := func(what string, by ...string) {
		for _, id := range by {
			heard[id] = append(heard[id], what)
		}
	}
	note("to the others", every[1:]...)
	note("to all", every...)
	note("API direct", "bob")
	note("API group", every...)
	note("API prefix", "bob")
	note("API user", "eve/phone", "eve/web")
	note("API all", every...)
	for _, tenant := range tenants {
		for id, u := range us[tenant] {
			want := slices.Sorted(slices.Values(heard[id])) // lanes of different kinds may overtake each other
			var got []string
			for range want {
				ctx, cancel := context.WithTimeout(c.ctx, patience)
				m, err := u.Receive(ctx)
				cancel()
				if err != nil {
					t.Fatalf("%s:%s got %q, want %q: %v", tenant, id, got, want, err)
				}
				from, what, _ := strings.Cut(string(m.Payload), " ")
				if from != tenant {
					t.Errorf("%s:%s got %q", tenant, id, m.Payload)
				}
				got = append(got, what)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s:%s got %q, want %q", tenant, id, got, want)
			}
		}
	}
	for _, want := range []string{" to the others", " to all", " API all"} {
		colon.hears(want)
	}

	t.Log("who is where, and who is in what")
	for _, tenant := range tenants {
		for _, n := range []*Node{n1, n2, n3} {
			page, err := api{n}.Routes(c.ctx, admin.RouteListQuery{Tenant: &tenant, Limit: 100})
			more := 0
			if tenant == "" {
				more = 1
			}
			if err != nil || len(page.Routes) != 4+more {
				t.Errorf("routes of %q at %s: %+v, %v", tenant, n.Name(), page.Routes, err)
			}
			for _, r := range page.Routes {
				if r.Tenant != tenant {
					t.Errorf("routes of %q have %+v", tenant, r)
				}
			}
		}
		groups, err := api{n2}.Groups(c.ctx, admin.GroupQuery{Tenant: tenant, Limit: 10})
		if err != nil || len(groups.Groups) != 1 || groups.Groups[0].Members != 4 {
			t.Errorf("groups of %q: %+v, %v", tenant, groups, err)
		}
	}
	r, err := api{n3}.Route(c.ctx, admin.RouteQuery{Client: wire.ClientID{Tenant: "nobody", ID: "bob"}, Consistency: admin.Linearizable})
	if err != nil || r.Found || len(r.Devices) != 0 {
		t.Errorf("a tenant that is not there: %+v, %v", r, err)
	}

	t.Log("a service of each tenant answers its own clients, on whichever node, and one that a tenant does not have is nobody's")
	for _, tenant := range tenants[:2] {
		us[tenant]["eve/web"].serve("clock", echo("clock of "+tenant))
	}
	for _, tenant := range tenants[:2] {
		us[tenant]["alice"].mustRequest(client.ToService("clock"), "?", "clock of "+tenant+":alice:?")
	}
	us["beta"]["alice"].refusedRequest(client.ToService("clock"), patience, wire.Offline)
	watches := map[string]*sightings{}
	for i, tenant := range tenants {
		watches[tenant] = us[tenant]["alice"].watch("bob")
		watches[tenant].seesOnline("bob", []*Node{n1, n2, n3}[(i+1)%3].Name())
	}

	t.Log("what happens to one is not seen by the others: kicks, closed groups, presence, events")
	acme := "acme"
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	var mu sync.Mutex
	var events []admin.RouteEvent
	watching, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		watched <- api{n3}.WatchRoutes(ctx, admin.WatchQuery{Tenant: &acme}, func(e admin.RouteEvent) error {
			mu.Lock()
			defer mu.Unlock()
			if len(events) == 0 {
				close(watching)
			}
			events = append(events, e)
			return nil
		})
	}()
	<-watching
	for _, tenant := range []string{"beta", "acme"} {
		if _, err := (api{n1}).Kick(c.ctx, wire.ClientID{Tenant: tenant, ID: "bob"}, "by test"); err != nil {
			t.Fatal(err)
		}
		us[tenant]["bob"].sees("the kick", closedWith(wire.Kicked))
		watches[tenant].seesOffline("bob")
	}
	watches[""].mu.Lock()
	if !watches[""].last["bob"].Online || len(watches[""].all) != 1 {
		t.Errorf("a bob of no tenant was not kicked: %+v", watches[""].all)
	}
	watches[""].mu.Unlock()
	c.until("acme's bob is seen to go", func() error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			if e.Event == admin.EventGone && e.Client == "bob" {
				return nil
			}
		}
		return errors.New("not yet")
	})
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	for _, e := range events {
		if e.Client != "" && e.Tenant != "acme" {
			t.Errorf("acme's events have %+v", e)
		}
	}
	us[""]["alice"].send("bob", "still there", wire.AckOwner, wire.Delivered, patience)
	us[""]["bob"].hears("still there")
	us["acme"]["alice"].send("bob", "gone", wire.AckOwner, wire.Offline, patience)
	colon.send("bob", "not acme's", wire.AckOwner, wire.Delivered, patience)
	us[""]["bob"].hears("not acme's")
	if _, err := (api{n2}).CloseGroup(c.ctx, wire.Topic{Tenant: "beta", Kind: wire.TopicGroup, Name: "lobby"}, "by test"); err != nil {
		t.Error(err)
	}
	us["beta"]["alice"].sendTo(client.ToGroup("lobby"), "closed", wire.AckOwner, wire.Offline, 0)
	us["acme"]["alice"].sendTo(client.ToGroup("lobby"), "open", wire.AckOwner, wire.Delivered, 3)
}

// TestPermissions: what a token allows is kept to by the node, and what it does not mention is left to the node's rules.
func TestPermissions(t *testing.T) {
	c := newCluster(t)
	n := c.found("n1", func(cfg *Config) {
		cfg.Dev = false
		cfg.Limits.Limits = gateway.Limits{TenantSessions: 3, ClientRate: 40}
	})
	wait := patience
	login := func(id string, g admin.TokenGrants) (*user, error) {
		tok, err := api{n}.ClientToken(c.ctx, wire.ClientID{Tenant: "acme", ID: id}, time.Minute, g)
		if err != nil {
			t.Fatal(err)
		}
		cfg, u := dialConfig(id, n)
		cfg.Token, cfg.DisableReconnect = tok.Token, true
		ctx, cancel := context.WithTimeout(c.ctx, wait)
		defer cancel()
		return u, c.dialIn(ctx, cfg, u)
	}
	must := func(u *user, err error) *user {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	bob := must(login("bob", admin.TokenGrants{}))
	carol := must(login("carol", admin.TokenGrants{Send: &[]string{"user:bob", "group:room-*", "others"}, Join: &[]string{"group:room-*"}}))
	carol.send("bob", "hello", wire.AckOwner, wire.Delivered, patience)
	bob.hears("hello")
	for _, to := range []client.Address{client.ToClient("dave"), client.ToUser("dave"), client.ToGroup("hall"), client.ToAll(), client.ToPrefix("b")} {
		if r := carol.sendTo(to, "no", wire.AckOwner, wire.Forbidden, 0); !strings.Contains(r.Text, "token") {
			t.Errorf("told %q", r.Text)
		}
	}
	carol.sendTo(client.ToOthers(), "all of you", wire.AckOwner, wire.Delivered, 1) // although clients usually may not
	bob.hears("all of you")
	bob.sendTo(client.ToAll(), "no", wire.AckOwner, wire.Forbidden, 0)
	r, err := carol.SendTo(c.ctx, client.ToClient("dave"), []byte("no"), client.WithAck(wire.AckNone))
	if err != nil {
		t.Fatal(err)
	}
	if lost := <-carol.lost; lost.Code != wire.Forbidden || lost.ID != r.ID { // also without an acknowledgement
		t.Errorf("%+v", lost)
	}
	carol.join("room-1")
	if e, ok := errors.AsType[*wire.Error](carol.Join(c.ctx, "hall")); !ok || e.Code != wire.Forbidden {
		t.Errorf("joining what it may not: %v", e)
	}
	carol.sendTo(client.ToGroup("room-1"), "me", wire.AckOwner, wire.Delivered, 1)
	must(login("mute", admin.TokenGrants{Send: &[]string{}})).send("bob", "no", wire.AckOwner, wire.Forbidden, patience)

	t.Log("a client over its rate is told of every message, the others notice nothing")
	const many = 200
	results := make(chan client.Result, many)
	for range many {
		if _, err := bob.SendAsync("carol", []byte("much"), wire.AckOwner, patience, func(r client.Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
	}
	told := map[wire.Code]int{}
	for range many {
		r := <-results
		if told[r.Code]++; r.Code == wire.RateLimited && r.Retry < 250*time.Millisecond {
			t.Fatalf("told to come back in %v", r.Retry)
		}
	}
	if told[wire.Delivered] < 20 || told[wire.RateLimited] < many/4 || told[wire.Delivered]+told[wire.RateLimited] != many {
		t.Errorf("%v", told)
	}
	carol.send("bob", "me?", wire.AckOwner, wire.Delivered, patience)

	wait = time.Second // the SDK goes on trying
	if _, err := login("one too many", admin.TokenGrants{}); err == nil || !strings.Contains(err.Error(), "as many connections") {
		t.Errorf("%v", err)
	}
	if _, err := (api{n}).ClientToken(c.ctx, wire.ClientID{ID: "x"}, time.Minute, admin.TokenGrants{Send: &[]string{"x"}}); err == nil {
		t.Error("a bad pattern was signed")
	}
}
