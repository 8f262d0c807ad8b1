package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

// keyed is a server with an operators' token and API keys whose text says what they may.
func keyed(t *testing.T, b Backend) *Server {
	return start(t, b, func(c *Config) {
		c.DevMode, c.Token = false, "0123456789abcdef"
		c.KeyCheck = func(key string) (k Key, ok bool) {
			scopes, tenant, bound := strings.Cut(strings.TrimPrefix(key, KeyPrefix), "@")
			s, err := wire.ParseScopes(scopes)
			return Key{ID: "k", Scopes: s, Tenant: tenant, OneTenant: bound}, err == nil
		}
	})
}

// TestScopes takes every route with every scope: one that the route does not ask for is refused by name, before anything is
// done; the one it asks for, admin and the operators' token come through.
func TestScopes(t *testing.T) {
	b := filled(&fake{})
	s := keyed(t, b)
	all := []wire.Scope{wire.ScopeSend, wire.ScopePresence, wire.ScopeGroups, wire.ScopeKick, wire.ScopeAssign, wire.ScopeAdmin}
	tried := map[wire.Scope]int{}
	for i := range s.routes {
		rt := &s.routes[i]
		if rt.open {
			continue
		}
		path := strings.NewReplacer("{node}", "n1", "{id}", "x", "{client}", "bob", "{group}", "g", "*", "cmdline").Replace(rt.path)
		for _, scope := range all {
			before := b.count()
			// A parameter that nobody knows: who is let in gets no further than that.
			code, body, _ := raw(t, s, rt.method, path+"?surely_unknown=1", "", "Authorization", "Bearer "+KeyPrefix+scope.String())
			want := rt.scope
			if want == 0 {
				want = wire.ScopeAdmin
			}
			if may := want == anyScope || scope == want || scope == wire.ScopeAdmin; may {
				tried[scope]++
				if code == http.StatusForbidden || code == http.StatusUnauthorized {
					t.Errorf("%s %s with %s: %d %s", rt.method, rt.path, scope, code, body)
				}
				continue
			}
			if code != http.StatusForbidden || !strings.Contains(body, want.String()) || !strings.Contains(body, "forbidden") {
				t.Errorf("%s %s with %s: %d %s", rt.method, rt.path, scope, code, body)
			}
			if b.count() != before {
				t.Errorf("%s %s with %s reached the backend", rt.method, rt.path, scope)
			}
		}
	}
	for _, scope := range all {
		if tried[scope] < 3 { // version, the description and at least one of its own
			t.Errorf("%s opens %d routes", scope, tried[scope])
		}
	}
	for _, bad := range []string{KeyPrefix, KeyPrefix + "root", "imk2-send"} {
		if code, _, _ := raw(t, s, "GET", "/v1/version", "", "Authorization", "Bearer "+bad); code != http.StatusUnauthorized {
			t.Errorf("key %q: %d", bad, code)
		}
	}
}

// TestTenantOfKey: a key of one tenant reaches that one alone, whether it names it or not.
func TestTenantOfKey(t *testing.T) {
	b := &fake{present: make([]Presence, 1)}
	s := keyed(t, b)
	const key = "Bearer " + KeyPrefix + "send,presence,groups,kick,assign@acme"
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/v1/presence/bob?tenant=T", ""},
		{"POST", "/v1/presence", `{"tenant":"T","clients":["bob"]}`},
		{"GET", "/v1/assign?client=bob&tenant=T", ""},
		{"GET", "/v1/groups?tenant=T", ""},
		{"GET", "/v1/groups/g/members?tenant=T", ""},
		{"POST", "/v1/groups/g/close", `{"tenant":"T"}`},
		{"POST", "/v1/routes/bob/kick", `{"tenant":"T"}`},
		{"POST", "/v1/messages", `{"tenant":"T","to":"bob","payload":""}`},
		{"POST", "/v1/messages", `{"tenant":"T","kind":"all","payload":""}`},
		{"POST", "/v1/messages/many", `{"tenant":"T","to":["bob"],"payload":""}`},
	} {
		for tenant, want := range map[string]int{"acme": 200, "": 200, "other": 403} {
			code, body, _ := raw(t, s, tt.method, strings.Replace(tt.path, "=T", "="+tenant, 1), strings.Replace(tt.body, `"T"`, `"`+tenant+`"`, 1), "Authorization", key)
			if code != want {
				t.Errorf("%s %s for tenant %q: %d %s", tt.method, tt.path, tenant, code, body)
				continue
			}
			if want != 200 {
				continue
			}
			_, args := b.last()
			said, err := json.Marshal(args)
			if err != nil || !strings.Contains(strings.ToLower(string(said)), `"tenant":"acme"`) {
				t.Errorf("%s %s for tenant %q reached the backend as %s %v", tt.method, tt.path, tenant, said, err)
			}
		}
	}
}

func TestBackendInput(t *testing.T) {
	b := &fake{present: make([]Presence, 2)}
	s, _ := pair(t, b)
	for _, tt := range []struct{ method, path, body, want string }{
		{"GET", "/v1/assign", "", `\"client\" is missing`},
		{"GET", "/v1/assign?client=a*", "", "client"},
		{"GET", "/v1/assign?client=a&transport=udp", "", "want tcp or ws"},
		{"POST", "/v1/presence", `{}`, "names 0 clients"},
		{"POST", "/v1/presence", `{"clients":["a","a"]}`, "twice"},
		{"POST", "/v1/presence", `{"clients":[""]}`, "clients"},
		{"POST", "/v1/messages/many", `{"to":[],"payload":"x"}`, "names 0 clients"},
		{"POST", "/v1/messages/many", `{"to":["a"]}`, `\"payload\" is missing`},
		{"POST", "/v1/api-keys", `{"scopes":[]}`, "no scope is given"},
		{"POST", "/v1/api-keys", `{"scopes":["root"]}`, `scope \"root\" is not known`},
		{"POST", "/v1/api-keys", `{"scopes":["admin"],"tenant":"acme"}`, "cannot be bound to a tenant"},
		{"POST", "/v1/api-keys", `{"scopes":["send"],"ttl_seconds":4000000000}`, "ttl_seconds"},
		{"POST", "/v1/cluster/rebalance", `{"rate":100001}`, "rate"},
	} {
		code, body, _ := raw(t, s, tt.method, tt.path, tt.body)
		if code != http.StatusBadRequest || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %s: %d %s, want %q", tt.method, tt.path, tt.body, code, body, tt.want)
		}
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d of them reached the backend", n)
	}
}
