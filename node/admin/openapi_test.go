package admin

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"imroute/mesh/wire"
)

var updateOpenAPI = flag.Bool("update-openapi", false, "write openapi.yaml anew from the types and this file's table")

// endpoint is what the types do not say about a route. Whether it is true is for TestOpenAPI to find out from the handlers.
type endpoint struct {
	summary  string
	query    []string // "name" or "name:type", required ones with a "!" before; default type string
	in, out  any      // zero values of the bodies' types; nil: none
	required []string // fields of in
	example  string   // body of a call that succeeds
	with     string   // query of a call that succeeds
	statuses []int    // nil: those that every call of the backend may have
	content  string   // of 200, where it is not JSON
	once     int      // another status that has the body of 200
}

var backendStatuses = []int{200, 400, 401, 403, 404, 409, 413, 429, 500, 503, 504}

var endpoints = map[string]endpoint{
	"GET /healthz": {summary: "Whether a process lives here", out: struct {
		OK bool `json:"ok"`
	}{}, statuses: []int{200}},
	"GET /readyz":     {summary: "Whether this node should be sent clients", out: Readiness{}, statuses: []int{200, 503}},
	"GET /metrics":    {summary: "Metrics of this node for Prometheus", content: "text/plain", statuses: []int{200, 401, 403}},
	"GET /v1/version": {summary: "Build and name of this node", out: VersionInfo{}, statuses: []int{200, 400, 401, 403, 413, 429}},

	"GET /v1/nodes":                 {summary: "List the nodes", out: []Node{}},
	"GET /v1/nodes/{node}":          {summary: "One node, as it says itself", out: NodeDetail{}},
	"POST /v1/nodes/{node}/drain":   {summary: "Empty a node, or cancel that", in: drainBody{}, out: Node{}},
	"POST /v1/nodes/{node}/leave":   {summary: "Have a node leave the cluster", out: Node{}},
	"POST /v1/nodes/{node}/promote": {summary: "Make a node a voter", out: Node{}},
	"POST /v1/nodes/{node}/demote":  {summary: "Make a node a non-voter", out: Node{}},
	"DELETE /v1/nodes/{node}":       {summary: "Take a dead node out of the cluster", query: []string{"force:boolean"}, out: done{}},

	"GET /v1/cluster":            {summary: "The cluster as a whole", out: ClusterStatus{}},
	"GET /v1/cluster/settings":   {summary: "The agreed settings", out: Settings{}},
	"PUT /v1/cluster/settings":   {summary: "Change settings", in: SettingsChange{}, out: Settings{}, example: `{"target_voters":3}`},
	"POST /v1/cluster/upgrade":   {summary: "Raise the feature level to what every node knows", out: UpgradeResult{}},
	"GET /v1/cluster/rebalance":  {summary: "How far moving clients is", out: Rebalance{}},
	"POST /v1/cluster/rebalance": {summary: "Move clients gently until the nodes have about the same number", in: rebalanceBody{}, out: Rebalance{}},
	"POST /v1/tokens":            {summary: "Make a join token", in: tokenBody{}, out: JoinToken{}},
	"GET /v1/tokens":             {summary: "List join tokens", out: []JoinTokenInfo{}},
	"DELETE /v1/tokens/{id}":     {summary: "End a join token", out: done{}},

	"GET /v1/raft/peers":     {summary: "The Raft configuration", out: RaftPeers{}},
	"POST /v1/raft/transfer": {summary: "Hand leadership over", in: transferBody{}, out: TransferResult{}},
	"POST /v1/raft/verify":   {summary: "Compare the tables of all nodes", out: VerifyResult{}},
	"POST /v1/raft/snapshot": {summary: "Write a snapshot on this node", out: SnapshotResult{}},

	"GET /v1/routes":                {summary: "One page of the table", out: RoutePage{}, query: []string{"node", "tenant", "prefix", "cursor", "limit:integer"}},
	"GET /v1/routes/stats":          {summary: "Count the table", out: RouteStats{}},
	"GET /v1/routes/watch":          {summary: "Follow the table: one JSON object a line", content: "application/x-ndjson", statuses: []int{200, 400, 401, 403, 429, 503}, query: []string{"tenant", "client", "prefix"}},
	"POST /v1/routes/check":         {summary: "Compare the nodes' sessions with the table", in: checkBody{}, out: CheckResult{}},
	"GET /v1/routes/{client}":       {summary: "Who owns a client", out: Route{}, query: []string{"tenant", "consistency", "all_nodes:boolean"}, once: 404},
	"POST /v1/routes/{client}/kick": {summary: "Close a client's session", in: kickBody{}, out: KickResult{}},

	"GET /v1/groups":                 {summary: "One page of a tenant's groups", out: GroupPage{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"GET /v1/groups/{group}/members": {summary: "One page of a group's members", out: GroupMembers{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"POST /v1/groups/{group}/close":  {summary: "Remove all members of a group", in: groupCloseBody{}, out: GroupClosed{}},

	"POST /v1/messages": {summary: "Send a message to a client, a group, a user or many", in: SendRequest{}, out: SendResult{}, example: `{"to":"bob","payload":"hi"}`},
	"POST /v1/messages/many": {
		summary: "Send a message to several clients", in: SendManyRequest{}, out: SendManyResult{}, required: []string{"to"}, example: `{"to":["bob","eve"],"payload":"hi"}`,
		statuses: []int{200, 400, 401, 403, 413, 429},
	},
	"GET /v1/services":          {summary: "One page of a tenant's services", out: ServicePage{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"GET /v1/presence/count":    {summary: "How many clients and users are online, in all tenants", out: PresenceCount{}},
	"GET /v1/presence/{client}": {summary: "Whether a client is online", out: Presence{}, query: []string{"tenant"}},
	"POST /v1/presence":         {summary: "Who of several clients is online", in: PresenceRequest{}, out: PresenceList{}, required: []string{"clients"}, example: `{"clients":["a","b"]}`},
	"GET /v1/assign":            {summary: "Where a client should connect", out: Assignment{}, query: []string{"!client", "tenant", "transport"}, with: "client=bob"},
	"POST /v1/client-tokens":    {summary: "Sign a login token", in: clientTokenBody{}, out: ClientToken{}, required: []string{"client"}, example: `{"client":"bob"}`},

	"POST /v1/api-keys":        {summary: "Make an API key", in: APIKeyRequest{}, out: APIKey{}, required: []string{"scopes"}, example: `{"scopes":["send"]}`},
	"GET /v1/api-keys":         {summary: "List API keys", out: []APIKeyInfo{}},
	"DELETE /v1/api-keys/{id}": {summary: "End an API key", out: done{}},
	"GET /v1/openapi.yaml":     {summary: "This description", content: "application/yaml", statuses: []int{200, 400, 401, 403}},
}

// undescribed are Go's own, for people with Go's tools.
func undescribed(rt *route) bool { return strings.HasPrefix(rt.path, "/debug/") }

func (e *endpoint) codes() []int {
	if e.statuses != nil {
		return e.statuses
	}
	return backendStatuses
}

// generator makes schemas of Go types, with their comments as descriptions.
type generator struct {
	schemas  map[string]any
	comments map[string]string // "Type" and "Type.Field"
}

func readComments(t *testing.T) map[string]string {
	out := map[string]string{}
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		commentsOf(f, out)
	}
	return out
}

func commentsOf(f *ast.File, out map[string]string) {
	ast.Inspect(f, func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok {
			return true
		}
		for _, spec := range d.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			doc := ts.Doc.Text()
			if doc == "" {
				doc = d.Doc.Text()
			}
			out[ts.Name.Name] = strings.Join(strings.Fields(doc), " ")
			if st, ok := ts.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						out[ts.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Comment.Text()), " ")
					}
				}
			}
		}
		return true
	})
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

