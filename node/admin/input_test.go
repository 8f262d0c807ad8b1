package admin

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestBadInput: each wrong request is refused with the name of what is wrong, and never reaches the backend.
func TestBadInput(t *testing.T) {
	b := &fake{}
	s := start(t, b, func(c *Config) { c.MaxPayload = 64 })
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string // in the message or the hint
	}{
		// Messages.
		{"POST", "/v1/messages", ``, 400, `field "to" is missing`},
		{"POST", "/v1/messages", `{}`, 400, `field "to" is missing`},
		{"POST", "/v1/messages", `{"to":""}`, 400, `field "to" is missing`},
		{"POST", "/v1/messages", `{"to":"a*","payload":""}`, 400, `field "to": client id: '*' is not allowed`},
		{"POST", "/v1/messages", `{"to":"a/b/c","payload":""}`, 400, `field "to": client id "a/b/c"`},
		{"POST", "/v1/messages", `{"to":"` + long + `","payload":""}`, 400, `field "to": client id is 300 bytes long`},
		{"POST", "/v1/messages", `{"to":"a\n","payload":""}`, 400, `control characters`},
		{"POST", "/v1/messages", `{"to":"a","from":"/","payload":""}`, 400, `field "from"`},
		{"POST", "/v1/messages", `{"to":"a","tenant":"x:y","payload":""}`, 400, `the tenant "x:y" is not valid: must not contain`},
		{"POST", "/v1/messages", `{"kind":"user","to":"a","tenant":"x*","payload":""}`, 400, `the tenant "x*" is not valid: '*'`},
		{"POST", "/v1/messages/many", `{"to":["a"],"tenant":"x:y","payload":""}`, 400, `the tenant "x:y" is not valid: must not contain`},
		{"GET", "/v1/presence/count?tenant=x:y", ``, 400, `the tenant "x:y" is not valid: must not contain`},
		{"POST", "/v1/messages", `{"to":"a"}`, 400, `field "payload" is missing`},
		{"POST", "/v1/messages", `{"to":"a","payload":null}`, 400, `field "payload" is missing`},
		{"POST", "/v1/messages", `{"to":"a","payload":"x","payload_b64":"eA=="}`, 400, `both given`},
		{"POST", "/v1/messages", `{"to":"a","payload_b64":"eA"}`, 400, `field "payload_b64" is not valid base64`},
		{"POST", "/v1/messages", `{"to":"a","payload_b64":"e-_="}`, 400, `standard alphabet`},
		{"POST", "/v1/messages", `{"to":"a","payload":"` + strings.Repeat("x", 65) + `"}`, 413, `the payload has 65 bytes: at most 64`},
		{"POST", "/v1/messages", `{"to":"a","payload":"` + strings.Repeat("x", 70_000) + `"}`, 413, `the body is larger than 65664 bytes`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","ack":"all"}`, 400, `field "ack" is "all": want none, owner or client`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","timeout_ms":60001}`, 400, `field "timeout_ms" is 60001: at most 60000`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","timeout_ms":-1}`, 400, `field "timeout_ms": -1 is not possible: want a whole number`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","timeout_ms":5000000000}`, 400, `field "timeout_ms": 5000000000 is not possible`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","timeout_ms":1.5}`, 400, `field "timeout_ms"`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","timeout_ms":"5"}`, 400, `field "timeout_ms": want a whole number from 0 to 4294967295, not text`},
		{"POST", "/v1/messages", `{"to":7,"payload":""}`, 400, `field "to": `},
		{"POST", "/v1/messages", `{"to":"a","payload":"","id":"7"}`, 400, `field "id" is "7": want sixteen hex digits`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","id":"0000000000000000.1"}`, 400, `field "id"`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","id":"00000000000000ff.0"}`, 400, `field "id"`},
		{"POST", "/v1/messages", `{"kind":"club","to":"a","payload":""}`, 400, `want client, group`},
		{"POST", "/v1/messages", `{"kind":"group","to":"a*","payload":""}`, 400, `field "to": `},
		{"POST", "/v1/messages", `{"kind":"all","to":"a","payload":""}`, 400, `field "to": `},
		{"POST", "/v1/messages", `{"kind":"group","payload":""}`, 400, `name the group`},
		{"GET", "/v1/groups?limit=0", ``, 400, `limit`},
		{"GET", "/v1/groups/a*/members", ``, 400, `group:`},
		{"POST", "/v1/groups/a%2Fb/close", `{"reason":1}`, 400, `reason`},
		{"POST", "/v1/messages", `{"to":"a","payolad":""}`, 400, `field "payolad" is not known here`},
		{"POST", "/v1/messages", `{"to":"a","payolad":""}`, 400, `known are from, tenant, kind, to, payload`},
		{"POST", "/v1/messages", `["a"]`, 400, `the body is a list: want an object`},
		{"POST", "/v1/messages", `"a"`, 400, `the body is text`},
		{"POST", "/v1/messages", `{"to":"a"`, 400, `ends too early`},
		{"POST", "/v1/messages", `{"to":"a",}`, 400, `not valid JSON at byte`},
		{"POST", "/v1/messages", `{"to":"a","payload":""} {}`, 400, `more than one JSON value`},
		{"POST", "/v1/messages", `{"to":"a","payload":""}]`, 400, `more than one JSON value`},
		{"POST", "/v1/messages", "{\"to\":\"a\",\"payload\":\"\xff\"}", 400, `payload_b64`},
		// Names are exact and come once, text is what was sent, and nobody learns Go.
		{"POST", "/v1/messages", `{"To":"a","payload":""}`, 400, `field "To" is not known here`},
		{"POST", "/v1/messages", `{"to":"a","PAYLOAD":""}`, 400, `field "PAYLOAD" is not known here`},
		{"POST", "/v1/messages", `{"to":"a","to":"b","payload":""}`, 400, `field "to" is given twice`},
		{"POST", "/v1/messages", `{"to":"a","\u0074o":"b","payload":""}`, 400, `field "to" is given twice`},
		{"POST", "/v1/messages", `{"to":"a","payload":"\ud800"}`, 400, `field "payload" has half of a surrogate pair`},
		{"POST", "/v1/messages", `{"to":"a\udc00","payload":""}`, 400, `field "to" has half of a surrogate pair`},
		{"POST", "/v1/messages", `{"to":"a","payload":"\ud83d\u0041"}`, 400, `field "payload" has half`},
		{"POST", "/v1/messages", `{"to":"a","payload":"\\\ud83d"}`, 400, `field "payload" has half`},
		{"POST", "/v1/messages", `{"to":"a","\ud800":1}`, 400, `is not known here`},
		{"POST", "/v1/messages", `{"to":"a","payload":[1]}`, 400, `field "payload": want text, not a list`},
		{"POST", "/v1/messages", `{"to":"a","payload":{"x":1}}`, 400, `field "payload": want text, not an object`},
		{"POST", "/v1/messages/many", `{"to":"a","payload":""}`, 400, `field "to": want a list of texts, not text`},
		{"POST", "/v1/messages/many", `{"to":["a",1],"payload":""}`, 400, `field "to": want a list of texts, and not all in it is text`},
		{"POST", "/v1/presence", `{"Clients":["a"]}`, 400, `known are tenant, clients`},
		{"POST", "/v1/client-tokens", `{"client":"a","send":"x"}`, 400, `field "send": want a list of texts, not text`},
		{"PUT", "/v1/cluster/settings", `{"target_voters":3,"target_voters":5}`, 400, `given twice`},
		{"GET", "/v1/routes/a", `null {}`, 400, `more than one JSON value`},
		{"POST", "/v1/messages?to=a", `{}`, 400, `parameter "to" is not known here`},
		{"POST", "/v1/messages", `{"to":"a","payload":"","id":"7"}`, 400, `out_of_order`},
		// Routes.
		{"GET", "/v1/route", ``, 400, `parameter "client" is missing`},
		{"GET", "/v1/route?client=a*", ``, 400, `parameter "client": client id: '*'`},
		{"GET", "/v1/routes/a?client=b", ``, 400, `parameter "client" is not known here`},
		{"GET", "/v1/presence", ``, 400, `parameter "client" is missing`},
		{"GET", "/v1/routes/a*", ``, 400, `'*' is not allowed`},
		{"GET", "/v1/routes/a%00", ``, 400, `control characters`},
		{"GET", "/v1/routes/%ff", ``, 400, `UTF-8`},
		{"GET", "/v1/routes/" + long, ``, 400, `300 bytes long`},
		{"GET", "/v1/routes/a?consistency=strong", ``, 400, `parameter "consistency" is "strong": want linearizable or local`},
		{"GET", "/v1/routes/a?all_nodes=yes", ``, 400, `parameter "all_nodes" is "yes": want true or false`},
		{"GET", "/v1/routes/a?tenat=x", ``, 400, `parameter "tenat" is not known here`},
		{"GET", "/v1/routes/a?tenat=x", ``, 400, `known are tenant, consistency, all_nodes`},
		{"GET", "/v1/routes/a?tenant=x&tenant=y", ``, 400, `given twice`},
		{"GET", "/v1/routes/a?%zz", ``, 400, `the query cannot be read`},
		{"GET", "/v1/routes/a", `{"x":1}`, 400, `field "x" is not known here`},
		{"GET", "/v1/routes?limit=0", ``, 400, `parameter "limit" is "0": want a number from 1 to 1000`},
		{"GET", "/v1/routes?limit=1001", ``, 400, `parameter "limit"`},
		{"GET", "/v1/routes?limit=", ``, 400, `parameter "limit"`},
		{"GET", "/v1/routes?prefix=" + long, ``, 400, `parameter "prefix" has 300 bytes`},
		{"GET", "/v1/routes/watch?client=a&prefix=b", ``, 400, `both given`},
		{"GET", "/v1/routes/watch?client=a*", ``, 400, `parameter "client"`},
		{"GET", "/v1/routes/watch?follow=1", ``, 400, `parameter "follow"`},
		{"POST", "/v1/routes/a/kick", `{"reason":"` + strings.Repeat("r", 1025) + `"}`, 400, `field "reason" has 1025 bytes`},
		{"POST", "/v1/routes/a/kick", `{"reason":1}`, 400, `field "reason"`},
		{"GET", "/v1/routes/user/device", ``, 404, `%2F`},
		// The cluster.
		{"PUT", "/v1/cluster/settings", `{}`, 400, `nothing to change`},
		{"PUT", "/v1/cluster/settings", `{"duplicate_login":"ignore"}`, 400, `field "duplicate_login" is "ignore": want replace or reject`},
		{"PUT", "/v1/cluster/settings", `{"one_per_class":"yes"}`, 400, `one_per_class`},
		{"PUT", "/v1/cluster/settings", `{"target_voters":2}`, 400, `field "target_voters" is 2: want 1, 3, 5 or 7`},
		{"PUT", "/v1/cluster/settings", `{"targetvoters":3}`, 400, `known are duplicate_login, one_per_class, target_voters`},
		{"POST", "/v1/tokens", `{"ttl_seconds":4000000000}`, 400, `field "ttl_seconds": 4000000000 is too long`},
		{"POST", "/v1/tokens", `{"ttl":60}`, 400, `known are ttl_seconds`},
		{"POST", "/v1/client-tokens", `{}`, 400, `field "client" is missing`},
		{"POST", "/v1/client-tokens", `{"client":"*"}`, 400, `field "client"`},
		{"POST", "/v1/client-tokens", `{"client":"a","ttl_seconds":4000000000}`, 400, `field "ttl_seconds"`},
		{"POST", "/v1/nodes/n1/drain", `{"cancel":"yes"}`, 400, `field "cancel": want true or false, not text`},
		{"POST", "/v1/nodes/n1/leave", `{"now":true}`, 400, `no fields are known here`},
		{"DELETE", "/v1/nodes/n1?force=please", ``, 400, `parameter "force"`},
		// Paths and methods.
		{"GET", "/", ``, 404, `no endpoint /`},
		{"GET", "/v1", ``, 404, `no endpoint`},
		{"GET", "/v1/nodes/", ``, 404, `no endpoint`},
		{"GET", "/v1/nodes//drain", ``, 404, `no endpoint`},
		{"GET", "/v1/node", ``, 404, `no endpoint`},
		{"GET", "/metrics", ``, 404, `no metrics`},
		{"POST", "/v1/nodes", ``, 405, `use GET`},
		{"PATCH", "/v1/nodes/n1", ``, 405, `use DELETE or GET`},
		{"GET", "/v1/messages", ``, 405, `use POST`},
		{"GET", "/debug/pprof/profile?seconds=9999", ``, 400, `parameter "seconds"`},
		{"GET", "/debug/pprof/profile?seconds=NaN", ``, 400, `parameter "seconds"`},
	} {
		code, body, _ := raw(t, s, tt.method, tt.path, tt.body)
		var e errorBody
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Errorf("%s %s %.80s: %d, not an error of ours: %s", tt.method, tt.path, tt.body, code, body)
			continue
		}
		if code != tt.code || !strings.Contains(e.Error.Message+"\n"+e.Error.Hint, tt.want) {
			t.Errorf("%s %.80s %.80s:\n got %d %q %q\nwant %d %q", tt.method, tt.path, tt.body, code, e.Error.Message, e.Error.Hint, tt.code, tt.want)
		}
	}
	if n := b.count(); n != 0 {
		name, args := b.last()
		t.Errorf("%d bad requests reached the backend, the last was %s %v", n, name, args)
	}
}
