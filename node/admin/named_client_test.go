package admin

import (
	"reflect"
	"testing"

	"imroute/mesh/wire"
)

// TestClientsNamedLikeEndpoints: a client called as an endpoint is reached by a parameter, the endpoint by its path.
func TestClientsNamedLikeEndpoints(t *testing.T) {
	b := &fake{present: make([]Presence, 1), route: Route{Found: true}}
	s, _ := pair(t, b)
	for _, tt := range []struct {
		path, call string
		arg        any
	}{
		{"/v1/presence?client=count&tenant=acme", "Presence", []wire.ClientID{{Tenant: "acme", ID: "count"}}},
		{"/v1/route?client=stats", "Route", RouteQuery{Client: wire.ClientID{ID: "stats"}, Consistency: Linearizable}},
		{"/v1/route?client=a%2Fb&consistency=local", "Route", RouteQuery{Client: wire.ClientID{ID: "a/b"}, Consistency: Local}},
	} {
		code, body, _ := raw(t, s, "GET", tt.path, "")
		name, args := b.last()
		if code != 200 || name != tt.call || !reflect.DeepEqual(args, []any{tt.arg}) {
			t.Errorf("%s: %d %s, reached the backend as %s %v", tt.path, code, body, name, args)
		}
	}
	for path, call := range map[string]string{"/v1/presence/count": "PresenceCount", "/v1/routes/stats": "RouteStats"} {
		if code, body, _ := raw(t, s, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		} else if name, _ := b.last(); name != call {
			t.Errorf("%s reached the backend as %s", path, name)
		}
	}
}
