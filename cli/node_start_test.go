package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// TestNodeStartChecks: what is missing or contradicts itself is said, with what to type.
func TestNodeStartChecks(t *testing.T) {
	w := newWorld(t)
	w.start = func(nodeSettings, *slog.Logger) (server, error) { return nil, errors.New("started") }
	empty := filepath.Join(w.dir, "empty")
	member := filepath.Join(w.dir, "member")
	if err := os.MkdirAll(filepath.Join(member, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(member, memberFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(w.dir, "token")
	if err := os.WriteFile(secret, []byte("imj1-x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                "--data is missing",
		"--data " + empty: "to found a new cluster: imctl node start --name n1 --data " + empty + " --bootstrap",
		"--data " + empty + " --join h:1 --bootstrap":                                "--bootstrap and --join exclude each other",
		"--data " + empty + " --join h:1":                                            "--token is missing",
		"--data " + empty + " --token x":                                             "--token without --join",
		"--data " + empty + " --bootstrap --token x":                                 "name the mesh address",
		"--data " + empty + " --bootstrap":                                           "--name is missing",
		"--data " + empty + " --bootstrap --name n1 --log-level loud":                "--log-level",
		"--data " + empty + " --bootstrap --name n1 --log-format xml":                "--log-format",
		"--data " + empty + " --bootstrap --name n1 --addr h:1":                      "--addr means nothing",
		"--data " + empty + " --bootstrap --name n1 --config /does/not/exist":        "cannot read the configuration",
		"--data " + empty + " --bootstrap --name n1":                                 "started",
		"--data " + empty + " --name n1 --join h:1 --token x":                        "started",
		"--data " + empty + " --name n1 --join h:1 --token-file " + secret:           "started",
		"--data " + empty + " --name n1 --join h:1 --token-file " + w.dir:            "cannot read the token",
		"--data " + empty + " --name n1 --join h:1 --token x --token-file " + secret: "exclude each other",
		"--data " + member:                  "started",
		"--data " + member + " --bootstrap": "started", // harmless: a service starts with the same words every time
	} {
		code, _, errs := w.run(append([]string{"node", "start"}, strings.Fields(args)...)...)
		if code != ExitError || !strings.Contains(errs, want) {
			t.Errorf("%s: exit code %d, %s; want %q", args, code, errs, want)
		}
	}
}

// TestNodeStartErrors: failures of the server are explained.
func TestNodeStartErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, inUse := net.Listen("tcp", l.Addr().String())
	for _, c := range []struct {
		err        error
		text, hint string
	}{
		{fmt.Errorf("client listeners: %w", inUse), l.Addr().String(), "choose others with --mesh"},
		{fmt.Errorf("mesh: %w", syscall.EADDRNOTAVAIL), "mesh", "--advertise"},
		{errors.New("disk on fire"), "disk on fire", ""},
	} {
		w := newWorld(t)
		w.start = func(s nodeSettings, log *slog.Logger) (server, error) {
			f := newFakeServer(s, log)
			f.open = c.err
			return f, nil
		}
		code, _, errs := w.run("node", "start", "--name", "n1", "--data", filepath.Join(w.dir, "d"), "--bootstrap")
		if code != ExitError || !strings.Contains(errs, c.text) || !strings.Contains(errs, c.hint) {
			t.Errorf("%v: exit code %d, %s", c.err, code, errs)
		}
	}
}

// TestNodeStartLife: it says when it is ready, remembers the cluster, ends in order at a signal, and comes back where it
// was.
func TestNodeStartLife(t *testing.T) {
	w := newWorld(t)
	servers := make(chan *fakeServer, 1)
	w.start = func(s nodeSettings, log *slog.Logger) (server, error) {
		f := newFakeServer(s, log)
		servers <- f
		return f, nil
	}
	data := filepath.Join(w.dir, "d")
	runNode := func(args ...string) (code chan int, out *syncBuffer) {
		out, code = &syncBuffer{}, make(chan int, 1)
		a := w.app(out, &syncBuffer{})
		go func() { code <- run(append([]string{"node", "start", "--data", data}, args...), a) }()
		return code, out
	}
	code, out := runNode("--name", "n1", "--bootstrap")
	first := <-servers
	waitUntil(t, "ready", func() bool { return strings.Contains(out.String(), "node n1 is ready: mesh 127.0.0.1:") })
	w.signals <- os.Interrupt
	if c := <-code; c != ExitOK {
		t.Fatalf("exit code %d", c)
	}
	c, ok, err := w.app(nil, nil).currentContext()
	if err != nil || !ok || c.Cluster != "c1" || c.Token != "admin-secret" || !slices.Equal(c.Admin, []string{first.set.admin}) || !slices.Equal(c.Client, []string{first.set.clientTCP}) {
		t.Fatalf("%v %+v", err, c)
	}

	// The second start finds its former addresses; this one ends by leaving.
	code, out = runNode("--no-context", "--output", "json")
	second := <-servers
	waitUntil(t, "ready", func() bool { return strings.Contains(out.String(), `"event":"ready"`) })
	if first.Addrs() != second.Addrs() {
		t.Errorf("listened at %v, now at %v", first.Addrs(), second.Addrs())
	}
	second.end(nil)
	if c := <-code; c != ExitOK {
		t.Fatalf("exit code %d", c)
	}

	// A node that has to stop exits with an error.
	code, _ = runNode("--no-context")
	third := <-servers
	<-third.Ready()
	third.end(errors.New("the disk cannot be trusted"))
	select {
	case c := <-code:
		if c != ExitError {
			t.Fatalf("exit code %d", c)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it runs on")
	}
}

// TestNodeStartElsewhere: a node that does not get the addresses of the last time says so.
func TestNodeStartElsewhere(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, c := range []struct{ name, memory, want string }{
		{"taken", `{"mesh":"127.0.0.1:17","client_tcp":"` + addr + `","client_ws":"` + addr + `","admin":"` + addr + `"}`, "was=" + addr},
		{"damaged", "xx", "cannot read where this node listened"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.start = func(s nodeSettings, log *slog.Logger) (server, error) {
				f := newFakeServer(s, log)
				f.open = errors.New("enough")
				return f, nil
			}
			data := filepath.Join(w.dir, "d")
			if err := os.MkdirAll(filepath.Join(data, "identity"), 0o700); err != nil {
				t.Fatal(err)
			}
			for path, text := range map[string]string{memberFile: "me", listenFile: c.memory} {
				if err := os.WriteFile(filepath.Join(data, path), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, errs := w.run("node", "start", "--data", data); !strings.Contains(errs, c.want) || !strings.Contains(errs, "level=WARN") {
				t.Errorf("want %q:\n%s", c.want, errs)
			}
		})
	}
}

func nodeFlags() (*nodeSettings, *pflag.FlagSet) {
	s := &nodeSettings{}
	f := pflag.NewFlagSet("start", pflag.ContinueOnError)
	s.flags(f)
	f.String("config", "", "")
	f.Bool("no-context", false, "")
	return s, f
}

// TestNodeConfig: the file takes the flags' names, is strict, and the command line wins.
func TestNodeConfig(t *testing.T) {
	s, f := nodeFlags()
	if err := f.Parse([]string{"--name", "flag", "--join", "a:1"}); err != nil {
		t.Fatal(err)
	}
	if err := applyNodeConfig([]byte("no-context: true\n"), f); err != nil || f.Lookup("no-context").Value.String() != "true" {
		t.Errorf("no-context: %v", err)
	}
	err := applyNodeConfig([]byte("# a node\nname: file\ndata: /var/lib/imroute\njoin: [b:1, c:1]\nlease: 5s\ndev: true\ntarget-voters: 5\nclient: 0.0.0.0:7901\n"), f)
	if err != nil || s.name != "flag" || s.data != "/var/lib/imroute" || !slices.Equal(s.join, []string{"a:1"}) || s.lease != 5*time.Second || !s.dev || s.voters != 5 || s.clientTCP != "0.0.0.0:7901" {
		t.Fatalf("%v %+v", err, s)
	}
	s, f = nodeFlags()
	if err := applyNodeConfig([]byte("join:\n  - b:1\n  - c:1\n"), f); err != nil || !slices.Equal(s.join, []string{"b:1", "c:1"}) {
		t.Fatalf("%v %v", err, s.join)
	}
	if s.nodeConfig().Join[1] != "c:1" {
		t.Fatal("does not reach the node")
	}
	s, f = nodeFlags()
	if err := applyNodeConfig([]byte("client-issuer: https://login.example.com\nclient-audience: chat\n"), f); err != nil {
		t.Fatal(err)
	}
	if c := s.nodeConfig(); c.ClientIssuer != "https://login.example.com" || c.ClientAudience != "chat" {
		t.Fatalf("issuer %q and audience %q reach the node", c.ClientIssuer, c.ClientAudience)
	}
	for text, want := range map[string]string{
		"":                      "",
		"# nothing\n":           "",
		"nmae: x":               `line 1: unknown key "nmae"; did you mean "name"?`,
		"frobnicate: 1":         `unknown key "frobnicate"`,
		"config: x":             `unknown key "config"`,
		"name: a\nname: b":      "line 2: name is there twice",
		"lease: soon":           "line 1: lease",
		"dev: [true]":           "dev: want a plain value",
		"name: {a: b}":          "name: want a plain value",
		"name:":                 "name: want a plain value",
		"join: [[a]]":           "want a list of plain values",
		"- name":                "want a mapping",
		"name":                  "want a mapping",
		"name: a\n---\nname: b": "more than one document",
		"name: &x a\ndata: *x":  "want a plain value",
		"? [a, b]\n: c":         "a key must be a plain word",
		"name: \"unfinished":    "yaml",
	} {
		_, f := nodeFlags()
		err := applyNodeConfig([]byte(text), f)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzNodeConfig(f *testing.F) {
	for _, s := range []string{"", "name: n1\ndata: d\n", "join: [a, b]\nlease: 4s\n", "name: &a x\ndata: *a", "a: {b: [c]}", "---\n---\n", "\x00", "? x\n: y"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, flags := nodeFlags()
		if err := flags.Parse([]string{"--name", "given"}); err != nil {
			t.Fatal(err)
		}
		_ = applyNodeConfig(b, flags) // any answer will do, but no panic
		if s.name != "given" {
			t.Fatalf("the file won over the command line: %q", s.name)
		}
	})
}
