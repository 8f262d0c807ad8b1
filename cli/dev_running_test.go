package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// A folder that a node has locked is in use, whoever started that node; one that is only left behind is not.
func TestDevStillRuns(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "n3"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFile(filepath.Join(dir, "n3", dataLock), 0)
	if err != nil {
		t.Fatal(err)
	}
	if node := devStillRuns(dir); node != "n3" {
		t.Errorf("%q runs, want n3", node)
	}
	unlock()
	if node := devStillRuns(dir); node != "" {
		t.Errorf("%q runs, and nobody does", node)
	}
}
