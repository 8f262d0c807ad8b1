package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// fakeAPI answers "METHOD /path" with what it was told, everything else with 404.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]fakeAnswer
	asked   []string // "METHOD /path?query body"
	tokens  []string // Authorization headers
}

type fakeAnswer struct {
	status int
	body   any
}

func newFakeAPI(t *testing.T, answers map[string]any) *fakeAPI {
	f := &fakeAPI{answers: map[string]fakeAnswer{}}
	for k, v := range answers {
		f.set(k, http.StatusOK, v)
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPI) set(key string, status int, body any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[key] = fakeAnswer{status, body}
}

// refuse makes key answer with an error of the API.
func (f *fakeAPI) refuse(key string, status int, reason admin.Status, message, hint string) {
	f.set(key, status, map[string]any{"error": map[string]any{"code": 0, "reason": reason, "message": message, "hint": hint}})
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	f.tokens = append(f.tokens, r.Header.Get("Authorization"))
	a, ok := f.answers[r.Method+" "+r.URL.Path]
	f.mu.Unlock()
	if !ok {
		http.Error(w, "no such path", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body)
}

func (f *fakeAPI) addr() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fakeAPI) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// world is what a run of imctl finds outside.
type world struct {
	dir     string
	env     map[string]string
	in      string
	inTTY   bool
	signals chan os.Signal
	start   serverStarter
	exe     string
}

func newWorld(t *testing.T) *world {
	return &world{dir: t.TempDir(), env: map[string]string{}, signals: make(chan os.Signal, 2)}
}

func (w *world) contextPath() string { return filepath.Join(w.dir, "imroute", "context.json") }

// syncBuffer may be read while somebody writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// app makes an app with these surroundings.
func (w *world) app(out, errs io.Writer) *app {
	a := newApp(IOStreams{
		In: strings.NewReader(w.in), Out: out, Err: errs, InTTY: w.inTTY, Signals: w.signals, UserConfigDir: w.dir, Executable: w.exe,
		LookupEnv: func(k string) (string, bool) { v, ok := w.env[k]; return v, ok },
	})
	if w.start != nil {
		a.startServer = w.start
	}
	return a
}

// run runs imctl and returns the exit code and both outputs.
func (w *world) run(args ...string) (code int, stdout, stderr string) {
	var out, errs syncBuffer
	code = run(args, w.app(&out, &errs))
	return code, out.String(), errs.String()
}

// saveContext writes the context file.
func (w *world) saveContext(t *testing.T, c clusterContext) {
	t.Helper()
	if err := w.app(io.Discard, io.Discard).updateContext(func(f *contextFile) error { f.merge(c); return nil }); err != nil {
		t.Fatal(err)
	}
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// fakeServer is a node that only has an admin API.
type fakeServer struct {
	set   nodeSettings
	log   *slog.Logger
	open  error
	ready chan struct{}
	ended chan struct{}
	once  sync.Once
	err   error // of Wait
	http  *http.Server

	listener string // the admin API's; valid after Open
	wg       sync.WaitGroup
}

func newFakeServer(s nodeSettings, log *slog.Logger) *fakeServer {
	return &fakeServer{set: s, log: log, ready: make(chan struct{}), ended: make(chan struct{})}
}

func (f *fakeServer) Open(context.Context) error {
	if f.open != nil {
		return f.open
	}
	if f.set.admin == "" {
		return nil
	}
	l, err := net.Listen("tcp", f.set.admin)
	if err != nil {
		return err
	}
	f.listener = l.Addr().String()
	if err := os.MkdirAll(filepath.Join(f.set.data, "identity"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.set.data, memberFile), []byte("me"), 0o600); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.Readiness{Ready: true})
	})
	mux.HandleFunc("POST /v1/tokens", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.JoinToken{ID: "t", Token: "secret-token"})
	})
	mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.ClusterStatus{ClusterID: filepath.Base(filepath.Dir(f.set.data)), Voters: 3, NodesUp: 3, Settings: admin.Settings{TargetVoters: 3}})
	})
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) { os.Exit(7) })
	f.http = &http.Server{Handler: mux}
	f.wg.Go(func() { _ = f.http.Serve(l) })
	f.log.Info("up", "join", f.set.join, "token", f.set.joinToken, "bootstrap", f.set.bootstrap, "dev", f.set.dev)
	close(f.ready)
	return nil
}

func (f *fakeServer) Wait() error            { <-f.ended; return f.err }
func (f *fakeServer) Ready() <-chan struct{} { return f.ready }
func (f *fakeServer) ClusterID() string      { return "c1" }
func (f *fakeServer) Name() string           { return f.set.name }
func (f *fakeServer) Dev() bool              { return f.set.dev }
func (f *fakeServer) AdminToken() string     { return "admin-secret" }
func (f *fakeServer) Addrs() wire.Addrs {
	return wire.Addrs{Mesh: f.set.mesh, ClientTCP: f.set.clientTCP, ClientWS: f.set.clientWS, Admin: f.set.admin}
}

// Bound says 4001 to 4003 where the system was to choose a port.
func (f *fakeServer) Bound() wire.Addrs {
	a := f.Addrs()
	for i, addr := range []*string{&a.Mesh, &a.ClientTCP, &a.ClientWS} {
		*addr = strings.TrimSuffix(*addr, ":0") + map[bool]string{true: fmt.Sprintf(":400%d", i+1)}[strings.HasSuffix(*addr, ":0")]
	}
	a.Admin = f.listener
	return a
}

func (f *fakeServer) end(err error) {
	f.once.Do(func() { f.err = err; close(f.ended) })
}

func (f *fakeServer) Close(context.Context) error {
	f.end(nil)
	if f.http != nil {
		_ = f.http.Close()
	}
	f.wg.Wait()
	return nil
}

// fakeNodeMain is the process that "imctl dev" starts in tests.
func fakeNodeMain(mode string) int {
	a := newApp(System())
	a.startServer = func(s nodeSettings, log *slog.Logger) (server, error) {
		if mode == "fail:"+s.name {
			return nil, fmt.Errorf("%s has no luck", s.name)
		}
		return newFakeServer(s, log), nil
	}
	return run(os.Args[1:], a)
}
