package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
	"imroute/node/webhook"
	"imroute/raftfsm"
)

// hookLog is a back end that keeps what a webhook tells it.
type hookLog struct {
	url  string
	down sync.Mutex // held: it fails

	mu     sync.Mutex
	events []webhook.Event // guarded by mu
	bad    error           // guarded by mu
}

const hookSecret = "sixteen characters or more"

func newHook(t *testing.T) *hookLog {
	h := &hookLog{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.down.TryLock() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer h.down.Unlock()
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(hookSecret, r.Header.Get(webhook.SignatureHeader), raw, time.Now(), time.Minute)
		}
		var got struct{ Events []webhook.Event }
		if err == nil {
			err = json.Unmarshal(raw, &got)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if err != nil {
			h.bad = err
		}
		h.events = append(h.events, got.Events...)
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *hookLog) find(fits func(webhook.Event) bool) (found []webhook.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if fits(e) {
			found = append(found, e)
		}
	}
	return found
}

// has waits for an event of a kind about a client.
func (h *hookLog) has(c *cluster, kind, client, node string) (e webhook.Event) {
	c.t.Helper()
	c.until(kind+" "+client, func() error {
		got := h.find(func(e webhook.Event) bool { return e.Event == kind && e.Client == client && e.Node == node })
		if len(got) == 0 {
			h.mu.Lock()
			defer h.mu.Unlock()
			return fmt.Errorf("only %+v, %w", h.events, h.bad)
		}
		e = got[len(got)-1]
		return nil
	})
	return e
}

// assigned asks n at its WebSocket port.
func assigned(t *testing.T, n *Node, query string) (a admin.Assignment, status int, raw string) {
	t.Helper()
	resp, err := http.Get("http://" + n.Addrs().ClientWS + admin.AssignPath + "?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, &a); err != nil {
			t.Fatal(err)
		}
	}
	return a, resp.StatusCode, string(b)
}

