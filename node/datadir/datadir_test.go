package datadir

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestMain lets the test binary stand for another process that holds a folder.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DATADIR_TEST_HOLD"); dir != "" {
		d, err := Open(dir)
		fmt.Println("held", err)
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		if d != nil {
			_ = d.Close()
		}
		return
	}
	os.Exit(m.Run())
}

func mustOpen(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestReopenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := mustOpen(t, path)
	id, key := d.ID(), d.ResetKey()
	if id == 0 || key == ([32]byte{}) {
		t.Fatal("no identity was made")
	}
	if b, err := d.Boot(); b != 1 || err != nil {
		t.Fatalf("first boot: %d, %v", b, err)
	}
	if b, err := d.Boot(); b != 2 || err != nil {
		t.Fatalf("second boot: %d, %v", b, err)
	}
	if m, err := d.Members(); m != nil || err != nil {
		t.Fatalf("members of a new folder: %v, %v", m, err)
	}
	want := []Member{{7, "n1", "10.0.0.1:7000"}, {8, "n2", "10.0.0.2:7000"}}
	if err := d.SetMembers(want); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Secret(CAKey); !errors.Is(err, ErrMissing) {
		t.Fatalf("missing secret: %v", err)
	}
	if err := d.SetSecret(CAKey, []byte("pem")); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(); err == nil {
		t.Fatal("a closed folder could be written")
	}

	d = mustOpen(t, path)
	if d.ID() != id || d.ResetKey() != key {
		t.Fatal("another identity after reopening")
	}
	if b, err := d.Boot(); b != 3 || err != nil {
		t.Fatalf("boot after reopening: %d, %v", b, err)
	}
	if m, err := d.Members(); err != nil || !reflect.DeepEqual(m, want) {
		t.Fatalf("members: %v, %v", m, err)
	}
	if b, err := d.Secret(CAKey); string(b) != "pem" || err != nil {
		t.Fatalf("secret: %q, %v", b, err)
	}
	if err := errors.Join(d.RemoveSecret(CAKey), d.RemoveSecret(CAKey)); err != nil || d.HasSecret(CAKey) {
		t.Fatalf("removed secret: %v, there: %v", err, d.HasSecret(CAKey))
	}
	if n, err := d.Free(); n == 0 || err != nil {
		t.Fatalf("free space: %d, %v", n, err)
	}
}

func TestNobodyElseMayRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("rights are inherited there")
	}
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, path)
	if _, err := d.Boot(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.SetMembers(nil), d.SetSecret(AdminTok, []byte("t"))); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", p, st.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLockWithinProcess(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	_, err := Open(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second open: %v", err)
	}
	// The refused one must not have taken anything away from the first.
	if _, err := d.Boot(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("third open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path)
}

func TestLockOfAnotherProcess(t *testing.T) {
	path := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DATADIR_TEST_HOLD="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held <nil>\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	_, err = Open(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) {
		t.Errorf("open of a held folder: %v", err)
	}
	// Killed without a chance to unlock.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mustOpen(t, path)
}

func TestDamagedFiles(t *testing.T) {
	open := func(path string) error {
		d, err := Open(path)
		if err != nil {
			return err
		}
		_, err = d.Members()
		return errors.Join(err, d.Close())
	}
	for _, name := range []string{nodeFile, bootFile, membersFile} {
		path := t.TempDir()
		d := mustOpen(t, path)
		if _, err := d.Boot(); err != nil {
			t.Fatal(err)
		}
		if err := d.SetMembers([]Member{{7, "n1", "10.0.0.1:7000"}}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, name)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good[:len(good)-1] { // the last byte is a newline
			bad := bytes.Clone(good)
			bad[i] ^= 1
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := open(path); err == nil || !strings.Contains(err.Error(), file) {
				t.Fatalf("%s with byte %d flipped (%q): %v", name, i, bad, err)
			}
		}
		for _, n := range []int{0, 1, len(good) / 2, len(good) - 2} {
			if err := os.WriteFile(file, good[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := open(path); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := open(path); err != nil {
			t.Fatalf("%s restored: %v", name, err)
		}
	}
}

func TestLostIdentityIsRefused(t *testing.T) {
	for _, lost := range []string{nodeFile, bootFile} {
		path := t.TempDir()
		d := mustOpen(t, path)
		if err := os.WriteFile(filepath.Join(d.RaftDir(), "raft.db"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(path, lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("without %s: %v", lost, err)
		}
	}
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "holiday.jpg"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("somebody else's folder: %v", err)
	}
}

// What a first start leaves behind that crashes at any point is completed by the next one.
func TestCrashDuringFirstStart(t *testing.T) {
	zero, err := encode(bootJSON{})
	if err != nil {
		t.Fatal(err)
	}
	steps := []func(path string) error{
		func(p string) error { return os.WriteFile(filepath.Join(p, lockFile), []byte("4711\n"), 0o600) },
		func(p string) error { return os.WriteFile(filepath.Join(p, bootFile+tmpSuffix), []byte("{"), 0o600) },
		func(p string) error { return os.WriteFile(filepath.Join(p, bootFile), zero, 0o600) },
		func(p string) error { return os.WriteFile(filepath.Join(p, nodeFile+tmpSuffix), []byte("{"), 0o600) },
		func(p string) error { return os.Mkdir(filepath.Join(p, raftDir), 0o700) },
	}
	for n := range len(steps) + 1 {
		path := t.TempDir()
		for _, s := range steps[:n] {
			if err := s(path); err != nil {
				t.Fatal(err)
			}
		}
		d := mustOpen(t, path)
		if b, err := d.Boot(); b != 1 || err != nil {
			t.Fatalf("after %d steps: boot %d, %v", n, b, err)
		}
	}
}

func TestWriteFileAtomicKeepsTheOldOnFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFileAtomic(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Its place is taken by a folder that cannot be removed.
	if err := os.MkdirAll(filepath.Join(path+tmpSuffix, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(path, []byte("new"), 0o600); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("error: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "old" || err != nil {
		t.Fatalf("content %q, %v", b, err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode([]Member{{7, "n1", "10.0.0.1:7000"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"crc32c":"00000000","data":[]}`))
	f.Add([]byte(`{"crc32c":"","data":null}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m []Member
		if decode(b, &m) != nil {
			return
		}
		var c checked
		if err := json.Unmarshal(b, &c); err != nil || c.Sum != sum(c.Data) {
			t.Fatalf("accepted %q", b)
		}
		again, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		var m2 []Member
		if err := decode(again, &m2); err != nil || len(m) != len(m2) {
			t.Fatalf("%v became %v, %v", m, m2, err)
		}
	})
}
