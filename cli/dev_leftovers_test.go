package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLeftoversOfKilledDev(t *testing.T) {
	parent := t.TempDir()
	make1 := func(name string, files ...string) string {
		t.Helper()
		dir := filepath.Join(parent, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path := filepath.Join(dir, f)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	hold := func(path string) {
		t.Helper()
		unlock, err := lockFile(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unlock)
	}
	dead := make1("imctl-dev-1", "dev.lock", "cluster.json", "n1/lock", "n1/raft/raft.db", "n2/lock")
	running := make1("imctl-dev-2", "dev.lock", "n1/lock")
	hold(filepath.Join(running, "dev.lock"))
	outlived := make1("imctl-dev-3", "dev.lock", "n1/lock", "n2/lock")
	hold(filepath.Join(outlived, "n2", "lock"))
	fresh := make1("imctl-dev-4", "dev.lock")
	noLock := make1("imctl-dev-5", "n1/lock")
	foreign := make1("something-else", "dev.lock", "n1/lock")

	if got := removeLeftovers(parent); !slices.Equal(got, []string{dead}) {
		t.Errorf("removed %q, want %q", got, dead)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dead, err)
	}
	for _, dir := range []string{running, outlived, fresh, noLock, foreign} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
	if got := removeLeftovers(parent); len(got) > 0 {
		t.Errorf("then %q", got)
	}
}
