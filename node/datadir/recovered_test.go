package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRecovered(t *testing.T) {
	path := t.TempDir()
	if there, err := Exists(path); there || err != nil {
		t.Fatalf("an empty folder: %t, %v", there, err)
	}
	d := mustOpen(t, path)
	if there, err := Exists(path); !there || err != nil {
		t.Fatalf("a node's folder: %t, %v", there, err)
	}
	if r, err := d.Recovered(); r != (Recovered{}) || err != nil {
		t.Fatalf("before anything was recovered: %+v, %v", r, err)
	}
	want := Recovered{Generation: 3, Mark: 1<<63 + 5, Pending: true}
	if err := d.SetRecovered(want); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Recovered(); r != want || err != nil {
		t.Fatalf("%+v, %v, want %+v", r, err, want)
	}
	file := filepath.Join(path, recoveredFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Recovered(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("damaged: %v", err)
	}
}
