package nodetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// lan is some machines on one LAN: network namespaces on a bridge, in each of which imctl is started without any address, as on a
// machine of its own. What a person types is run within them as well.
type lan struct {
	t      *testing.T
	binary string
	dir    string
	spaces *Spaces
	nodes  []*Node
	runs   map[*Node]*process
}

// lanWait bounds each wait for what nodes on a LAN do by themselves.
const lanWait = 40 * time.Second

func newLAN(t *testing.T, machines int) *lan {
	if testing.Short() {
		t.Skip("real processes take seconds")
	}
	if why := needsSpaces(); why != "" {
		t.Skip(why)
	}
	l := &lan{t: t, binary: Binary(t), dir: t.TempDir(), runs: map[*Node]*process{}}
	for i := range machines {
		l.must(os.Mkdir(filepath.Join(l.dir, fmt.Sprintf("m%d.tmp", i+1)), 0o700))
		l.nodes = append(l.nodes, &Node{Name: fmt.Sprintf("m%d", i+1), Index: i, mesh: ":7900"})
	}
	var err error
	if l.spaces, err = newSpaces(l.nodes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range l.nodes {
			l.kill(n)
		}
		if err := l.spaces.close(); err != nil {
			t.Error(err)
		}
		for _, n := range l.nodes {
			if b, err := os.ReadFile(l.log(n)); err == nil && (t.Failed() || strings.Contains(string(b), "DATA RACE")) {
				t.Errorf("%s:\n%s", n.Name, b)
			}
		}
	})
	return l
}

func (l *lan) data(n *Node) string { return filepath.Join(l.dir, n.Name) }
func (l *lan) log(n *Node) string  { return filepath.Join(l.dir, n.Name+".log") }

func (l *lan) command(ctx context.Context, n *Node, args ...string) *exec.Cmd {
	all := l.spaces.within(n, append([]string{l.binary}, args...))
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Env = append(os.Environ(), "IMCTL_CONTEXT="+l.data(n)+".json", "TMPDIR="+l.data(n)+".tmp") // each machine has its own files
	return cmd
}

// start runs a node with the same words on every machine.
func (l *lan) start(n *Node, args ...string) {
	l.t.Helper()
	log, err := os.OpenFile(l.log(n), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close() // the child has its own
	p := &process{exited: make(chan struct{})}
	p.cmd = l.command(context.Background(), n, append([]string{
		"node", "start", "--discover", "lan", "--cluster", "office", "--secret", "sixteen characters", "--name", n.Name, "--data", l.data(n), "--discover-wait", "1s",
	}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.exited) }()
	l.runs[n] = p
}

func (l *lan) kill(n *Node) {
	if p := l.runs[n]; p != nil {
		_ = p.cmd.Process.Kill()
		<-p.exited
		delete(l.runs, n)
	}
}

// says runs imctl on a machine and returns its output and exit code.
func (l *lan) says(n *Node, args ...string) (out string, code int) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), commandWait)
	defer cancel()
	b, err := l.command(ctx, n, args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return string(b), exit.ExitCode()
	case err != nil:
		l.t.Fatal(err)
	}
	return string(b), 0
}

