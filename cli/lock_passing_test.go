package cli

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLockPassing: one holder at a time although the file goes with each, and nothing is left.
func TestLockPassing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	var holders, took atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 40 {
				unlock, err := lockPassing(path, 20*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				took.Add(1)
				holders.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if took.Load() != 8*40 {
		t.Errorf("taken %d times", took.Load())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestRemoveUnheld(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, age time.Duration) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	left, held, fresh, other := file("tcp-1.lock", time.Hour), file("tcp-2.lock", time.Hour), file("tcp-3.lock", 0), file("notes", time.Hour)
	unlock, err := lockFile(held, 0)
	if err != nil {
		t.Fatal(err)
	}
	removeUnheld(dir)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what nobody holds is still there: %v", err)
	}
	for _, path := range []string{held, fresh, other} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	unlock()
	removeUnheld(dir)
	if _, err := os.Stat(held); !os.IsNotExist(err) {
		t.Errorf("given back, and still there: %v", err)
	}
}
