package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

// TestPortPicker: preferred ports if they are free, nearby ones if not, never the same one twice.
func TestPortPicker(t *testing.T) {
	taken := map[string]bool{"udp127.0.0.1:8000": true, "tcp127.0.0.1:8011": true, "tcp127.0.0.1:8001": true}
	p := &portPicker{free: func(network, addr string) bool { return !taken[network+addr] }, given: map[string]bool{}, wanted: map[string]bool{}}
	p.want(preferredAddrs(8000, 1))
	got, err := p.node(preferredAddrs(8000, 0))
	want := wire.Addrs{Mesh: "127.0.0.1:8020", ClientTCP: "127.0.0.1:8021", ClientWS: "127.0.0.1:8002", Admin: "127.0.0.1:8003"}
	if err != nil || got != want {
		t.Fatalf("%v %+v", err, got)
	}
	got, err = p.node(preferredAddrs(8000, 1))
	want = wire.Addrs{Mesh: "127.0.0.1:8010", ClientTCP: "127.0.0.1:8031", ClientWS: "127.0.0.1:8012", Admin: "127.0.0.1:8013"}
	if err != nil || got != want {
		t.Fatalf("%v %+v", err, got)
	}
	p.free = func(string, string) bool { return false }
	if _, err := p.node(preferredAddrs(8000, 0)); err == nil || !strings.Contains(err.Error(), "no free port near 127.0.0.1:8000") {
		t.Fatal(err)
	}
	if _, err := p.node(preferredAddrs(65530, 0)); err == nil {
		t.Fatal("beyond the last port")
	}
}

// TestCanListen: what is taken is seen, for both kinds.
func TestCanListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if canListen("tcp", l.Addr().String()) || canListen("udp", u.LocalAddr().String()) || !canListen("tcp", "127.0.0.1:0") {
		t.Error("wrong")
	}
}

func TestLogMux(t *testing.T) {
	for _, colour := range []bool{false, true} {
		var out syncBuffer
		m := newLogMux(&out, colour)
		a, b := m.prefixed("n1"), m.prefixed("n2")
		fmt.Fprint(a, "one\ntw")
		fmt.Fprint(b, "other\n")
		fmt.Fprint(a, "o\nend")
		fmt.Fprint(b, strings.Repeat("x", maxLogLine+1))
		_ = a.Close()
		_ = b.Close()
		want := "n1 | one\nn2 | other\nn1 | two\nn2 | " + strings.Repeat("x", maxLogLine) + "\nn1 | end\nn2 | x\n"
		if colour {
			want = strings.NewReplacer("n1 | ", "\x1b[36mn1 | \x1b[0m", "n2 | ", "\x1b[33mn2 | \x1b[0m").Replace(want)
		}
		if out.String() != want {
			t.Errorf("colour %v: %q", colour, out.String())
		}
	}
}

