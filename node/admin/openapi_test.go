package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

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
			words := map[string]string{"string": "text", "boolean": "true or false", "integer": "a whole number", "array": "a list"}
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