func (g *generator) schema(t reflect.Type, required []string) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(textMarshaler):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem(), required)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Int32:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.schema(t.Elem(), nil)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem(), nil)}
	case reflect.Struct:
	default:
		panic("no schema for " + t.String())
	}
	if t.Name() == "" {
		return g.object(t, required)
	}
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if g.schemas[name] == nil {
		g.schemas[name] = map[string]any{} // of a type that holds itself
		g.schemas[name] = g.object(t, required)
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

func (g *generator) object(t reflect.Type, required []string) map[string]any {
	props := map[string]any{}
	always := slices.Clone(required)
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				add(f.Type)
				continue
			}
			name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			s := g.schema(f.Type, nil)
			if strings.Contains(opts, "string") {
				s = map[string]any{"type": "string", "pattern": "^[0-9]+$"}
			}
			if c := g.comments[t.Name()+"."+f.Name]; c != "" {
				s["description"] = c
			}
			props[name] = s
			if required == nil && !strings.Contains(opts, "omitempty") {
				always = append(always, name)
			}
		}
	}
	add(t)
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(always) > 0 {
		slices.Sort(always)
		out["required"] = always
	}
	if c := g.comments[t.Name()]; c != "" {
		out["description"] = c
	}
	return out
}

var statusWords = map[int]string{
	400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 413: "TooLarge", 429: "Overloaded", 500: "Internal", 503: "Unavailable", 504: "Timeout",
}

