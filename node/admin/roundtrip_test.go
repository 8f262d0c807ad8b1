package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// fill gives every field of v a value that is not zero and differs from its neighbours'; 64-bit numbers get values that a
// float could not hold.
func fill(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_800_000_000+int64(*n), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(k, n)
			fill(e, n)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d <é/%%>", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64:
		v.SetUint(1<<63 + *n)
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(*n)
	case reflect.Int32:
		v.SetInt(-int64(*n))
	default:
		panic("fill: " + v.Type().String())
	}
}

func filled(b *fake) *fake {
	n := uint64(0)
	for _, p := range []any{
		&b.ready, &b.version, &b.nodes, &b.node, &b.status, &b.settings, &b.token, &b.tokens, &b.peers, &b.transfer, &b.verify, &b.check, &b.upgrade,
		&b.snapshot, &b.route, &b.page, &b.stats, &b.kicked, &b.sent, &b.ctoken, &b.services, &b.online,
		&b.assigned, &b.present, &b.moving, &b.key, &b.keys, &b.revoked,
	} {
		fill(reflect.ValueOf(p).Elem(), &n)
	}
	return b
}

func ptr[T any](v T) *T { return &v }

// TestEveryCall takes every method of Client over real HTTP: arguments arrive, results come back unchanged.
func TestEveryCall(t *testing.T) {
	b := filled(&fake{})
	_, c := pair(t, b)
	ctx := t.Context()
	alice := wire.ClientID{Tenant: "acme", ID: "alice/phone 100%"}
	none := func(err error) (any, error) { return nil, err }
	msg := SendRequest{From: "ops", Tenant: "acme", To: "bob/é", Payload: ptr("hi <&>\n"), Ack: AckClient, TimeoutMS: 1500, ID: "00000000000000ff.7"}
	change := SettingsChange{DuplicateLogin: ptr(DuplicateReject)}
	list := RouteListQuery{Node: "n1", Tenant: ptr(""), Prefix: "a/b&c", Cursor: "x=/+", Limit: 7}

	for _, tt := range []struct {
		name string
		do   func() (any, error)
		want any
		args []any
	}{
		{"Nodes", func() (any, error) { return c.Nodes(ctx) }, b.nodes, nil},
		{"Node", func() (any, error) { return c.Node(ctx, "n1/..") }, b.node, []any{"n1/.."}},
		{"DrainNode", func() (any, error) { return c.Drain(ctx, "n1", true) }, b.node.Node, []any{"n1", true}},
		{"DrainNode", func() (any, error) { return c.Drain(ctx, "n1", false) }, b.node.Node, []any{"n1", false}},
		{"LeaveNode", func() (any, error) { return c.Leave(ctx, "n1") }, b.node.Node, []any{"n1"}},
		{"PromoteNode", func() (any, error) { return c.Promote(ctx, "n1") }, b.node.Node, []any{"n1"}},
		{"DemoteNode", func() (any, error) { return c.Demote(ctx, "n1") }, b.node.Node, []any{"n1"}},
		{"RemoveNode", func() (any, error) { return none(c.Remove(ctx, "n1", true)) }, nil, []any{"n1", true}},
		{"RemoveNode", func() (any, error) { return none(c.Remove(ctx, "n1", false)) }, nil, []any{"n1", false}},
		{"ClusterStatus", func() (any, error) { return c.ClusterStatus(ctx) }, b.status, nil},
		{"Settings", func() (any, error) { return c.Settings(ctx) }, b.settings, nil},
		{"ChangeSettings", func() (any, error) { return c.ChangeSettings(ctx, change) }, b.settings, []any{change}},
		{"CreateToken", func() (any, error) { return c.CreateToken(ctx, 90*time.Second) }, b.token, []any{90 * time.Second}},
		{"CreateToken", func() (any, error) { return c.CreateToken(ctx, 0) }, b.token, []any{DefaultTokenTTL}},
		{"Tokens", func() (any, error) { return c.Tokens(ctx) }, b.tokens, nil},
		{"RevokeToken", func() (any, error) { return none(c.RevokeToken(ctx, "t1")) }, nil, []any{"t1"}},
		{"RaftPeers", func() (any, error) { return c.RaftPeers(ctx) }, b.peers, nil},
		{"TransferLeadership", func() (any, error) { return c.TransferLeadership(ctx, "n2") }, b.transfer, []any{"n2"}},
		{"VerifyTables", func() (any, error) { return c.VerifyTables(ctx) }, b.verify, nil},
		{"CheckRoutes", func() (any, error) { return c.CheckRoutes(ctx, true) }, b.check, []any{true}},
		{"RaiseFeatureLevel", func() (any, error) { return c.RaiseFeatureLevel(ctx) }, b.upgrade, nil},
		{"TakeSnapshot", func() (any, error) { return c.TakeSnapshot(ctx) }, b.snapshot, nil},
		{"Route", func() (any, error) { return c.Route(ctx, alice, "", false) }, b.route, []any{RouteQuery{alice, Linearizable, false}}},
		{"Route", func() (any, error) { return c.Route(ctx, alice, Local, true) }, b.route, []any{RouteQuery{alice, Local, true}}},
		{"Routes", func() (any, error) { return c.Routes(ctx, list) }, b.page, []any{list}},
		{"Routes", func() (any, error) { return c.Routes(ctx, RouteListQuery{}) }, b.page, []any{RouteListQuery{Limit: DefaultPage}}},
		{"RouteStats", func() (any, error) { return c.RouteStats(ctx) }, b.stats, nil},
		{"Services", func() (any, error) { return c.Services(ctx, GroupQuery{Tenant: "acme", Cursor: "a/b", Limit: 7}) }, b.services, []any{GroupQuery{Tenant: "acme", Cursor: "a/b", Limit: 7}}},
		{"PresenceCount", func() (any, error) { return c.PresenceCount(ctx, nil) }, b.online, []any{(*string)(nil)}},
		{"PresenceCount", func() (any, error) { return c.PresenceCount(ctx, new("a b")) }, b.online, []any{new("a b")}},
		{"Kick", func() (any, error) { return c.Kick(ctx, alice, "bye") }, b.kicked, []any{alice, "bye"}},
		{"Send", func() (any, error) { return c.Send(ctx, msg) }, b.sent, []any{Message{
			From: "ops", To: wire.ClientID{Tenant: "acme", ID: "bob/é"}, Payload: []byte("hi <&>\n"), Ack: wire.AckClient,
			Timeout: 1500 * time.Millisecond, ID: wire.MessageID{Instance: 255, Counter: 7},
		}}},
		{"Assign", func() (any, error) { return c.Assign(ctx, alice, "ws") }, b.assigned, []any{AssignQuery{alice, "ws"}}},
		{"Assign", func() (any, error) { return c.Assign(ctx, alice, "") }, b.assigned, []any{AssignQuery{alice, "tcp"}}},
		{"Presence", func() (any, error) { return c.Presence(ctx, alice) }, b.present[0], []any{[]wire.ClientID{alice}}},
		{"Presence", func() (any, error) { return c.PresenceOf(ctx, "acme", []string{"a", "b"}) }, b.present, []any{[]wire.ClientID{
			{Tenant: "acme", ID: "a"}, {Tenant: "acme", ID: "b"},
		}}},
		{"Rebalance", func() (any, error) { return c.Rebalance(ctx, 0) }, b.moving, []any{uint32(DefaultRebalanceRate)}},
		{"Rebalance", func() (any, error) { return c.RebalanceState(ctx) }, b.moving, []any{uint32(0)}},
		{"CreateAPIKey", func() (any, error) {
			return c.CreateAPIKey(ctx, APIKeyRequest{Name: "shop", Scopes: []string{"send", "kick"}, Tenant: ptr(""), TTLSeconds: 60})
		}, b.key, []any{NewAPIKey{Name: "shop", Scopes: wire.ScopeSend | wire.ScopeKick, OneTenant: true, TTL: time.Minute}}},
		{"APIKeys", func() (any, error) { return c.APIKeys(ctx) }, b.keys, nil},
		{"RevokeAPIKey", func() (any, error) { return c.RevokeAPIKey(ctx, "k1") }, b.revoked, []any{"k1"}},
		{"ClientToken", func() (any, error) { return c.ClientToken(ctx, alice, time.Minute) }, b.ctoken, []any{alice, time.Minute, TokenGrants{}}},
		{"ClientToken", func() (any, error) {
			return c.ClientTokenFor(ctx, alice, time.Minute, TokenGrants{Send: &[]string{"user:*"}, Join: &[]string{}})
		}, b.ctoken, []any{alice, time.Minute, TokenGrants{Send: &[]string{"user:*"}, Join: &[]string{}}}},
	} {
		got, err := tt.do()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if tt.want != nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
		name, args := b.last()
		if name != tt.name || (len(args) > 0 || len(tt.args) > 0) && !reflect.DeepEqual(args, tt.args) {
			t.Errorf("%s: the backend saw %s %+v, want %+v", tt.name, name, args, tt.args)
		}
	}

	if v, err := c.Version(ctx); err != nil || v != b.version {
		t.Errorf("Version = %+v, %v", v, err)
	}
	if err := c.Healthy(ctx); err != nil {
		t.Errorf("Healthy = %v", err)
	}
}

