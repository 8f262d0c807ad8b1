package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

// beside is a world of its own that remembers in the same file.
func (w *world) beside(t *testing.T) *world {
	o := newWorld(t)
	o.env["IMCTL_CONTEXT"] = w.contextPath()
	return o
}

// remembered is "current of name name…".
func (w *world) remembered(t *testing.T) string {
	t.Helper()
	f, err := readContextFile(w.contextPath())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range f.Contexts {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return strings.TrimSpace(fmt.Sprintf("%q of %s", f.Current, strings.Join(names, " ")))
}

// TestTwoDevs: the later one is meant while it runs and says so; both are remembered; at its end what was meant before is meant
// again, as far as that is there.
func TestTwoDevs(t *testing.T) {
	w := newWorld(t)
	want := func(want string) {
		t.Helper()
		if got := w.remembered(t); got != want {
			t.Errorf("remembered %s, want %s", got, want)
		}
	}
	w.saveContext(t, clusterContext{Name: "prod", Cluster: "p", Admin: []string{"p:1"}})
	first := startDevIn(t, w.beside(t), 24400, "ok", "--nodes", "1")
	first.ready(t, "")
	want(`"dev" of dev prod`)
	if out := first.out.String(); !strings.Contains(out, "One node tolerates no failure") || strings.Contains(out, "kill -9") {
		t.Error(out)
	}
	if !first.logged("the context dev; at the end they mean prod again")() {
		t.Error(first.errs.String())
	}
	second := startDevIn(t, w.beside(t), 24400, "ok", "--nodes", "1")
	second.ready(t, "")
	want(`"dev2" of dev dev2 prod`)
	if !second.logged("the context dev (data: " + first.cluster.Data + "). Commands without --addr now mean this one, dev2,")() {
		t.Error(second.errs.String())
	}
	second.end(t)
	want(`"dev" of dev prod`)
	if !second.logged("commands without --addr mean dev again")() {
		t.Error(second.errs.String())
	}

	// The first one ends first.
	third := startDevIn(t, w.beside(t), 24400, "ok", "--nodes", "1")
	third.ready(t, "")
	want(`"dev2" of dev dev2 prod`)
	first.end(t)
	want(`"dev2" of dev2 prod`)
	third.end(t)
	want(`"" of prod`)

	// Somebody has chosen another one meanwhile.
	fourth := startDevIn(t, w.beside(t), 24400, "ok", "--nodes", "1")
	fourth.ready(t, "")
	want(`"dev" of dev prod`)
	if code, _, errs := w.run("context", "use", "prod"); code != ExitOK {
		t.Fatal(errs)
	}
	fourth.end(t)
	want(`"prod" of prod`)
}

// TestNodeOfRunningDev: a node that is started by hand in the folder of an "imctl dev" that runs comes back to the ports that this
// keeps for it, and is no other cluster; one elsewhere gets other ports.
func TestNodeOfRunningDev(t *testing.T) {
	w := newWorld(t)
	data := filepath.Join(t.TempDir(), "D")
	d := startDevIn(t, w.beside(t), 24500, "ok", "--nodes", "2", "--data", data)
	d.ready(t, data)
	crash(d.cluster.Nodes[1])
	waitUntil(t, "the report", d.logged("dev | n2 ended: exit status 7"))
	bind := func(data string) (wire.Addrs, *portPicker) {
		t.Helper()
		p := newPortPicker()
		p.keptByDev(data)
		s := nodeSettings{data: data}
		if err := chooseBinds(&s, p); err != nil {
			t.Fatal(err)
		}
		return wire.Addrs{Mesh: s.mesh, ClientTCP: s.clientTCP, ClientWS: s.clientWS, Admin: s.admin}, p
	}
	got, p := bind(filepath.Join(data, "n2"))
	p.close()
	if got != d.cluster.Nodes[1].Addrs {
		t.Errorf("%+v, want %+v", got, d.cluster.Nodes[1].Addrs)
	}
	elsewhere := filepath.Join(t.TempDir(), "n2")
	if err := copyFile(filepath.Join(data, "n2", listenFile), filepath.Join(elsewhere, listenFile)); err != nil {
		t.Fatal(err)
	}
	got, p = bind(elsewhere)
	p.close()
	if got.Admin == d.cluster.Nodes[1].Admin || got.Mesh == d.cluster.Nodes[1].Mesh {
		t.Errorf("%+v, and those are kept", got)
	}
	// What the node remembers when it is ready: its cluster's id leads to the entry that is there.
	f, err := readContextFile(w.contextPath())
	if err != nil || len(f.Contexts) != 1 || f.Contexts[0].Cluster != filepath.Base(data) {
		t.Fatalf("%v %+v", err, f)
	}
	f.merge(clusterContext{Cluster: f.Contexts[0].Cluster, Dev: true, Admin: []string{d.cluster.Nodes[1].Admin}, Client: []string{d.cluster.Nodes[1].ClientTCP}})
	if c := f.Contexts[0]; len(f.Contexts) != 1 || f.Current != "dev" || len(c.Admin) != 2 || c.Data != data {
		t.Errorf("%+v", f)
	}
	d.end(t)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
