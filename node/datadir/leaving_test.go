package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLeaving(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	for _, want := range []Leaving{Stays, AskedLeave, DrainAgreed, Stays, Stays, AskedLeave} {
		if err := d.SetLeaving(want); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Leaving(); got != want || err != nil {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(path, leavingFile), []byte("yes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Leaving(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "delete it") {
		t.Fatalf("damaged: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.SetLeaving(Stays); err == nil {
		t.Error("changed after Close")
	}
}