func jsonContent(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

func scopeOf(rt *route) string {
	switch {
	case rt.open:
		return "none"
	case rt.scope == anyScope:
		return "any"
	case rt.scope == 0:
		return wire.ScopeAdmin.String()
	}
	return rt.scope.String()
}

// generate writes openapi.yaml.
func generate(t *testing.T, s *Server) []byte {
	g := &generator{schemas: map[string]any{}, comments: readComments(t)}
	responses := map[string]any{}
	for code, word := range statusWords {
		responses[word] = map[string]any{"description": http.StatusText(code), "content": jsonContent(g.schema(reflect.TypeFor[errorBody](), nil))}
	}
	paths := map[string]any{}
	for i := range s.routes {
		rt := &s.routes[i]
		if undescribed(rt) {
			continue
		}
		e, ok := endpoints[rt.method+" "+rt.path]
		if !ok {
			t.Fatalf("%s %s is not in the table of this test", rt.method, rt.path)
		}
		op := map[string]any{"summary": e.summary, "x-scope": scopeOf(rt)}
		if rt.open {
			op["security"] = []any{}
		}
		var params []any
		for _, p := range rt.parts {
			if strings.HasPrefix(p, "{") {
				params = append(params, map[string]any{"name": strings.Trim(p, "{}"), "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
			}
		}
		for _, q := range e.query {
			name, typ, found := strings.Cut(strings.TrimPrefix(q, "!"), ":")
			if !found {
				typ = "string"
			}
			p := map[string]any{"name": name, "in": "query", "schema": map[string]any{"type": typ}}
			if strings.HasPrefix(q, "!") {
				p["required"] = true
			}
			params = append(params, p)
		}
		if params != nil {
			op["parameters"] = params
		}
		if e.in != nil {
			required := e.required
			if required == nil {
				required = []string{}
			}
			op["requestBody"] = map[string]any{"content": jsonContent(g.schema(reflect.TypeOf(e.in), required))}
		}
		rs := map[string]any{}
		for _, code := range e.codes() {
			switch {
			case code == 200 && e.content != "":
				rs["200"] = map[string]any{"description": "OK", "content": map[string]any{e.content: map[string]any{"schema": map[string]any{"type": "string"}}}}
			case code == 200, rt.open:
				rs[strconv.Itoa(code)] = map[string]any{"description": http.StatusText(code), "content": jsonContent(g.schema(reflect.TypeOf(e.out), nil))}
			case code == e.once:
				either := []any{g.schema(reflect.TypeOf(e.out), nil), g.schema(reflect.TypeFor[errorBody](), nil)}
				rs[strconv.Itoa(code)] = map[string]any{"description": http.StatusText(code), "content": jsonContent(map[string]any{"oneOf": either})}
			default:
				rs[strconv.Itoa(code)] = map[string]any{"$ref": "#/components/responses/" + statusWords[code]}
			}
		}
		op["responses"] = rs
		item, _ := paths[rt.path].(map[string]any)
		if item == nil {
			item = map[string]any{}
			paths[rt.path] = item
		}
		item[strings.ToLower(rt.method)] = op
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "imroute", "version": "1",
			"description": "For back ends and operators, on any node's admin port. Back ends show an API key (imctl api key create), whose scopes x-scope names; the operators' token may do everything. In development mode neither is needed. A client asks GET /v1/assign without a token on the WebSocket port too.",
		},
		"security": []any{map[string]any{"bearer": []any{}}},
		"paths":    paths,
		"components": map[string]any{
			"securitySchemes": map[string]any{"bearer": map[string]any{"type": "http", "scheme": "bearer"}},
			"schemas":         g.schemas, "responses": responses,
		},
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// document is openapi.yaml as JSON would have it.
type document struct{ root map[string]any }

func (d *document) at(v any) map[string]any {
	m, _ := v.(map[string]any)
	for m != nil && m["$ref"] != nil {
		at := any(d.root)
		for _, part := range strings.Split(strings.TrimPrefix(m["$ref"].(string), "#/"), "/") {
			at = at.(map[string]any)[part]
		}
		m, _ = at.(map[string]any)
	}
	return m
}

// validate says what in v does not fit a schema.
func (d *document) validate(schema any, v any, where string) error {
	s := d.at(schema)
	if s == nil {
		return fmt.Errorf("%s: no schema", where)
	}
	if either, ok := s["oneOf"].([]any); ok {
		fits := 0
		for _, one := range either {
			if d.validate(one, v, where) == nil {
				fits++
			}
		}
		if fits != 1 {
			return fmt.Errorf("%s: fits %d of %d", where, fits, len(either))
		}
		return nil
	}
	bad := func() error { return fmt.Errorf("%s: %v is no %v", where, v, s["type"]) }
	switch s["type"] {
	case "string":
		text, ok := v.(string)
		if !ok {
			return bad()
		}
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(text) {
			return fmt.Errorf("%s: %q does not match %s", where, text, p)
		}
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return bad()
		}
	case "integer":
		n, ok := v.(json.Number)
		if !ok || strings.ContainsAny(n.String(), ".eE") {
			return bad()
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return bad()
		}
		for i, one := range list {
			if err := d.validate(s["items"], one, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return bad()
		}
		props, _ := s["properties"].(map[string]any)
		for name, one := range m {
			p, known := props[name]
			if !known {
				if p = s["additionalProperties"]; p == nil || p == false {
					return fmt.Errorf("%s: %s is not described", where, name)
				}
			}
			if err := d.validate(p, one, where+"."+name); err != nil {
				return err
			}
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := m[name.(string)]; !ok {
				return fmt.Errorf("%s: %s is missing", where, name)
			}
		}
	default:
		return fmt.Errorf("%s: schema of type %v", where, s["type"])
	}
	return nil
}

var knownHint = regexp.MustCompile(`known are ([^"]*)"`)

// hinted reads the names from an error about an unknown parameter or field.
func hinted(body string) (names []string) {
	if m := knownHint.FindStringSubmatch(body); m != nil {
		names = strings.Split(m[1], ", ")
	}
	slices.Sort(names)
	return names
}

// TestOpenAPI compares openapi.yaml with the handlers, both ways: routes and methods, scopes, parameters and fields (each handler
// lists those it knows when it is given one that it does not), types of fields, answers, statuses.
func TestOpenAPI(t *testing.T) {
	b := filled(&fake{})
	b.watch = func(_ context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
		return emit(RouteEvent{Event: EventResync})
	}
	s := start(t, b, func(c *Config) {
		c.DevMode, c.Token = false, "0123456789abcdef"
		c.KeyCheck = func(string) (Key, bool) { return Key{ID: "none", Scopes: 1 << 30}, true }
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up 1") })
	})
	const operator = "Bearer 0123456789abcdef"
	if *updateOpenAPI {
		if err := os.WriteFile("openapi.yaml", generate(t, s), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Skip("openapi.yaml is written; run again without the flag")
	}
	code, served, head := raw(t, s, "GET", "/v1/openapi.yaml", "", "Authorization", operator)
	onDisk, err := os.ReadFile("openapi.yaml")
	if err != nil || code != 200 || served != string(onDisk) || head.Get("Content-Type") != "application/yaml" {
		t.Fatalf("served: %d %v %v", code, head, err)
	}
	if again := generate(t, s); !bytes.Equal(again, onDisk) {
		t.Errorf("the types have changed: go test ./node/admin -run TestOpenAPI -update-openapi\n%s", cmp.Diff(string(onDisk), string(again)))
	}
	var d document
	if err := yaml.Unmarshal(onDisk, &d.root); err != nil {
		t.Fatal(err)
	}
	if d.root["openapi"] != "3.1.0" {
		t.Errorf("openapi: %v", d.root["openapi"])
	}
	described := map[string]bool{}
	for path, item := range d.root["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	for i := range s.routes {
		rt := &s.routes[i]
		if undescribed(rt) {
			continue
		}
		name := rt.method + " " + rt.path
		if !described[name] {
			t.Errorf("%s is not described", name)
			continue
		}
		delete(described, name)
		op := d.root["paths"].(map[string]any)[rt.path].(map[string]any)[strings.ToLower(rt.method)].(map[string]any)
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) { d.checkRoute(t, s, b, rt, op, operator) })
	}
	for name := range described {
		t.Errorf("%s is described and does not exist", name)
	}
}

func (d *document) checkRoute(t *testing.T, s *Server, b *fake, rt *route, op map[string]any, operator string) {
	e := endpoints[rt.method+" "+rt.path]
	path := strings.NewReplacer("{node}", "n1", "{id}", "x", "{client}", "bob", "{group}", "g").Replace(rt.path)
	if op["x-scope"] != scopeOf(rt) {
		t.Errorf("x-scope is %v, want %s", op["x-scope"], scopeOf(rt))
	}
	ask := func(query, body string) (int, string) {
		if query != "" {
			query = "?" + query
		}
		code, out, _ := raw(t, s, rt.method, path+query, body, "Authorization", operator)
		return code, out
	}
	produced := map[string]bool{}
	check := func(code int, body string) {
		t.Helper()
		key := strconv.Itoa(code)
		produced[key] = true
		resp := d.at(op["responses"].(map[string]any)[key])
		if resp == nil {
			t.Errorf("answers %s %s, which is not described", key, body)
			return
		}
		content, _ := resp["content"].(map[string]any)["application/json"].(map[string]any)
		if content == nil {
			return // not JSON
		}
		dec := json.NewDecoder(strings.NewReader(body))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Errorf("%s: %v in %s", key, err, body)
		} else if err := d.validate(content["schema"], v, "answer"); err != nil {
			t.Errorf("%s: %v in %s", key, err, body)
		}
	}

	// Parameters.
	var wantQuery, wantPath []string
	params, _ := op["parameters"].([]any)
	for _, p := range params {
		p := p.(map[string]any)
		name := p["name"].(string)
		if p["in"] == "path" {
			wantPath = append(wantPath, "{"+name+"}")
			continue
		}
		wantQuery = append(wantQuery, name)
		if p["required"] == true {
			if code, body := ask("", e.example); code != 400 || !strings.Contains(body, name) {
				t.Errorf("without %s: %d %s", name, code, body)
			}
		}
		if typ := p["schema"].(map[string]any)["type"]; typ != "string" {
			if code, body := ask(name+"=bad", e.example); code != 400 || !strings.Contains(body, name) {
				t.Errorf("%s is described as %v, and %s=bad gives %d %s", name, typ, name, code, body)
			}
		}
	}
	slices.Sort(wantQuery)
	var isPath []string
	for _, part := range rt.parts {
		if strings.HasPrefix(part, "{") {
			isPath = append(isPath, part)
		}
	}
	if diff := cmp.Diff(isPath, wantPath); diff != "" {
		t.Errorf("parameters in the path:\n%s", diff)
	}
	if !rt.open && rt.path != "/metrics" {
		code, body := ask("surely_unknown=1", e.example)
		check(code, body)
		if diff := cmp.Diff(hinted(body), wantQuery); code != 400 || diff != "" {
			t.Errorf("parameters: %d %s\n%s", code, body, diff)
		}
	}

	// Fields of the body.
	if rt.method != "GET" {
		code, body := ask("", `{"surely_unknown":1}`)
		check(code, body)
		var props map[string]any
		var required []any
		if rb, ok := op["requestBody"].(map[string]any); ok {
			schema := d.at(rb["content"].(map[string]any)["application/json"].(map[string]any)["schema"])
			props, _ = schema["properties"].(map[string]any)
			required, _ = schema["required"].([]any)
		}
		var names []string
		for name, p := range props {
			names = append(names, name)
			words := map[string]string{"string": "a string", "boolean": "true or false", "integer": "a whole number", "array": "a "}
			want := words[d.at(p)["type"].(string)]
			if code, body := ask("", `{"`+name+`":{}}`); code != 400 || !strings.Contains(body, `field \"`+name) || !strings.Contains(body, "want "+want) {
				t.Errorf("field %s is described as %v, and an object gives %d %s", name, d.at(p)["type"], code, body)
			}
		}
		slices.Sort(names)
		if diff := cmp.Diff(hinted(body), names); code != 400 || diff != "" {
			t.Errorf("fields: %d %s\n%s", code, body, diff)
		}
		for _, name := range required {
			var m map[string]any
			if err := json.Unmarshal([]byte(e.example), &m); err != nil || m[name.(string)] == nil {
				t.Fatalf("the example lacks %s: %v", name, err)
			}
			delete(m, name.(string))
			less, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if code, body := ask("", string(less)); code != 400 || !strings.Contains(body, name.(string)) {
				t.Errorf("without %s: %d %s", name, code, body)
			}
		}
	}

	// Answers.
	code, body := ask(e.with, e.example)
	if code != 200 {
		t.Errorf("the example gives %d %s", code, body)
	}
	if rt.path != "/v1/routes/watch" {
		check(code, body)
	} else {
		produced["200"] = true
		b.watch = func(context.Context, WatchQuery, func(RouteEvent) error) error { return nil }
		check(ask("", ""))
	}
	if rt.path == "/readyz" {
		was := b.ready.Ready
		b.ready.Ready = false
		check(ask("", ""))
		b.ready.Ready = was
	}
	if e.once != 0 {
		was := b.route
		b.route.Found, b.route.Devices = false, nil
		check(ask("", ""))
		b.route = was
	}
	if rt.open {
		d.sameStatuses(t, op, produced)
		return
	}
	code, body, _ = raw(t, s, rt.method, path, "")
	check(code, body)
	if rt.scope != anyScope {
		code, body, _ = raw(t, s, rt.method, path, "", "Authorization", "Bearer "+KeyPrefix+"x")
		check(code, body)
	} else {
		produced["403"] = true // another one's page, in development mode
	}
	if rt.stream == nil {
		// One byte over the limit, so that all of it is read: what is left unread may reset the connection before the answer is.
		check(ask(e.with, `{"x":"`+strings.Repeat("x", 2*s.cfg.MaxPayload+64<<10+1-len(`{"x":""}`))+`"}`))
		for range cap(s.calls) {
			s.calls <- struct{}{}
		}
		check(ask(e.with, e.example))
		for range cap(s.calls) {
			<-s.calls
		}
	} else if rt.path == "/v1/routes/watch" {
		for range cap(s.watches) {
			s.watches <- struct{}{}
		}
		check(ask("", ""))
		for range cap(s.watches) {
			<-s.watches
		}
	}
	if e.statuses == nil {
		for status := range statusHTTP {
			if status == StatusMethod {
				continue // of the path, not of this method
			}
			b.mu.Lock()
			b.err = Errorf(status, "for a test")
			b.mu.Unlock()
			check(ask(e.with, e.example))
		}
		b.mu.Lock()
		b.err = nil
		b.mu.Unlock()
	}
	d.sameStatuses(t, op, produced)
}

func (d *document) sameStatuses(t *testing.T, op map[string]any, produced map[string]bool) {
	for code := range op["responses"].(map[string]any) {
		if !produced[code] {
			t.Errorf("%s is described and was never answered", code)
		}
	}
}