// E3 and what back ends live on: assignment by the load of all nodes, gentle rebalancing, presence, events.
func TestBackEnds(t *testing.T) {
	c := newCluster(t)
	hook := newHook(t)
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.Webhook = Webhook{URL: hook.url, Secret: hookSecret} })
	http.DefaultClient.CloseIdleConnections()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	t.Log("every node knows how many clients each has, and names the one with fewest")
	var users []*user
	for i := range 12 {
		users = append(users, c.dial(fmt.Sprint("u", i), n1))
	}
	for _, n := range []*Node{n1, n2, n3} {
		c.until(n.Name()+" knows", func() error {
			nodes := n.takers("tcp")
			for _, v := range nodes {
				if want := map[string]int{"n1": 12}[v.Name]; v.Clients != want {
					return fmt.Errorf("%+v", nodes)
				}
			}
			if len(nodes) != 3 {
				return fmt.Errorf("%+v", nodes)
			}
			return nil
		})
		if a, status, raw := assigned(t, n, "client=x&transport=tcp"); status != 200 || a.Node == "n1" || !strings.HasPrefix(a.URL, "tcp://127.0.0.1:") || strings.Contains(raw, "clients") {
			t.Errorf("%d %s", status, raw)
		}
	}
	if a, _, raw := assigned(t, n1, "client=x"); a.Transport != "ws" || !strings.HasPrefix(a.URL, "ws://") || !strings.HasSuffix(a.URL, "/v1/ws") {
		t.Error(raw)
	}
	if _, status, raw := assigned(t, n1, ""); status != 400 || !strings.Contains(raw, `\"client\" is missing`) {
		t.Errorf("%d %s", status, raw)
	}
	cfg, u := dialConfig("asker")
	cfg.AssignFrom = []string{"http://" + n1.Addrs().ClientWS}
	if err := c.dialErr(cfg, u); err != nil {
		t.Fatal(err)
	}
	if s := u.State(); s.Node == "n1" {
		t.Errorf("%+v", s)
	}
	u.hangUp()

	t.Log("a node that drains is not named")
	if _, err := (api{n1}).DrainNode(c.ctx, "n2", false); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if a, status, raw := assigned(t, n1, "client=x"); status != 200 || a.Node != "n3" {
			t.Errorf("%d %s", status, raw)
		}
	}
	if _, err := (api{n1}).DrainNode(c.ctx, "n2", true); err != nil {
		t.Fatal(err)
	}
	c.until("n2 is back", func() error {
		if nodes := n1.takers("tcp"); len(nodes) != 3 {
			return fmt.Errorf("%+v", nodes)
		}
		return nil
	})

	t.Log("rebalance moves what is too many, each to where there are fewest, and no client notices more than a new node")
	if r, err := (api{n2}).Rebalance(c.ctx, 200); err != nil || !r.Moving {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := (api{n3}).Rebalance(c.ctx, 100); err != nil { // again: it goes on
		t.Fatal(err)
	}
	c.until("even", func() error {
		r, err := api{n3}.Rebalance(c.ctx, 0)
		if err != nil || r.Moving || n1.gateway.Count() != 4 || n2.gateway.Count() != 4 || n3.gateway.Count() != 4 {
			return fmt.Errorf("%+v %w", r, err)
		}
		return nil
	})
	moved := 0
	for _, u := range users {
		var s client.State
		c.until(u.ID().ID+" is connected", func() error { // its former node may tell it first that it has moved
			if s = u.State(); s.Kind != client.Connected {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if s.Node != "n1" {
			moved++
		}
	}
	if r, err := (api{n1}).Rebalance(c.ctx, 50); err != nil || r.Moving || moved != 8 {
		t.Errorf("even already: %+v %v, %d moved", r, err, moved)
	}

	t.Log("presence")
	phone := c.dial("eve/phone", n2)
	ps, err := api{n3}.Presence(c.ctx, []wire.ClientID{{ID: "eve"}, {ID: "u0"}, {ID: "nobody"}, {ID: "eve/phone"}, {Tenant: "acme", ID: "u0"}})
	if err != nil || len(ps) != 5 {
		t.Fatal(ps, err)
	}
	if p := ps[0]; !p.Online || p.Node != "" || len(p.Devices) != 1 || p.Devices[0].Client != "eve/phone" || p.Devices[0].Node != "n2" || p.Devices[0].Epoch == 0 {
		t.Errorf("%+v", p)
	}
	if !ps[1].Online || ps[1].Epoch == 0 || ps[2].Online || !ps[3].Online || ps[3].Node != "n2" || ps[4].Online {
		t.Errorf("%+v", ps)
	}

	t.Log("a message with the same id is not delivered twice, whichever node it is given to, and is answered as the first was")
	id := wire.MessageID{Instance: 77, Counter: 5}
	for _, n := range []*Node{n1, n2, n3} {
		m := admin.Message{From: "shop", To: wire.ClientID{ID: "eve/phone"}, Payload: []byte("once"), Ack: wire.AckOwner, Timeout: patience, ID: id}
		if r, err := (api{n}).Send(c.ctx, m); err != nil || r.Code != wire.Delivered || r.ID != id.String() {
			t.Errorf("%s: %+v %v", n.Name(), r, err)
		}
	}
	if r, err := (api{n1}).Send(c.ctx, admin.Message{From: "shop", To: wire.ClientID{ID: "eve/phone"}, Payload: []byte("twice"), Ack: wire.AckOwner, Timeout: patience, ID: wire.MessageID{Instance: 77, Counter: 6}}); err != nil || r.Code != wire.Delivered {
		t.Errorf("%+v %v", r, err)
	}
	phone.hears("once")
	phone.hears("twice")

	t.Log("the webhook hears of logins, logouts and what could not be delivered, also what happened while it was down")
	hook.has(c, webhook.Connected, "u3", "n1")
	on := hook.has(c, webhook.Connected, "eve/phone", "n2")
	hook.down.Lock()
	phone.hangUp()
	users[0].send("nobody", "x", wire.AckOwner, wire.Offline, patience)
	c.until("it failed", func() error {
		if st := n2.hook.Stats(); !st.Failing {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if st, err := (api{n2}).ClusterStatus(c.ctx); err != nil || st.Health != admin.HealthDegraded || !slices.ContainsFunc(st.Problems, func(p string) bool { return strings.Contains(p, "webhook") }) {
		t.Errorf("%+v %v", st.Problems, err)
	}
	hook.down.Unlock()
	off := hook.has(c, webhook.Disconnected, "eve/phone", "n2")
	if on.Epoch == 0 || off.Epoch != on.Epoch || off.Reason == "" {
		t.Errorf("%+v, then %+v", on, off)
	}
	if e := hook.has(c, webhook.Undeliverable, "nobody", users[0].State().Node); e.Reason != "offline" || e.From != "u0" || e.Message == "" {
		t.Errorf("%+v", e)
	}

	t.Log("the leader reports the clients of a node whose lease ran out, under the ids that the node itself would give")
	leader := c.leader(n1, n2, n3)
	lost := []*Node{n1, n2, n3}[(slices.Index([]*Node{n1, n2, n3}, leader)+1)%3]
	var owned []string
	for _, u := range users {
		if u.State().Node == lost.Name() {
			owned = append(owned, u.ID().ID)
		}
	}
	if l := lost.present.Load(); l == nil {
		t.Fatalf("%s is not up", lost.Name())
	} else if err := leader.lead.expire(c.ctx, leader.store.Term(), member{node: lost.ID(), incarnation: l.incarnation, live: true}); err != nil {
		t.Fatal(err)
	}
	for _, id := range owned {
		c.until("node_lost of "+id, func() error {
			got := hook.find(func(e webhook.Event) bool {
				return e.Event == webhook.Disconnected && e.Client == id && e.Reason == webhook.NodeLost && e.Node == lost.Name()
			})
			if len(got) != 1 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	if len(owned) == 0 {
		t.Error("nobody was there")
	}
	order := map[string]wire.Epoch{} // of what each node said itself about a client
	for _, e := range hook.find(func(e webhook.Event) bool { return e.Event == webhook.Connected }) {
		key := e.Node + " " + e.Client
		if e.Epoch < order[key] {
			t.Errorf("%s: epoch %d behind %d", key, e.Epoch, order[key])
		}
		order[key] = e.Epoch
	}
	if hook.bad != nil {
		t.Error(hook.bad)
	}
}

// API keys over HTTP, on a cluster with tokens: a scope, a tenant, an expiry, a revocation; on another node than the one that made it.
func TestAPIKeys(t *testing.T) {
	c := newCluster(t)
	secure := func(cfg *Config) { cfg.Dev = false }
	n1 := c.found("n1", secure)
	cfg := c.joining("n2", n1)
	secure(&cfg)
	n2 := c.start(cfg)
	key, err := api{n1}.CreateAPIKey(c.ctx, admin.NewAPIKey{Name: "shop", Scopes: wire.ScopePresence | wire.ScopeAssign, Tenant: "acme", OneTenant: true, TTL: time.Hour})
	if err != nil || !strings.HasPrefix(key.Key, admin.KeyPrefix+key.ID+"-") || key.Expires == nil {
		t.Fatalf("%+v %v", key, err)
	}
	ask := func(n *Node, token, path string) (int, string) {
		req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+n.Addrs().Admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := ask(n2, key.Key, "/v1/presence/bob"); code != 200 || !strings.Contains(body, `"tenant":"acme"`) || !strings.Contains(body, `"online":false`) {
		t.Errorf("a key that was just made at n1: %d %s", code, body)
	}
	// Each of these may come to n2 before the entry that concerns it does.
	for range 20 {
		k, err := api{n1}.CreateAPIKey(c.ctx, admin.NewAPIKey{Scopes: wire.ScopePresence})
		if err != nil {
			t.Fatal(err)
		}
		c.until("the reads of keys are paid for", func() error {
			n2.keyReads.mu.Lock()
			defer n2.keyReads.mu.Unlock()
			if n2.keyReads.spent.After(time.Now()) {
				return errors.New("not yet")
			}
			return nil
		})
		if code, body := ask(n2, k.Key, "/v1/version"); code != 200 {
			t.Errorf("just made at n1: %d %s", code, body)
		}
		if r, err := (api{n1}).RevokeAPIKey(c.ctx, k.ID); err != nil || len(r.Unconfirmed) != 0 {
			t.Errorf("%+v %v", r, err)
		}
		if _, ok := n2.checkKey(k.Key); ok {
			t.Error("n2 takes a key after the answer of its revocation")
		}
	}
	if code, body := ask(n2, key.Key, "/v1/presence/bob?tenant=other"); code != 403 || !strings.Contains(body, "acme") {
		t.Errorf("another tenant: %d %s", code, body)
	}
	if code, body := ask(n2, key.Key, "/v1/groups"); code != 403 || !strings.Contains(body, `scope \"groups\"`) {
		t.Errorf("another scope: %d %s", code, body)
	}
	if code, body := ask(n2, key.Key, "/v1/assign?client="+url.QueryEscape("bob/web")); code != 200 {
		t.Errorf("assign: %d %s", code, body)
	}
	if code, _ := ask(n2, key.Key[:len(key.Key)-1]+"x", "/v1/version"); code != 401 && key.Key[len(key.Key)-1] != 'x' {
		t.Errorf("a wrong secret: %d", code)
	}
	if code, _ := ask(n2, n1.AdminToken(), "/v1/api-keys"); code != 200 {
		t.Errorf("the operators' token: %d", code)
	}
	list, err := api{n1}.APIKeys(c.ctx)
	if err != nil || len(list) != 1 || list[0].Name != "shop" || *list[0].Tenant != "acme" || fmt.Sprint(list[0].Scopes) != "[presence assign]" {
		t.Errorf("%+v %v", list, err)
	}
	if r, err := (api{n1}).RevokeAPIKey(c.ctx, key.ID); err != nil || !r.Revoked || len(r.Unconfirmed) != 0 {
		t.Fatal(r, err)
	}
	if code, body := ask(n2, key.Key, "/v1/version"); code != 401 || !strings.Contains(body, "revoked") {
		t.Errorf("revoked: %d %s", code, body)
	}
	if _, err := (api{n2}).RevokeAPIKey(c.ctx, key.ID); !admin.IsNotFound(err) {
		t.Errorf("revoked twice: %v", err)
	}
}

// TestKeyReads: garbage keys cause a bounded number of reads, and a while later there are some again.
func TestKeyReads(t *testing.T) {
	var k keyReads
	at := time.Now()
	count := func() (n int) {
		for range 1000 {
			if k.take(at) {
				n++
			}
		}
		return n
	}
	if n := count(); n != keyReadsBurst {
		t.Errorf("%d at once", n)
	}
	at = at.Add(3 * keyReadsEvery)
	if n := count(); n != 3 {
		t.Errorf("%d a while later", n)
	}
	at = at.Add(time.Hour)
	if n := count(); n != keyReadsBurst {
		t.Errorf("%d after an hour", n)
	}
}

func TestMatchKey(t *testing.T) {
	id, key, hash := newKey()
	at := time.Unix(1_800_000_000, 0)
	k := raftfsm.APIKey{ID: id, Hash: hash, Scopes: wire.ScopeSend, ExpiresUnix: at.Unix() + 10}
	find := func(asked string) (raftfsm.APIKey, bool) { return k, asked == id }
	gotID, secret, ok := parseKey(key)
	if !ok || gotID != id {
		t.Fatal(key)
	}
	if got, ok := matchKey(find, id, secret, at); !ok || got.ID != id || got.Scopes != wire.ScopeSend {
		t.Errorf("%+v %v", got, ok)
	}
	if _, ok := matchKey(find, id, secret, at.Add(10*time.Second)); ok {
		t.Error("it has expired")
	}
	if _, ok := matchKey(find, "000000000000", secret, at); ok {
		t.Error("there is no such id")
	}
	if _, ok := matchKey(find, id, strings.Repeat("A", len(secret)), at); ok {
		t.Error("another secret")
	}
	if _, again, _ := newKey(); again == key {
		t.Error("twice the same key")
	}
}

// FuzzParseKey: whatever is shown as a key is taken apart into what makes it up, or refused.
func FuzzParseKey(f *testing.F) {
	_, key, _ := newKey()
	f.Add(key)
	f.Add(admin.KeyPrefix)
	f.Add("imk1-0123456789ab-")
	f.Fuzz(func(t *testing.T, key string) {
		id, secret, ok := parseKey(key)
		if ok && admin.KeyPrefix+id+"-"+secret != key {
			t.Fatalf("%q is %q and %q", key, id, secret)
		}
		if !ok && id+secret != "" {
			t.Fatalf("refused, and still %q and %q", id, secret)
		}
	})
}