// until runs imctl on a machine again and again until it exits with code and says what it should.
func (l *lan) until(n *Node, code int, want string, args ...string) string {
	l.t.Helper()
	re := regexp.MustCompile("(?s)" + want)
	deadline := time.Now().Add(lanWait)
	for {
		out, got := l.says(n, args...)
		if got == code && re.MatchString(out) {
			return out
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("imctl %s on %s: exit code %d, want %d and %s; last:\n%s", strings.Join(args, " "), n.Name, got, code, want, out)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// cluster is the id of the one that a node is in.
func (l *lan) cluster(n *Node) string {
	l.t.Helper()
	return regexp.MustCompile(`"cluster_id": ?"([0-9a-f]+)"`).FindStringSubmatch(l.until(n, 0, `"cluster_id": ?"[0-9a-f]{16}"`, "cluster", "status", "--output", "json"))[1]
}

// logs waits until a node's log says that.
func (l *lan) logs(n *Node, want string) {
	l.t.Helper()
	re := regexp.MustCompile(want)
	deadline := time.Now().Add(lanWait)
	for {
		b, err := os.ReadFile(l.log(n))
		if err == nil && re.Match(b) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s does not log %s", n.Name, want)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (l *lan) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestDiscoverLAN, S2: machines on one LAN find each other by multicast, without an address, and those that start at the same moment
// form one cluster; one that is cut off founds none of its own, because a majority is expected, and joins when the LAN is whole again.
func TestDiscoverLAN(t *testing.T) {
	l := newLAN(t, 3)
	a, b, apart := l.nodes[0], l.nodes[1], l.nodes[2]
	l.must(l.spaces.Isolate(apart))
	for _, n := range l.nodes {
		l.start(n, "--bootstrap-expect", "2")
	}
	l.until(a, 0, `m1 .*up.*m2 .*up`, "node", "list")
	l.until(b, 0, `m1 .*up.*m2 .*up`, "node", "list")
	if x, y := l.cluster(a), l.cluster(b); x != y {
		t.Errorf("two clusters, %s and %s", x, y)
	}
	if list, _ := l.says(a, "node", "list"); strings.Contains(list, apart.Name) || !strings.Contains(list, l.spaces.ip(a)+":7900") || !strings.Contains(list, l.spaces.ip(b)+":7900") {
		t.Errorf("nodes are\n%s", list)
	}
	if _, err := os.Stat(filepath.Join(l.data(apart), "identity", "node.crt")); err == nil {
		t.Error("who was cut off has founded a cluster")
	}
	l.must(l.spaces.Heal())
	l.until(apart, 0, `(leader|voter) +up.*(leader|voter) +up.*(leader|voter) +up`, "node", "list")
	if x, y := l.cluster(a), l.cluster(apart); x != y {
		t.Errorf("two clusters, %s and %s", x, y)
	}
	l.until(a, 0, `^ok`, "cluster", "health")
}

// TestDiscoverSplitLAN: without an expected number each part of a split LAN founds a cluster. When they hear each other they say so, a
// newcomer is refused, and a node that was emptied joins the other cluster.
func TestDiscoverSplitLAN(t *testing.T) {
	if os.Getenv("IMROUTE_FAULTS") == "" {
		t.Skip("part of make faults (IMROUTE_FAULTS=1): it takes half a minute")
	}
	l := newLAN(t, 3)
	a, b, late := l.nodes[0], l.nodes[1], l.nodes[2]
	l.must(l.spaces.Isolate(a))
	l.start(a)
	l.start(b)
	l.until(a, 0, `^ok`, "cluster", "health")
	l.until(b, 0, `^ok`, "cluster", "health")
	if x, y := l.cluster(a), l.cluster(b); x == y {
		t.Fatalf("both are in %s, though they cannot hear each other", x)
	}
	mine, other := l.cluster(a), l.cluster(b)

	l.must(l.spaces.Heal())
	l.until(a, 2, other, "cluster", "health")
	l.until(b, 2, mine, "cluster", "health")
	l.logs(a, `level=ERROR`)
	l.logs(b, `level=ERROR`)
	l.start(late)
	select {
	case <-l.runs[late].exited:
		if l.runs[late].err == nil {
			t.Error("a newcomer ends well, though there are two clusters")
		}
	case <-time.After(lanWait):
		t.Error("a newcomer is not refused")
	}
	l.kill(late)

	l.kill(b)
	l.must(os.RemoveAll(l.data(b)))
	l.must(os.RemoveAll(l.data(b) + ".json"))
	l.start(b)
	l.until(b, 0, `m1 .*up.*m2 .*up`, "node", "list")
	if x := l.cluster(b); x != mine {
		t.Errorf("it is in %s, want %s", x, mine)
	}
	l.until(a, 0, `^ok`, "cluster", "health")
}
