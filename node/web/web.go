package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Paths of the client module and its types. The number is the client protocol's version.
const (
	PathModule = "/v1/imroute.js"
	PathTypes  = "/v1/imroute.d.ts"
)

//go:embed imroute.js imroute.d.ts demo/chat.html demo/chat.css demo/chat.js
var files embed.FS

// Node is one node as the chat page lists it.
type Node struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // WebSocket listener, host:port; empty if it has none
	Up   bool   `json:"up"`
	Here bool   `json:"here"` // the node that answers
}

// Config says what is served. Nodes is called by several goroutines at once.
type Config struct {
	// Demo serves the chat page at "/" and the files below "/demo/". It answers only requests for a loopback host: where no
	// login is checked, a name that somebody made to point to this machine must not become a page's origin.
	Demo bool
	// Nodes lists the cluster for the chat page. Required with Demo.
	Nodes func() []Node
	// TLS tells the page's policy that WebSocket connections are encrypted.
	TLS bool
}

// Handler answers GET and HEAD for the paths above, and 404 for others.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	module := static("imroute.js", "text/javascript; charset=utf-8")
	types := static("imroute.d.ts", "text/plain; charset=utf-8")
	mux.Handle("GET "+PathModule, public(module))
	mux.Handle("GET "+PathTypes, public(types))
	if cfg.Demo {
		page := static("demo/chat.html", "text/html; charset=utf-8")
		mux.Handle("GET /{$}", local(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", policy(r.Host, cfg.TLS, cfg.Nodes()))
			page(w, r)
		}))
		mux.Handle("GET /demo/chat.css", local(static("demo/chat.css", "text/css; charset=utf-8")))
		mux.Handle("GET /demo/chat.js", local(static("demo/chat.js", "text/javascript; charset=utf-8")))
		mux.Handle("GET /demo/nodes.json", local(func(w http.ResponseWriter, r *http.Request) {
			b, err := json.Marshal(cfg.Nodes())
			if err != nil {
				http.Error(w, "the list of nodes cannot be written: "+err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(b) // whoever went away needs no answer
		}))
	}
	return mux
}

// static serves one embedded file. A browser asks each time whether it is still the same, so a new version of a node is seen
// at once.
func static(name, contentType string) http.HandlerFunc {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // embedded under another name
	}
	sum := sha256.Sum256(b)
	etag := `"` + hex.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(b) // whoever went away needs no answer
	}
}

// public lets pages of any origin import a file: it is the same for everybody and says nothing about the cluster.
func public(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		h(w, r)
	}
}

func local(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !LoopbackHost(r.Host) {
			http.Error(w, "development mode answers on this machine only: use 127.0.0.1 or localhost", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// LoopbackHost reports whether the host of a request or an origin, with or without a port, names this machine and cannot be
// made to name another.
func LoopbackHost(hostport string) bool {
	host := hostname(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// policy lets the page load its own files, and connect to nodes. Nodes that join later have other ports, so ports are left
// open; a policy cannot name IPv6 addresses except by port.
func policy(host string, tls bool, nodes []Node) string {
	scheme := "ws://"
	if tls {
		scheme = "wss://"
	}
	connect := []string{"'self'"}
	add := func(hostport string) {
		name := hostname(hostport)
		source := scheme + name + ":*"
		switch {
		case name == "" || strings.ContainsAny(name, "; ,'\"*"):
			return
		case strings.Contains(name, ":"):
			source = scheme + hostport
		}
		if !slices.Contains(connect, source) {
			connect = append(connect, source)
		}
	}
	add(host)
	for _, n := range nodes {
		add(n.Addr)
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; img-src data:; connect-src " + strings.Join(connect, " ") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