// TestClientIDsInPaths: every valid id reaches the backend as it is, those of endpoints and dots included.
func TestClientIDsInPaths(t *testing.T) {
	b := &fake{route: Route{Found: true}}
	s, c := pair(t, b)
	for _, id := range []string{
		"alice", "stats", "watch", "kick", ".", "..", "...", "a/b", "../x", "a%2Fb", "%", "%%", "a b", "a+b", "?x=1", "#", "é/日本", ":",
		"a;b", "\\", "a//"[:2] + "c", strings.Repeat("日", 85), strings.Repeat("%", 255),
	} {
		if _, err := c.Route(t.Context(), wire.ClientID{ID: id}, Local, false); err != nil {
			t.Errorf("Route(%q): %v", id, err)
		}
		if name, args := b.last(); name != "Route" || args[0].(RouteQuery).Client.ID != id {
			t.Errorf("Route(%q): the backend saw %s %+v", id, name, args)
		}
		if _, err := c.Kick(t.Context(), wire.ClientID{ID: id}, ""); err != nil {
			t.Errorf("Kick(%q): %v", id, err)
		}
		if name, args := b.last(); name != "Kick" || args[0].(wire.ClientID).ID != id {
			t.Errorf("Kick(%q): the backend saw %s %+v", id, name, args)
		}
	}
	// As a person would type it.
	if code, body, _ := raw(t, s, "GET", "/v1/routes/alice%2Fphone", ""); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if _, args := b.last(); args[0].(RouteQuery).Client.ID != "alice/phone" {
		t.Errorf("the backend saw %+v", args)
	}
}

