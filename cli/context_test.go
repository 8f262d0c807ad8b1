package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"imroute/node/admin"
)

// TestContextMerge: the same cluster is extended, another one becomes current beside it.
func TestContextMerge(t *testing.T) {
	f := contextFile{Version: 1}
	f.merge(clusterContext{Cluster: "aaaa", Admin: []string{"h:1"}, Client: []string{"h:2"}, Token: "t"})
	f.merge(clusterContext{Cluster: "aaaa", Admin: []string{"h:3"}, Client: []string{"h:2"}})
	if len(f.Contexts) != 1 || f.Current != "aaaa" {
		t.Fatalf("%+v", f)
	}
	if c := f.Contexts[0]; !slices.Equal(c.Admin, []string{"h:3", "h:1"}) || !slices.Equal(c.Client, []string{"h:2"}) || c.Token != "t" {
		t.Fatalf("%+v", c)
	}
	f.merge(clusterContext{Cluster: "bbbb", Admin: []string{"h:1"}, Dev: true})
	if len(f.Contexts) != 2 || f.Current != "bbbb" {
		t.Fatalf("%+v", f)
	}
	if i := f.find("aa"); i != 0 {
		t.Fatalf("by the beginning of the id: %d", i)
	}
	f.forget("bbbb")
	if f.Current != "" || len(f.Contexts) != 1 {
		t.Fatalf("%+v", f)
	}
	for i := range 3 * maxContextAddrs {
		f.merge(clusterContext{Cluster: "aaaa", Admin: []string{fmt.Sprint("h:", i)}})
	}
	if n := len(f.Contexts[0].Admin); n != maxContextAddrs {
		t.Fatalf("%d addresses are kept", n)
	}
}

// TestContextConcurrent: no writer's change is lost, and nobody else may read the file.
func TestContextConcurrent(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	const writers = 12
	for i := range writers {
		wg.Go(func() {
			err := w.app(nil, nil).updateContext(func(f *contextFile) error {
				f.merge(clusterContext{Cluster: "one", Admin: []string{fmt.Sprint("h:", i)}})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := readContextFile(w.contextPath())
	if err != nil || len(f.Contexts) != 1 || len(f.Contexts[0].Admin) != writers {
		t.Fatalf("%v %+v", err, f)
	}
	if st, err := os.Stat(w.contextPath()); err != nil || (runtime.GOOS != "windows" && st.Mode().Perm() != 0o600) {
		t.Fatalf("%v %v", err, st.Mode())
	}
	left, err := filepath.Glob(w.contextPath() + ".*.tmp")
	if err != nil || len(left) != 0 {
		t.Fatalf("%v %v", err, left)
	}
}

// TestContextCommands: what is remembered is used, shown without its secrets, switched and forgotten.
func TestContextCommands(t *testing.T) {
	api := newFakeAPI(t, answers())
	w := newWorld(t)
	w.saveContext(t, clusterContext{Cluster: "aaaa", Admin: []string{api.addr()}, Token: "hush"})
	w.saveContext(t, clusterContext{Name: "dev", Admin: []string{"127.0.0.1:1"}, Dev: true})

	if code, out, errs := w.run("context", "use", "aa"); code != 0 || out != "using aaaa\n" {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	code, out, _ := w.run("context", "show", "--output", "json")
	if code != 0 || !strings.Contains(out, `"current": "aaaa"`) || strings.Contains(out, "hush") {
		t.Fatalf("%d %s", code, out)
	}
	if _, out, _ = w.run("context", "show", "--secrets"); !strings.Contains(out, "hush") {
		t.Fatal(out)
	}
	if code, out, errs := w.run("node", "list"); code != 0 || !strings.Contains(out, "n1") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	if api.tokens[0] != "Bearer hush" {
		t.Fatalf("tokens %q", api.tokens)
	}
	if code, _, errs := w.run("context", "use", "nowhere"); code != ExitNotFound {
		t.Fatalf("%d %s", code, errs)
	}
	// A new one, learned from a node. Its token is only shown to it.
	other := newFakeAPI(t, answers())
	if code, _, errs := w.run("context", "use", "prod", "--addr", other.addr(), "--token", "T"); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	c, ok, err := w.app(nil, nil).currentContext()
	if err != nil || !ok || c.Name != "prod" || c.Cluster != status.ClusterID || c.Token != "T" || !slices.Contains(c.Client, "10.0.0.1:7901") {
		t.Fatalf("%v %+v", err, c)
	}
	third := newFakeAPI(t, answers())
	if code, _, errs := w.run("node", "list", "--addr", third.addr()); code != 0 || third.tokens[0] != "" {
		t.Fatalf("%d %s: a remembered token went to a stranger: %q", code, errs, third.tokens)
	}
	if code, _, errs := w.run("context", "clear"); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := w.run("node", "list"); code != ExitError || !strings.Contains(errs, "no cluster is known") || !strings.Contains(errs, `start one with "imctl dev"`) {
		t.Fatalf("%d %s", code, errs)
	}
	if code, _, errs := w.run("context", "clear", "--all"); code != 0 {
		t.Fatal(errs)
	}
}

// TestStaleContext: the error says what is stale and where it stands.
func TestStaleContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil { // now nobody listens there
		t.Fatal(err)
	}
	w := newWorld(t)
	w.saveContext(t, clusterContext{Name: "dev", Admin: []string{addr}, Client: []string{addr}, Dev: true})
	code, _, errs := w.run("node", "list")
	if code != ExitError || !strings.Contains(errs, "the remembered cluster dev does not answer") || !strings.Contains(errs, w.contextPath()) || !strings.Contains(errs, "context clear") {
		t.Fatalf("%d %s", code, errs)
	}
	code, _, errs = w.run("client", "send", "--to", "bob", "--timeout", "300ms", "hello")
	if code != ExitError || !strings.Contains(errs, "cannot log in as imctl-") || !strings.Contains(errs, w.contextPath()) {
		t.Fatalf("%d %s", code, errs)
	}
}

// TestDamagedContext: it is an error with a way out, but no obstacle where addresses are given.
func TestDamagedContext(t *testing.T) {
	api := newFakeAPI(t, map[string]any{"GET /v1/nodes": []admin.Node{}})
	w := newWorld(t)
	if err := os.MkdirAll(filepath.Dir(w.contextPath()), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"{", `{"version":2}`, `{"version":1,"contexts":[{}]}`} {
		if err := os.WriteFile(w.contextPath(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := w.run("node", "list"); code != ExitError || !strings.Contains(errs, "is damaged") {
			t.Errorf("%s: %d %s", content, code, errs)
		}
		if code, out, errs := w.run("node", "list", "--addr", api.addr(), "-o", "json"); code != ExitOK || out != "[]\n" {
			t.Errorf("%s: %d %s %s", content, code, out, errs)
		}
	}
}

func FuzzContextFile(f *testing.F) {
	for _, s := range []string{"", "{}", `{"version":1,"current":"a","contexts":[{"name":"a","cluster":"b"}]}`, `{"version":1,"contexts":[{"name":""}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parseContextFile(b)
		if err != nil {
			return
		}
		file.find(file.Current)
		file.merge(clusterContext{Cluster: "x", Admin: []string{"h:1"}})
		if i := file.find(file.Current); i < 0 || file.Contexts[i].Name != file.Current {
			t.Fatalf("the merged cluster is not the current one: %+v", file)
		}
	})
}
