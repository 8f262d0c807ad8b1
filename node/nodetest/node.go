package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"imroute/node/admin"
)

// Node is one imctl process and what is left of it while it is down. Its methods are for the test's own goroutine.
type Node struct {
	Name      string
	Index     int // in Cluster.Nodes, and for Network
	ClientTCP string
	ClientWS  string
	AdminAddr string

	c      *Cluster
	binary string
	data   string
	mesh   string
	admin  *admin.Client
	disk   *disk // of its own; nil: the common one

	run       *process    // nil before the first start
	inProcess func() bool // set for a node without a process of its own: whether it runs
	paused    bool
	wanted    bool // it was told to end, however
	starts    int
	wipes     int   // how often it began anew with an empty data folder
	logFrom   int64 // where the log of the present run begins
	stops     int   // times that it had to stop because its disk cannot be trusted
	faults    []string
}

// process is one run.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error         // valid once exited is closed
	ended  time.Duration // when that was; valid once exited is closed
}

// Admin asks this node, and no other.
func (n *Node) Admin() *admin.Client { return n.admin }

// Mesh is where the other nodes are told to reach it.
func (n *Node) Mesh() string {
	if n.c.Net != nil {
		return n.c.Net.Front(n.Index)
	}
	return n.mesh
}

// identity is whom history and journals mean: the name, and after the data folder was emptied another one, because that
// makes it another member, which counts its incarnations from the beginning.
func (n *Node) identity() string { return n.identities()[n.wipes] }

// identities are all it ever had.
func (n *Node) identities() []string {
	out := []string{n.Name}
	for i := range n.wipes {
		out = append(out, fmt.Sprintf("%s~%d", n.Name, i+1))
	}
	return out
}

func (c *Cluster) journal(identity string) string { return filepath.Join(c.dir, identity+".journal") }
func (n *Node) logFile() string                   { return filepath.Join(n.c.dir, n.Name+".log") }

// Start runs the node again, with the data it had, and does not wait for it.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	n.begin(t)
}

// Restart kills the node and starts it again at once, as a supervisor would.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	n.Kill(t)
	n.Start(t)
}

func (n *Node) begin(t testing.TB, args ...string) {
	t.Helper()
	if n.Running() {
		t.Fatalf("%s runs already", n.Name)
	}
	ti := n.c.Timings
	all := []string{
		"node", "start", "--name", n.Name, "--data", n.data, "--dev", "--no-context", "--output", "json", "--log-level", "info", "--log-format", "json",
		"--mesh", n.mesh, "--advertise-mesh", n.Mesh(), "--client", n.ClientTCP, "--client-ws", n.ClientWS, "--admin", n.AdminAddr,
		"--heartbeat", ti.Heartbeat.String(), "--election", ti.Election.String(), "--lease", ti.Lease.String(), "--margin", ti.Margin.String(),
		"--renew", ti.Renew.String(), "--quiet", ti.Quiet.String(), "--idle", ti.Idle.String(), "--journal", n.c.journal(n.identity()),
		"--takeover-burst", "1000000", // the workload takes over all the time
	}
	all = append(append(all, args...), n.c.args...)
	log, err := os.OpenFile(n.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own
	if n.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	all = append([]string{n.binary}, all...)
	if n.c.Spaces != nil {
		all = n.c.Spaces.within(n, all)
	}
	p := &process{cmd: exec.Command(all[0], all[1:]...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "IMCTL_CONTEXT="+filepath.Join(n.c.dir, "context.json"), "GORACE=halt_on_error=1", "IMROUTE_STALL="+n.stallFile())
	p.cmd.Env = append(p.cmd.Env, n.c.env...)
	p.cmd.SysProcAttr = processAttr()
	started := make(chan error, 1)
	n.c.history.process(n.identity(), ProcessStart) // before it can do anything
	go func() {
		// The child dies with the thread that started it, so that thread is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		p.ended = Now()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", n.Name, err)
	}
	n.run, n.paused, n.wanted = p, false, false
	n.starts++
}

// Running tells whether there is a process, stopped or not.
func (n *Node) Running() bool {
	if n.inProcess != nil {
		return n.inProcess()
	}
	if n.run == nil {
		return false
	}
	select {
	case <-n.run.exited:
		return false
	default:
		return true
	}
}

// AwaitReady waits until the node takes clients.
func (n *Node) AwaitReady(t testing.TB) {
	t.Helper()
	n.c.Await(t, n.Name+" to be ready", startWait, func(ctx context.Context) error {
		if !n.Running() {
			t.Fatalf("%s ended instead of getting ready: %v", n.Name, n.run.err)
		}
		r, err := n.admin.Ready(ctx)
		if err == nil && !r.Ready {
			err = fmt.Errorf("it says: %s", strings.Join(r.Reasons, ", "))
		}
		return err
	})
}

// Kill ends the process without a word (SIGKILL) and waits until it is gone.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	n.wanted = true
	n.c.history.process(n.identity(), ProcessKill)
	if err := n.run.cmd.Process.Kill(); err != nil {
		t.Fatalf("killing %s: %v", n.Name, err)
	}
	n.awaitExit(t, 10*time.Second)
}

// Stop asks the process to end in order (SIGTERM) and waits for it.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	n.wanted = true
	n.c.history.process(n.identity(), ProcessStop)
	if err := askProcess(n.run.cmd.Process); err != nil {
		t.Fatalf("stopping %s: %v", n.Name, err)
	}
	n.awaitExit(t, 30*time.Second)
	if n.run.err != nil {
		t.Errorf("%s did not stop in order: %v", n.Name, n.run.err)
	}
}

func (n *Node) awaitExit(t testing.TB, timeout time.Duration) {
	t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-n.run.exited:
	case <-timer.C:
		t.Fatalf("%s is still there after %v", n.Name, timeout)
	}
}

// Pause stops the whole process (SIGSTOP).
func (n *Node) Pause(t testing.TB) {
	t.Helper()
	n.c.history.process(n.identity(), ProcessPause)
	if err := pauseProcess(n.run.cmd.Process); err != nil {
		t.Fatalf("pausing %s: %v", n.Name, err)
	}
	n.paused = true
}

// Resume lets it go on (SIGCONT).
func (n *Node) Resume(t testing.TB) {
	t.Helper()
	n.c.history.process(n.identity(), ProcessResume)
	if err := resumeProcess(n.run.cmd.Process); err != nil {
		t.Fatalf("resuming %s: %v", n.Name, err)
	}
	n.paused = false
}

// finish ends the process at the test's end and notes if it had ended before, unasked.
func (n *Node) finish() {
	if n.run == nil {
		return
	}
	if !n.Running() {
		if !n.wanted {
			n.faults = append(n.faults, fmt.Sprintf("ended by itself: %v", n.run.err))
		}
		return
	}
	_ = n.run.cmd.Process.Kill() // it may just have ended
	<-n.run.exited
}

// distrust is what a node logs that must not go on.
const distrust = "can no longer be trusted"

// complaints are what must not happen to a node whatever is done to the cluster.
func (n *Node) complaints() string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return ""
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", distrust} {
		if i := bytes.Index(b, []byte(bad)); i >= 0 && !(bad == distrust && bytes.Count(b, []byte(bad)) <= n.stops) {
			n.faults = append(n.faults, "log: "+string(b[i:min(len(b), i+4000)]))
		}
	}
	return strings.Join(n.faults, "\n")
}

func (n *Node) logTail(lines int) []string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return []string{err.Error()}
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return all[max(0, len(all)-lines):]
}