func TestRouteNotFoundIsAnAnswer(t *testing.T) {
	b := &fake{route: Route{Client: "ghost", Consistency: Linearizable, Index: 1 << 60, Leader: "n1", OwnerCheck: OwnerSkipped}}
	s, c := pair(t, b)
	got, err := c.Route(t.Context(), wire.ClientID{ID: "ghost"}, "", false)
	if err != nil || !reflect.DeepEqual(got, b.route) {
		t.Fatalf("Route = %+v, %v", got, err)
	}
	code, body, _ := raw(t, s, "GET", "/v1/routes/ghost", "")
	if code != http.StatusNotFound || !strings.Contains(body, `"found":false`) || !strings.Contains(body, `"index":"1152921504606846976"`) {
		t.Fatalf("%d %s", code, body)
	}
	b.err = Errorf(StatusNotFound, "no such tenant")
	if _, err := c.Route(t.Context(), wire.ClientID{ID: "ghost"}, "", false); !IsNotFound(err) {
		t.Fatalf("an error with status 404 came back as %v", err)
	}
}

func TestReadyz(t *testing.T) {
	b := &fake{ready: Readiness{Reasons: []string{"no quorum", "lease over"}}}
	s, c := pair(t, b)
	r, err := c.Ready(t.Context())
	if err != nil || r.Ready || len(r.Reasons) != 2 {
		t.Fatalf("Ready = %+v, %v", r, err)
	}
	for _, m := range []string{"GET", "HEAD"} {
		if code, _, _ := raw(t, s, m, "/readyz", "", "Authorization", ""); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", m, code)
		}
	}
	b.ready = Readiness{Ready: true}
	if code, body, _ := raw(t, s, "GET", "/readyz", "", "Authorization", ""); code != 200 || body != `{"ready":true,"reasons":[]}`+"\n" {
		t.Errorf("%d %s", code, body)
	}
}

