package nodetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imroute/node/admin"
)

// AwaitStop waits until the node ends by itself, as it must when it can no longer do its work, and wants it to say why in
// words that hold each of says. It returns when the process was gone.
func (n *Node) AwaitStop(t testing.TB, timeout time.Duration, says ...string) time.Duration {
	t.Helper()
	n.wanted = true
	n.awaitExit(t, timeout)
	text := n.logOfRun(t)
	n.stops += strings.Count(text, distrust)
	if n.run.err == nil {
		t.Errorf("%s ended as if all was well; it was to say: %s", n.Name, strings.Join(says, ", "))
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			lines := strings.Split(strings.TrimSpace(text), "\n")
			t.Errorf("%s ended without saying %q, its last words: %s", n.Name, want, strings.Join(lines[max(0, len(lines)-5):], "\n"))
		}
	}
	return n.run.ended
}

// AwaitLeft waits until the node has left in order.
func (n *Node) AwaitLeft(t testing.TB, timeout time.Duration) {
	t.Helper()
	n.wanted = true
	n.awaitExit(t, timeout)
	if n.run.err != nil {
		t.Errorf("%s left, but: %v", n.Name, n.run.err)
	}
}

// logOfRun is what the present or last run of the node logged.
func (n *Node) logOfRun(t testing.TB) string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(b[min(int64(len(b)), n.logFrom):])
}

// AwaitDown waits until the others count the node as down, so that another one may take its name. A node that is no member
// any more is as good.
func (n *Node) AwaitDown(t testing.TB) {
	t.Helper()
	n.c.Await(t, n.Name+" to be down", startWait, func(ctx context.Context) error {
		nodes, err := n.c.running(t).admin.Nodes(ctx)
		if err != nil {
			return err
		}
		for _, v := range nodes {
			if v.Name == n.Name && v.State != admin.StateDown {
				return fmt.Errorf("it is %s", v.State)
			}
		}
		return nil
	})
}

// Rejoin empties the data folder of a node that does not run, has it join as a new member under its old name, and waits
// until it is as the one before was: ready, and a voter if there are fewer than three.
func (n *Node) Rejoin(t testing.TB) {
	t.Helper()
	n.AwaitDown(t)
	n.empty(t)
	at := n.c.running(t)
	n.begin(t, "--join", at.Mesh(), "--token", n.c.Token(t, at))
	n.AwaitReady(t)
	n.c.AwaitVoters(t, 3)
}

// empty removes all that is in the data folder of a node that does not run.
func (n *Node) empty(t testing.TB) {
	t.Helper()
	// What is in the folder goes, not the folder itself: a file system may be mounted there.
	entries, err := os.ReadDir(n.data)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.data, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if len(entries) > 0 {
		n.wipes++
	}
}
