package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/node/datadir"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// alone waits until at does not lead any more.
func (c *cluster) alone(at *Node) {
	c.t.Helper()
	c.until("no leader", func() error {
		if at.store.IsLeader() {
			return errors.New("still leads")
		}
		return nil
	})
}

func TestDrain(t *testing.T) {
	c := newCluster(t)
	n1, n2, _ := c.three()
	alice := c.dial("alice", n2)
	bob := c.dial("bob", n1, n2)
	if _, err := (api{n2}).DrainNode(c.ctx, "n1", false); err != nil {
		t.Fatal(err)
	}
	bob.sees("another node", connectedElsewhere(n1))
	alice.send("bob", "there", wire.AckOwner, wire.Delivered, patience)
	bob.hears("there")
	c.until("n1 is empty", func() error {
		if got := n1.gateway.Count(); got != 0 {
			return fmt.Errorf("%d sessions", got)
		}
		return nil
	})
	cfg, u := dialConfig("carol", n1)
	cfg.DisableReconnect = true
	if r := (api{n1}).Ready(); r.Ready {
		t.Error("ready while draining")
	}
	if f := rawLogin(t, n1, "carol", 9, 1).want(wire.TypeKick); f.Code != wire.Draining || len(f.Addrs) != 2 {
		t.Errorf("login while draining: told %v, alternatives %v", f.Code, f.Addrs)
	}
	t.Log("a drain outlives a restart, and ends when it is cancelled")
	c.stop(n1)
	n1, err := c.open(c.config("n1"))
	if err != nil {
		t.Fatal(err)
	}
	c.state(n2, n1.ID(), raftfsm.Draining)
	if _, err := (api{n2}).DrainNode(c.ctx, "n1", true); err != nil {
		t.Fatal(err)
	}
	c.state(n1, n1.ID(), raftfsm.Up)
	c.ready(n1)
	cfg.Addrs = []string{n1.Addrs().ClientTCP}
	cfg.DisableReconnect = false
	if err := c.dialErr(cfg, u); err != nil {
		t.Errorf("login after the drain was cancelled: %v", err)
	}
}