// TestListsAreNeverNull: scripts iterate over them.
func TestListsAreNeverNull(t *testing.T) {
	s, _ := pair(t, &fake{node: NodeDetail{Detail: &Detail{}}, route: Route{Found: true}})
	for _, path := range []string{
		"/readyz", "/v1/nodes", "/v1/nodes/n1", "/v1/cluster", "/v1/tokens", "/v1/raft/peers", "/v1/routes", "/v1/routes/stats",
		"/v1/routes/alice?all_nodes=true",
	} {
		if _, body, _ := raw(t, s, "GET", path, ""); strings.Contains(body, "null") {
			t.Errorf("%s: %s", path, body)
		}
	}
	if _, body, _ := raw(t, s, "POST", "/v1/raft/verify", ""); strings.Contains(body, "null") {
		t.Errorf("verify: %s", body)
	}
}

func TestSendNamesMessage(t *testing.T) {
	b := &fake{}
	s, c := pair(t, b)
	id := func() wire.MessageID { _, args := b.last(); return args[0].(Message).ID }
	if _, err := c.Send(t.Context(), SendRequest{To: "bob", PayloadB64: ptr("AP8=")}); err != nil {
		t.Fatal(err)
	}
	first := id()
	_, args := b.last()
	if m := args[0].(Message); first.Instance == 0 || first.Counter == 0 || string(m.Payload) != "\x00\xff" || m.Ack != wire.AckOwner || m.Timeout != DefaultSendTimeout {
		t.Errorf("%+v", m)
	}
	if code, body, _ := raw(t, s, "POST", "/v1/messages", `{"to":"bob","payload":""}`); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if second := id(); second == first || second.Instance == 0 {
		t.Errorf("the second message has id %v, the first one %v", second, first)
	}
}

// TestSendMayOutlastCallTimeout: a message's own time-out counts, not that of calls.
func TestSendMayOutlastCallTimeout(t *testing.T) {
	b := &fake{}
	left := make(chan time.Duration, 2)
	b.onSend = func(ctx context.Context, m Message) (SendResult, error) {
		d, _ := ctx.Deadline()
		left <- time.Until(d)
		return SendResult{Result: "timeout", Code: wire.Timeout}, nil
	}
	s := start(t, b, func(c *Config) { c.CallTimeout = time.Second })
	if _, err := dial(t, s.Addr()).Send(t.Context(), SendRequest{To: "bob", Payload: ptr(""), TimeoutMS: 60_000}); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d < 59*time.Second {
		t.Errorf("the send had %v", d)
	}
}

func TestEachRoute(t *testing.T) {
	b := &fake{page: RoutePage{Routes: []RouteRow{{Client: "a"}, {Client: "b"}}, Next: "c1"}}
	_, c := pair(t, b)
	var seen []string
	err := c.EachRoute(t.Context(), RouteListQuery{}, func(r RouteRow) error {
		if seen = append(seen, r.Client); len(seen) == 2 {
			b.page.Next = ""
		}
		return nil
	})
	if err != nil || strings.Join(seen, "") != "abab" { // two pages of the same rows
		t.Errorf("%v %v", seen, err)
	}
	b.page.Next = "same" // a node that gives the same cursor again must not make the tool loop
	if err := c.EachRoute(t.Context(), RouteListQuery{}, func(RouteRow) error { return nil }); err == nil {
		t.Error("a list that does not advance went unnoticed")
	}
	stop := errors.New("enough")
	if err := c.EachRoute(t.Context(), RouteListQuery{}, func(RouteRow) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("EachRoute = %v", err)
	}
}
