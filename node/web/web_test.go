package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(h http.Handler, method, host, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+host+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestOutsideDevelopment: the module and its types, for pages of any origin, and nothing else.
func TestOutsideDevelopment(t *testing.T) {
	h := Handler(Config{})
	for path, kind := range map[string]string{PathModule: "text/javascript; charset=utf-8", PathTypes: "text/plain; charset=utf-8"} {
		w := get(h, "GET", "chat.example.com", path, "Origin", "https://app.example.com")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(w.Body.String(), "ImrouteError") {
			t.Errorf("%s: %v", path, w.Header())
		}
		if w := get(h, "GET", "chat.example.com", path, "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%s again: %d", path, w.Code)
		}
		if w := get(h, "POST", "chat.example.com", path); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/", "/demo/chat.js", "/demo/chat.css", "/demo/nodes.json", "/demo/", "/v1/", "/imroute.js"} {
		if w := get(h, "GET", "127.0.0.1:7902", path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
}

func TestDemo(t *testing.T) {
	nodes := []Node{{Name: "n1", Addr: "127.0.0.1:7902", Up: true, Here: true}, {Name: "n2", Addr: "localhost:7912"}, {Name: "n3"}, {Name: "n4", Addr: "a b; script-src *:1"}, {Name: "n5", Addr: "[::1]:7932"}}
	h := Handler(Config{Demo: true, Nodes: func() []Node { return nodes }})
	for _, path := range []string{"/", "/demo/chat.js", "/demo/chat.css", "/demo/nodes.json"} {
		for _, host := range []string{"127.0.0.1:7902", "localhost:1", "[::1]:7902", "LOCALHOST"} {
			if w := get(h, "GET", host, path); w.Code != http.StatusOK || w.Body.Len() == 0 {
				t.Errorf("%s at %s: %d", path, host, w.Code)
			}
		}
		for _, host := range []string{"evil.example:7902", "127.0.0.1.evil.example", "192.168.0.1:7902", "0.0.0.0:7902"} { // names that were made to point here
			if w := get(h, "GET", host, path); w.Code != http.StatusForbidden {
				t.Errorf("%s at %s: %d, want 403", path, host, w.Code)
			}
		}
		if w := get(h, "GET", "127.0.0.1:1", path); w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s may be read by other origins", path)
		}
	}
	const want = "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; img-src data:;" +
		" connect-src 'self' ws://127.0.0.1:* ws://localhost:* ws://[::1]:7932; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := get(h, "GET", "127.0.0.1:7902", "/").Header().Get("Content-Security-Policy"); got != want {
		t.Errorf("policy:\n%s\nwant:\n%s", got, want)
	}
	var list []Node
	if err := json.Unmarshal(get(h, "GET", "localhost:7902", "/demo/nodes.json").Body.Bytes(), &list); err != nil || len(list) != len(nodes) || list[0] != nodes[0] {
		t.Errorf("nodes: %+v, %v", list, err)
	}
	secure := Handler(Config{Demo: true, TLS: true, Nodes: func() []Node { return nil }})
	if got := get(secure, "GET", "127.0.0.1:7902", "/").Header().Get("Content-Security-Policy"); !strings.Contains(got, "connect-src 'self' wss://127.0.0.1:*;") {
		t.Errorf("policy with TLS: %s", got)
	}
}

// TestPageKeepsToItself: no resource from elsewhere, and nothing that makes markup of text.
func TestPageKeepsToItself(t *testing.T) {
	for _, name := range []string{"demo/chat.html", "demo/chat.css", "demo/chat.js", "imroute.js"} {
		b, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("http://www.w3.org/2000/svg"), nil) // a name, nothing is loaded
		for _, word := range []string{"http://", "https://", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "@import", "url(", "style=", "onclick", "<script>"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s contains %q", name, word)
			}
		}
	}
}
