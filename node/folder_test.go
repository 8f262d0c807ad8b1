package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imroute/mesh"
	"imroute/node/admin"
	"imroute/node/datadir"
)

// ends waits until a node ends by itself and says why.
func (c *cluster) ends(n *Node) error {
	c.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	select {
	case err := <-ended:
		c.stop(n)
		return err
	case <-time.After(patience):
		c.t.Fatalf("%s did not end", n.Name())
		return nil
	}
}

// refused wants a start to fail with that text.
func (c *cluster) refused(cfg Config, want string) {
	c.t.Helper()
	n, err := c.open(cfg)
	if err == nil {
		c.stop(n)
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		c.t.Fatalf("starting %s: %v, want %q", cfg.Name, err, want)
	}
}

// healthy waits until the cluster of three is whole.
func (c *cluster) healthy(at *Node) {
	c.t.Helper()
	c.until("health", func() error {
		s, err := api{at}.ClusterStatus(c.ctx)
		if err == nil && (s.Health != admin.HealthOK || s.Voters != 3 || s.NodesUp != 3) {
			err = errors.New(s.Health + ": " + strings.Join(s.Problems, "; "))
		}
		return err
	})
}

// A copy of a node's data folder is started beside it. It is ended, and the node goes on.
func TestCopyOfFolderIsEnded(t *testing.T) {
	c := newCluster(t)
	n1, n2, _ := c.three()
	twice := c.config("copy")
	if err := os.CopyFS(twice.Data, os.DirFS(c.dir["n2"])); err != nil {
		t.Fatal(err)
	}
	twice.Name = ""
	twin, err := New(twice, testLog("copy"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	if err := twin.Open(ctx); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.up["copy"] = twin
	c.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- twin.Wait() }()
	select {
	case err := <-ended:
		if !errors.Is(err, mesh.ErrTwin) || !strings.Contains(err.Error(), "delete the copy") {
			t.Errorf("the copy ended with %v", err)
		}
	case <-n2.ctx.Done():
		t.Fatalf("the node itself ended: %v", n2.Wait())
	case <-ctx.Done():
		t.Fatal("both run")
	}
	c.mu.Lock()
	delete(c.up, "copy")
	c.mu.Unlock()
	if err := closeNode(twin); err != nil {
		t.Error(err)
	}
	c.healthy(n1)
	select {
	case <-n2.ctx.Done():
		t.Errorf("the node itself ended: %v", n2.Wait())
	default:
	}
}

func TestFolderMovedAway(t *testing.T) {
	c := newCluster(t)
	n := c.found("n1")
	if err := os.Rename(c.dir["n1"], filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Skip("an open folder cannot be moved here:", err)
	}
	if err := c.ends(n); !errors.Is(err, datadir.ErrGone) {
		t.Errorf("ended with %v", err)
	}
}

// What is missing in a member's folder is told for what it is, and where there is a way to go on it works.
func TestStartWithPartOfAFolder(t *testing.T) {
	c := newCluster(t)
	n1, _, n3 := c.three()
	c.stop(n3)
	lose := func(name string) (putBack func()) {
		path := filepath.Join(c.dir["n3"], name)
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"identity/node.key", "secrets/client.key"} {
		putBack := lose(name)
		c.refused(c.config("n3"), "restore the file from a copy")
		putBack()
	}
	lose("members.json")
	c.refused(c.config("n3"), "members.json")
	cfg := c.config("n3")
	cfg.Join = []string{n1.Addrs().Mesh}
	n3 = c.start(cfg)
	c.healthy(n1)
	c.stop(n3)
	cfg.Join = nil
	c.start(cfg) // the list is there again
	c.healthy(n1)
}

// A folder that belongs to a member takes a token of its own cluster, as services are started with the same words every
// time, and none of another one.
func TestTokenOfAnotherCluster(t *testing.T) {
	c := newCluster(t)
	other, n1 := c.found("other"), c.found("n1")
	n2 := c.join("n2", n1)
	c.stop(n2)
	cfg := c.config("n2")
	cfg.Join, cfg.Token = []string{other.Addrs().Mesh}, c.token(other)
	c.refused(cfg, "--token is for another cluster than the one that the data folder")
	cfg.Join, cfg.Token = []string{n1.Addrs().Mesh}, c.token(n1)
	c.start(cfg)
}

// Every node comes back at the address that another one had: n1 at n2's, n2 at n3's, n3 at n1's.
func TestAddressesRotate(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	at := map[string]string{"n1": n2.Addrs().Mesh, "n2": n3.Addrs().Mesh, "n3": n1.Addrs().Mesh}
	for _, n := range []*Node{n3, n2, n1} {
		c.stop(n)
	}
	var all []*Node
	for name, addr := range at {
		cfg := c.config(name)
		cfg.Mesh.Bind = addr
		n, err := c.open(cfg)
		if err != nil {
			t.Fatalf("opening %s at %s: %v", name, addr, err)
		}
		all = append(all, n)
	}
	for _, n := range all {
		c.ready(n)
	}
	for _, n := range all {
		c.healthy(n)
		c.until("the new addresses", func() error {
			for _, m := range n.fsm.Nodes() {
				if m.Addrs.Mesh != at[m.Name] {
					return errors.New(m.Name + " is at " + m.Addrs.Mesh + ", want " + at[m.Name])
				}
			}
			return nil
		})
	}
}