func TestAdmission(t *testing.T) {
	c := newCluster(t)
	n1 := c.found("n1")
	other := c.found("x1")

	bad := c.joining("n2", n1)
	bad.Token = c.token(other)
	if _, err := c.open(bad); isError(err, "another cluster") != nil {
		t.Errorf("token of another cluster: %v", err)
	}
	good := c.joining("n2", n1)
	bad = good
	bad.Token = good.Token[:len(good.Token)-1] + map[bool]string{true: "a", false: "b"}[good.Token[len(good.Token)-1] != 'a']
	if _, err := c.open(bad); err == nil {
		t.Error("a changed token let it in")
	}
	tokens, err := api{n1}.Tokens(c.ctx)
	if err != nil || len(tokens) != 2 {
		t.Errorf("tokens: %+v, %v", tokens, err)
	}
	for _, tok := range tokens {
		if err := (api{n1}).RevokeToken(c.ctx, tok.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.open(good); isError(err, "imctl cluster token create") != nil {
		t.Errorf("revoked token: %v", err)
	}
	expired, err := api{n1}.CreateToken(c.ctx, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	bad.Token = expired.Token
	if _, err := c.open(bad); isError(err, "expired") != nil {
		t.Errorf("expired token: %v", err)
	}
	if _, err := c.open(c.config("n2")); isError(err, "--bootstrap", "--join") != nil {
		t.Errorf("new folder without a word: %v", err)
	}
	taken := c.joining("n2", n1)
	taken.Name = "n1"
	if _, err := c.open(taken); isError(err, "n1") != nil {
		t.Errorf("a name that is taken: %v", err)
	}

	t.Log("joining again is harmless")
	n2 := c.join("n2", n1)
	c.stop(n2)
	n2 = c.start(c.joining("n2", n1))

	t.Log("one process a folder, and one name")
	second := c.config("n2")
	if _, err := c.open(second); err == nil {
		t.Error("a second node started on the same folder")
	}
	c.stop(n2)
	renamed := c.config("n2")
	renamed.Name = "n9"
	if _, err := c.open(renamed); isError(err, "n9", "n2") != nil {
		t.Errorf("another name: %v", err)
	}
	t.Log("nothing is left of a start that failed")
	c.start(c.config("n2"))
}

func TestClientTokens(t *testing.T) {
	c := newCluster(t)
	secure := func(cfg *Config) { cfg.Dev = false }
	n1 := c.found("n1", secure)
	cfg2 := c.joining("n2", n1)
	secure(&cfg2)
	n2 := c.start(cfg2)
	if n1.AdminToken() == "" || n1.AdminToken() != n2.AdminToken() {
		t.Error("the operators' token is not the cluster's")
	}
	token := func(at *Node, id string) string {
		tok, err := api{at}.ClientToken(c.ctx, wire.ClientID{ID: id}, time.Minute, admin.TokenGrants{})
		if err != nil {
			t.Fatal(err)
		}
		return tok.Token
	}
	cfg, alice := dialConfig("alice", n1)
	if e, ok := errors.AsType[*wire.Error](c.dialErr(cfg, alice)); !ok || e.Code != wire.BadToken {
		t.Errorf("login without a token: %v", e)
	}
	cfg.Token = token(n2, "bob")
	if e, ok := errors.AsType[*wire.Error](c.dialErr(cfg, alice)); !ok || e.Code != wire.BadToken {
		t.Errorf("login with another's token: %v", e)
	}
	cfg.Token = token(n2, "alice") // signed by one node, checked by the other
	if err := c.dialErr(cfg, alice); err != nil {
		t.Fatal(err)
	}
	cfg, bob := dialConfig("bob", n2)
	cfg.Token = token(n1, "bob")
	if err := c.dialErr(cfg, bob); err != nil {
		t.Fatal(err)
	}
	alice.send("bob", "secret", wire.AckOwner, wire.Delivered, patience)
	bob.hears("secret")
}

// TestIssuedTokens: where tokens must be for somebody and by somebody, those that the cluster signs are, on every node.
func TestIssuedTokens(t *testing.T) {
	c := newCluster(t)
	secure := func(cfg *Config) {
		cfg.Dev, cfg.ClientIssuer, cfg.ClientAudience = false, "https://login.example.com", "chat"
	}
	n1 := c.found("n1", secure)
	cfg2 := c.joining("n2", n1)
	secure(&cfg2)
	n2 := c.start(cfg2)
	login := func(at *Node, token string) error {
		cfg, u := dialConfig("alice", at)
		cfg.Token = token
		return c.dialErr(cfg, u)
	}
	tok, err := api{n1}.ClientToken(c.ctx, wire.ClientID{ID: "alice"}, time.Minute, admin.TokenGrants{})
	if err != nil {
		t.Fatal(err)
	}
	if err := login(n2, tok.Token); err != nil {
		t.Errorf("a token of the cluster's: %v", err)
	}
	keys, err := gateway.ParseKeys([]byte(n1.secrets.ClientKeys))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		issued gateway.Issued
		want   string
	}{
		{gateway.Issued{}, "issuer (iss)"},
		{gateway.Issued{Issuer: "https://login.example.com", Audience: "shop"}, "audience (aud)"},
	} {
		token, err := gateway.SignTokenFor(keys[0], x.issued, "alice", "", nil, nil, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := errors.AsType[*wire.Error](login(n2, token)); !ok || e.Code != wire.BadToken || !strings.Contains(e.Text, x.want) {
			t.Errorf("%+v: %v, want %s", x.issued, e, x.want)
		}
	}
}

// TestTokenForOneID: a token for an id reaches that id and none of the user's devices, from whichever node, and the answer says so.
func TestTokenForOneID(t *testing.T) {
	c := newCluster(t)
	secure := func(cfg *Config) { cfg.Dev = false }
	n1 := c.found("n1", secure)
	cfg2 := c.joining("n2", n1)
	secure(&cfg2)
	n2 := c.start(cfg2)
	login := func(id string, at *Node, send ...string) *user {
		g := admin.TokenGrants{}
		if send != nil {
			g.Send = &send
		}
		tok, err := api{at}.ClientToken(c.ctx, wire.ClientID{ID: id}, time.Minute, g)
		if err != nil {
			t.Fatal(err)
		}
		cfg, u := dialConfig(id, at)
		cfg.Token = tok.Token
		if err := c.dialErr(cfg, u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	phone := login("dora/phone", n1)
	near, far := login("near", n1, "client:dora"), login("far", n2, "client:dora")
	every := login("every", n2, "user:dora")
	for _, u := range []*user{near, far} {
		u.send("dora/phone", "by name", wire.AckOwner, wire.Forbidden, patience)
		u.send("dora", "nobody is there", wire.AckOwner, wire.Offline, patience)
	}
	every.send("dora", "1", wire.AckOwner, wire.Delivered, patience)
	phone.hears("1")
	dora := login("dora", n2)
	for i, u := range []*user{near, far} {
		what := fmt.Sprint("to dora ", i)
		if r := u.send("dora", what, wire.AckOwner, wire.Delivered, patience); r.Count > 1 {
			t.Errorf("%d devices reached", r.Count)
		}
		dora.hears(what)
	}
	every.sendTo(client.ToUser("dora"), "2", wire.AckOwner, wire.Delivered, 2)
	phone.hears("2") // and nothing in between
	dora.hears("2")
}

// Tables agree while logins, takeovers and leaderships come and go.
func TestVerifyUnderLoad(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	nodes := []*Node{n1, n2, n3}
	bob := c.dial("bob", n1, n2, n3)
	var work sync.WaitGroup
	for i := range 6 {
		work.Go(func() {
			for j := range 8 {
				cfg, u := dialConfig(fmt.Sprintf("u%d", (i+j)%4), nodes[(i+j)%3]) // shared ids: they replace each other
				cfg.DisableReconnect = true
				if err := c.dialErr(cfg, u); err != nil {
					if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.Replaced {
						t.Errorf("login: %v", err)
					}
					continue
				}
				ctx, cancel := context.WithTimeout(c.ctx, patience)
				if r, err := u.Send(ctx, "bob", []byte("x")); err != nil && u.Err() == nil {
					t.Errorf("send: %v, %v", r.Code, err)
				}
				cancel()
				u.hangUp()
			}
		})
	}
	heard := make(chan int)
	listen, enough := context.WithCancel(c.ctx)
	go func() {
		n := 0
		for ; ; n++ {
			if _, err := bob.Receive(listen); err != nil {
				break
			}
		}
		heard <- n
	}()
	for i := range 3 {
		c.verify(nodes[i])
		if _, err := (api{nodes[i]}).TransferLeadership(c.ctx, nodes[(i+1)%3].Name()); err != nil {
			t.Errorf("transfer: %v", err)
		}
	}
	work.Wait()
	c.verify(n1)
	enough()
	if n := <-heard; n == 0 {
		t.Error("bob heard nothing")
	}
	for i := range 4 { // everybody hung up
		c.routeGoes(nodes[i%3], fmt.Sprintf("u%d", i))
	}
}

// A node that stops because its disk or its table cannot be trusted says so: nobody waits for its lease, which lasts longer here
// than the test.
func TestFailStopSaysDown(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.Timings.Lease, cfg.Timings.Quiet = time.Minute, time.Minute })
	leader := c.leader(n1, n2, n3)
	failing := n2
	if leader == n2 {
		failing = n3
	}
	bob, alice := c.dial("bob", failing, leader), c.dial("alice", leader)
	why := errors.New("the disk is gone")
	failing.fatal(why)
	if err := failing.Wait(); !errors.Is(err, why) {
		t.Errorf("it stopped for %v", err)
	}
	c.stop(failing)
	c.state(leader, failing.ID(), raftfsm.Down)
	bob.sees("its new session", connectedElsewhere(failing))
	alice.send("bob", "you are back", wire.AckOwner, wire.Delivered, patience)
	bob.hears("you are back")
}

// A node that is restarted while it leaves goes on with that, unless somebody took it back.
func TestLeaveGoesOn(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	asked := func(n *Node) {
		t.Helper()
		if _, err := (api{n1}).DrainNode(c.ctx, n.Name(), false); err != nil {
			t.Fatal(err)
		}
		c.state(n, n.ID(), raftfsm.Up)
		if err := n.dir.SetLeaving(datadir.DrainAgreed); err != nil { // as leave does
			t.Fatal(err)
		}
		c.stop(n)
	}
	asked(n2)
	if _, err := (api{n1}).DrainNode(c.ctx, "n2", true); err != nil {
		t.Fatal(err)
	}
	n2 = c.start(c.config("n2"))
	c.ready(n2)
	c.dial("bob", n2)
	if was, err := n2.dir.Leaving(); was != datadir.Stays || err != nil {
		t.Errorf("n2 would leave at the next drain: %s, %v", was, err)
	}
	if err := n3.dir.SetLeaving(datadir.AskedLeave); err != nil { // it ends before anybody agrees on its drain
		t.Fatal(err)
	}
	c.stop(n3)
	n3 = c.start(c.config("n3"))
	if err := n3.Wait(); err != nil {
		t.Errorf("n3 ended with %v", err)
	}
	c.stop(n3)
	c.until("n3 is out", func() error {
		if nodes := n1.fsm.Nodes(); len(nodes) != 2 {
			return fmt.Errorf("%d nodes", len(nodes))
		}
		return nil
	})
}
