package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"imroute/mesh/wire"
)

// FuzzRequest sends any request to the whole server: it answers with JSON of ours or with the backend's answer, and what
// reaches the backend is valid.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/messages", []byte(`{"to":"bob","payload":"hi","ack":"client","timeout_ms":5,"id":"00000000000000ff.7"}`))
	f.Add("POST", "/v1/messages", []byte(`{"to":"bob/x","payload_b64":"AP8="}`))
	f.Add("POST", "/v1/messages", []byte(`{"to":{"a":[1e999]},"payload":"\ud800"}`))
	f.Add("PUT", "/v1/cluster/settings", []byte(`{"duplicate_login":"reject","target_voters":5}`))
	f.Add("POST", "/v1/nodes/n1/drain", []byte(`{"cancel":true}`))
	f.Add("POST", "/v1/routes/alice%2Fphone/kick", []byte(`{"tenant":"t","reason":"r"}`))
	f.Add("POST", "/v1/client-tokens", []byte(`{"client":"a","ttl_seconds":1}`))
	f.Add("POST", "/v1/messages/many", []byte(`{"to":["bob","eve"],"payload":"hi","id":"00000000000000ff.7"}`))
	f.Add("POST", "/v1/presence", []byte(`{"tenant":"t","clients":["bob","eve"]}`))
	f.Add("POST", "/v1/api-keys", []byte(`{"scopes":["send","kick"],"tenant":"","ttl_seconds":5,"name":"n"}`))
	f.Add("POST", "/v1/cluster/rebalance", []byte(`{"rate":5}`))
	f.Add("GET", "/v1/assign?client=a%2Fb&transport=ws&tenant=t", []byte{})
	f.Add("GET", "/v1/routes/%73tats?tenant=t&consistency=local&all_nodes=1", []byte{})
	f.Add("GET", "/v1/routes?limit=5&prefix=%ff&cursor=c&node=n", []byte("{}"))
	f.Add("DELETE", "/v1/nodes/%2e%2e?force=", []byte(nil))
	b := &fake{present: make([]Presence, MaxPresence)}
	s, err := New(Config{Bind: "127.0.0.1:0", Token: testToken, Backend: b, MaxPayload: 1 << 10})
	if err != nil {
		f.Fatal(err)
	}
	s.state = stateOpen // requests are handed to the handler, nothing listens
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || strings.Contains(u.Path, "/debug/") || strings.HasSuffix(u.EscapedPath(), "/watch") || u.EscapedPath() == "/v1/openapi.yaml" {
			return
		}
		req := httptest.NewRequest(http.MethodPost, "http://x/", strings.NewReader(string(body)))
		req.Method, req.URL, req.RequestURI = method, u, target
		req.Header.Set("Authorization", "Bearer "+testToken)
		w := httptest.NewRecorder()
		before := b.count()
		s.ServeHTTP(w, req)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		var e errorBody
		isError := json.Unmarshal(w.Body.Bytes(), &e) == nil && e.Error.Reason != ""
		if isError && (e.Error.Message == "" || statusHTTP[e.Error.Reason] != w.Code) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%s", w.Body)
		}
		if b.count() == before {
			return
		}
		if isError {
			t.Fatalf("refused, but it reached the backend: %s", w.Body)
		}
		name, args := b.last()
		for _, arg := range args {
			if err := checkArg(arg); err != nil {
				t.Fatalf("%s got %+v: %v", name, arg, err)
			}
		}
	})
}

// checkArg holds what Backend is promised.
func checkArg(arg any) error {
	switch v := arg.(type) {
	case Message:
		if v.Timeout <= 0 || v.Timeout > MaxSendTimeout || v.ID.Instance == 0 || v.ID.Counter == 0 || len(v.Payload) > 1<<10 || v.Ack > wire.AckClient {
			return errors.New("out of bounds")
		}
		if v.From != "" {
			if err := (wire.ClientID{Tenant: v.To.Tenant, ID: v.From}).Validate(); err != nil {
				return err
			}
		}
		return v.To.Validate()
	case RouteQuery:
		if v.Consistency != Linearizable && v.Consistency != Local {
			return errors.New("consistency")
		}
		return v.Client.Validate()
	case RouteListQuery:
		if v.Limit < 1 || v.Limit > MaxPage || len(v.Prefix) > wire.MaxClientID {
			return errors.New("out of bounds")
		}
	case wire.ClientID:
		return v.Validate()
	case SettingsChange:
		if v == (SettingsChange{}) {
			return errors.New("empty")
		}
	}
	return nil
}

// FuzzClientID: each valid id survives Client's encoding and the router.
func FuzzClientID(f *testing.F) {
	for _, id := range []string{"alice", "stats", ".", "..", "a/b", "%2F", "é", "a b+c", "#?&;"} {
		f.Add(id)
	}
	s, err := New(Config{Bind: "127.0.0.1:0", Token: testToken, Backend: &fake{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if (wire.ClientID{ID: id}).Validate() != nil {
			return
		}
		u, err := url.Parse("http://h:1" + routePath(id, "", nil))
		if err != nil {
			t.Fatal(err)
		}
		rt, params, bad := s.find(http.MethodGet, u.EscapedPath())
		if bad != nil || rt.path != "/v1/routes/{client}" || params["client"] != id {
			t.Fatalf("%q: %+v %v %v", id, rt, params, bad)
		}
	})
}

// FuzzErrorBody: the client makes an error of whatever a server refuses with.
func FuzzErrorBody(f *testing.F) {
	f.Add(503, []byte(`{"error":{"code":3,"reason":"unavailable","message":"m","hint":"h"}}`))
	f.Add(404, []byte(`{"error":"text"}`))
	f.Add(502, []byte("<html>\xff"))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		e := parseError(code, body)
		if e.Status == "" || e.Error() == "" || statusHTTP[e.Status] == 0 {
			t.Fatalf("%#v", e)
		}
		if utf8.Valid(body) && !utf8.ValidString(e.Error()) {
			t.Fatalf("%q", e.Error())
		}
	})
}

// FuzzAddr: an address is refused or becomes a URL of that host.
func FuzzAddr(f *testing.F) {
	for _, a := range []string{"127.0.0.1:7903", "http://[::1]:1/", "https://h:2", "h", "http://h:1/p", "a@b:1", "h:1?q"} {
		f.Add(a, true)
	}
	f.Fuzz(func(t *testing.T, addr string, secure bool) {
		base, err := baseURL(addr, secure)
		if err != nil {
			return
		}
		u, err := url.Parse(base + "/v1/nodes")
		if err != nil {
			t.Skip() // a host that net/url does not take is refused by the first call
		}
		if u.Path != "/v1/nodes" || u.User != nil || u.RawQuery != "" {
			t.Fatalf("%q → %q", addr, base)
		}
	})
}