func TestProgramName(t *testing.T) {
	for _, c := range [][3]string{
		{"imctl", "/usr/local/bin/imctl", "imctl"},
		{"./imctl", "/src/imctl", "./imctl"},
		{"/tmp/go-build12/b001/exe/imctl", "/tmp/go-build12/b001/exe/imctl", "go run ./cli/imctl"},
		{"/a b/imctl", "/a b/imctl", "'/a b/imctl'"},
	} {
		if got := programName(c[0], c[1]); got != c[2] {
			t.Errorf("programName(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// runningDev is an "imctl dev" with fake nodes, which are real processes.
type runningDev struct {
	w         *world
	out, errs syncBuffer
	code      chan int
	cluster   devCluster
}

func startDev(t *testing.T, base int, mode string, args ...string) *runningDev {
	t.Helper()
	return startDevIn(t, newWorld(t), base, mode, args...)
}

func startDevIn(t *testing.T, w *world, base int, mode string, args ...string) *runningDev {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeNodeEnv, mode)
	d := &runningDev{w: w, code: make(chan int, 1)}
	d.w.exe = exe
	a := d.w.app(&d.out, &d.errs)
	go func() { d.code <- run(append([]string{"dev", "--port-base", fmt.Sprint(base)}, args...), a) }()
	return d
}

// ready waits until it says so and reads cluster.json.
func (d *runningDev) ready(t *testing.T, data string) {
	t.Helper()
	waitUntil(t, "ready", func() bool {
		select {
		case code := <-d.code:
			t.Fatalf("ended with %d:\n%s%s", code, d.out.String(), d.errs.String())
		default:
		}
		return strings.Contains(d.out.String(), "Ctrl-C stops everything")
	})
	if data == "" {
		_, rest, _ := strings.Cut(d.out.String(), "Data: ")
		data, _, _ = strings.Cut(rest, " (removed")
	}
	b, err := os.ReadFile(filepath.Join(data, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &d.cluster); err != nil {
		t.Fatal(err)
	}
}

func (d *runningDev) end(t *testing.T) {
	t.Helper()
	d.w.signals <- os.Interrupt
	if code := <-d.code; code != ExitOK {
		t.Fatalf("exit code %d:\n%s", code, d.errs.String())
	}
}

func (d *runningDev) logged(s string) func() bool {
	return func() bool { return strings.Contains(d.errs.String(), s) }
}

// TestDev: it founds, joins, reports, remembers, and leaves nothing behind.
func TestDev(t *testing.T) {
	d := startDev(t, 24100, "ok")
	d.ready(t, "")
	if len(d.cluster.Nodes) != 3 || d.cluster.Nodes[2].Name != "n3" || d.cluster.Nodes[2].PID == 0 {
		t.Fatalf("%+v", d.cluster)
	}
	for _, want := range []string{
		`imctl client send --as alice --to bob --ack client "hello"`, "imctl route get bob", "imctl node list",
		fmt.Sprintf("kill -9 %d", d.cluster.Nodes[2].PID), "(removed at the end)",
	} {
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, d.out.String())
		}
	}
	for _, want := range []string{"n1 | time=", "join=[] token=\"\" bootstrap=true", "join=[" + d.cluster.Nodes[0].Mesh + "] token=secret-token bootstrap=false dev=true"} {
		if !d.logged(want)() {
			t.Errorf("%q is missing:\n%s", want, d.errs.String())
		}
	}
	c, ok, err := d.w.app(nil, nil).currentContext()
	if err != nil || !ok || !c.Dev || c.Name != "dev" || len(c.Admin) != 3 || c.Data != d.cluster.Data {
		t.Fatalf("%v %+v", err, c)
	}

	// A node that dies is reported, with what starts it again, and stays dead.
	crash(d.cluster.Nodes[1])
	waitUntil(t, "the report", d.logged("dev | n2 ended: exit status 7"))
	waitUntil(t, "the advice", d.logged("dev | start it again with: imctl node start --dev --name n2 --data "+filepath.Join(d.cluster.Data, "n2")))

	d.end(t)
	if _, err := os.Stat(d.cluster.Data); !os.IsNotExist(err) {
		t.Errorf("the data is still there: %v", err)
	}
	if _, ok, err := d.w.app(nil, nil).currentContext(); ok || err != nil {
		t.Errorf("the context is still there: %v", err)
	}
	for _, n := range d.cluster.Nodes {
		if !canListen("tcp", n.Admin) {
			t.Errorf("%s still runs", n.Name)
		}
	}
}

func crash(n devNode) {
	if resp, err := http.Post("http://"+n.Admin+"/crash", "", nil); err == nil {
		_ = resp.Body.Close()
	}
}

// TestDevData: what is there is started again, together and on the same ports; taken ones are replaced; dead nodes come
// back with --restart.
func TestDevData(t *testing.T) {
	data := filepath.Join(t.TempDir(), "kept")
	d := startDev(t, 24200, "ok", "--nodes", "2", "--data", data)
	d.ready(t, data)
	first := d.cluster

	again := startDev(t, 24200, "ok", "--data", data)
	if code := <-again.code; code != ExitError || !strings.Contains(again.errs.String(), "another \"imctl dev\" runs on") {
		t.Fatalf("%d %s", code, again.errs.String())
	}
	d.end(t)

	taken, err := net.Listen("tcp", first.Nodes[0].Admin)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d = startDev(t, 24900, "ok", "--data", data, "--restart", "--nodes", "3")
	d.ready(t, data)
	if d.cluster.Nodes[1].Addrs != first.Nodes[1].Addrs || d.cluster.Nodes[0].Mesh != first.Nodes[0].Mesh || d.cluster.Nodes[0].Admin == first.Nodes[0].Admin {
		t.Errorf("ports:\n%+v\n%+v", first.Nodes, d.cluster.Nodes)
	}
	if log := d.errs.String(); strings.Contains(log, "bootstrap=true") || !strings.Contains(log, "join=["+first.Nodes[0].Mesh+"] token=secret-token") {
		t.Errorf("the third should join, nobody should found:\n%s", log)
	}
	before := d.cluster.Nodes[2].PID
	crash(d.cluster.Nodes[2])
	waitUntil(t, "the restart", func() bool {
		c, err := readCluster(filepath.Join(data, "cluster.json"))
		return err == nil && c.Nodes[2].PID != before
	})
	d.end(t)

	few := startDev(t, 24200, "ok", "--data", data, "--nodes", "1")
	if code := <-few.code; code != ExitError || !strings.Contains(few.errs.String(), "there are 3 nodes in") {
		t.Fatalf("%d %s", code, few.errs.String())
	}
}

// TestDevFails: a node that cannot start ends everything, and says why.
func TestDevFails(t *testing.T) {
	d := startDev(t, 24300, "fail:n2")
	if code := <-d.code; code != ExitError {
		t.Fatalf("exit code %d", code)
	}
	if log := d.errs.String(); !strings.Contains(log, "n2 | imctl: n2 has no luck") || !strings.Contains(log, "imctl: n2 ended before it was ready: exit status 1") {
		t.Error(log)
	}
}

// TestChildDiesWithParent: the end of its input ends a node.
func TestChildDiesWithParent(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeNodeEnv, "ok")
	var out syncBuffer
	c, err := startChild(exe, []string{"node", "start", "--parent-pipe", "--no-context", "--name", "n1", "--bootstrap", "--data", filepath.Join(t.TempDir(), "d"), "--admin", "127.0.0.1:0"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "ready", func() bool { return strings.Contains(out.String(), "is ready") })
	if err := c.in.Close(); err != nil { // as the system does it when the parent is killed
		t.Fatal(err)
	}
	<-c.exited
	if c.err != nil {
		t.Errorf("%s\n%s", c.reason(), out.String())
	}
}
