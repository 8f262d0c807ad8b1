package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// history makes a folder with some snapshots and log, and returns it closed, with the index of its newest snapshot.
func history(t *testing.T) (dir string, snap uint64) {
	t.Helper()
	dir = t.TempDir()
	n := single(t, dir)
	for i := range uint64(30) {
		mustPropose(t, n, i)
		if i == 10 || i == 20 {
			if err := n.Snapshot(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	snap = n.Stats().SnapshotIndex
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, snap
}

// refused wants Open to fail with an error that says what to do. Once it opens, it must not have lost anything.
func refused(t *testing.T, dir, what string) {
	t.Helper()
	n, err := tryOpen(t, newHub(), 1, dir)
	if err == nil {
		_ = n.Close()
		t.Fatalf("%s: it started", what)
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), wipe) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("%s: %v", what, err)
	}
}

func newestSnapshot(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, snapDir, "*"+snapSuffix))
	if err != nil || len(files) != snapRetain {
		t.Fatalf("snapshots %v, %v", files, err)
	}
	return files[len(files)-1]
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	dir, _ := history(t)
	file := newestSnapshot(t, dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 { // header, description, state and trailer
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "a flipped bit")
	}
	for _, n := range []int{0, 10, len(good) / 2, len(good) - 1} {
		if err := os.WriteFile(file, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "a snapshot cut short")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "the newest snapshot is missing")
	if err := os.RemoveAll(filepath.Join(dir, snapDir)); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "all snapshots are missing")
}

func TestMissingLogIsRefused(t *testing.T) {
	dir, _ := history(t)
	if err := os.Remove(filepath.Join(dir, boltFile)); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "the log is missing")
	refused(t, dir, "the log is missing, tried again")
}

func TestGapBehindSnapshotIsRefused(t *testing.T) {
	dir, snap := history(t)
	b, err := raftboltdb.NewBoltStore(filepath.Join(dir, boltFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.DeleteRange(1, snap+1), b.Close()); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "an entry behind the snapshot is missing")
}

func TestFailedRestoreIsRefused(t *testing.T) {
	dir, _ := history(t)
	boom := errors.New("another cluster's")
	_, err := tryOpen(t, newHub(), 1, dir, func(c *Config) { c.FSM = &sumFSM{restoreErr: boom} })
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), wipe) {
		t.Fatalf("failed restore: %v", err)
	}
}

// Whatever byte of the log's file is flipped, the member either says so or has lost nothing. Never does it panic.
func TestFlippedBytesInTheLog(t *testing.T) {
	dir, _ := history(t)
	file := filepath.Join(dir, boltFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := open(t, newHub(), 1, dir)
	waitLeads(t, n)
	want, _ := mustPropose(t, n, 0)
	_ = n.Close()
	noticed := 0
	try := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := tryOpen(t, newHub(), 1, dir)
		if err != nil {
			noticed++
			if !strings.Contains(err.Error(), wipe) {
				t.Fatalf("%s: %v", what, err)
			}
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for l := (Leadership{}); !l.Leading; {
			if l, err = n.WaitLeadership(ctx, l); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if n.fail.hasFailed() != nil {
				noticed++
				_ = n.Close()
				return
			}
		}
		r, _, err := n.Propose(ctx, num(0))
		switch {
		case n.fail.hasFailed() != nil:
			noticed++
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case r.(uint64) != want:
			t.Fatalf("%s: sum %v, want %d", what, r, want)
		}
		_ = n.Close()
	}
	// Either header: if it is the newer one, the last transaction would be lost.
	for _, at := range []int{16, 64, 75, 4096 + 16, 4096 + 64, 4096 + 75} {
		if os.Getpagesize() != 4096 {
			break
		}
		bad := bytes.Clone(good)
		bad[at] ^= 0xff
		before := noticed
		if try("a header", bad); noticed == before {
			t.Fatalf("a damaged header (byte %d) was not noticed", at)
		}
	}
	// The bytes that the walk over the pages passes over: values, and room that is not in use.
	unflagged := func(i int) bool {
		bad := bytes.Clone(good)
		bad[i] ^= 0xff
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		return checkBolt(file) == nil
	}
	tried, flagged := 0, 0
	for i := 0; i < len(good); i += 41 {
		switch {
		case good[i] == 0:
		case !unflagged(i):
			flagged++
		case tried < 15:
			bad := bytes.Clone(good)
			bad[i] ^= 0xff
			try("an unflagged byte", bad)
			tried++
		}
	}
	if tried == 0 || flagged == 0 {
		t.Fatalf("%d damages of pages were found, %d other bytes tried", flagged, tried)
	}
	for _, size := range []int{0, 100, 4096, 8192, len(good) / 2} {
		try("cut short", good[:size])
	}
	if noticed < 5 {
		t.Fatalf("%d damages were noticed", noticed)
	}
}

func TestDamagedEntryIsFatalWhenRead(t *testing.T) {
	dir := t.TempDir()
	n := single(t, dir)
	mustPropose(t, n, 1)
	if err := n.disk.db.StoreLogs([]*raft.Log{{Index: 1, Term: 9, Extensions: []byte{1, 2, 3, 4}}}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_ = n.disk.GetLog(1, new(raft.Log))
		returned = true
	}()
	if <-ended {
		t.Fatal("GetLog returned a damaged entry")
	}
	wantFatal(t, n, ErrDamaged, "entry 1")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	refused2(t, dir)
}

func refused2(t *testing.T, dir string) {
	t.Helper()
	if _, err := tryOpen(t, newHub(), 1, dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), wipe) {
		t.Fatalf("opened with a damaged entry: %v", err)
	}
}

func TestLogIsLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, newHub(), 1, dir)
	if _, err := tryOpen(t, newHub(), 1, dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestUnfinishedFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, snapDir), 0o700); err != nil {
		t.Fatal(err)
	}
	left := []string{filepath.Join(dir, boltFile+".new"), filepath.Join(dir, snapDir, "x"+tmpSuffix)}
	for _, f := range left {
		if err := os.WriteFile(f, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, newHub(), 1, dir)
	for _, f := range left {
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestFailingSnapshotWriteIsFatal(t *testing.T) {
	n := single(t, t.TempDir())
	mustPropose(t, n, 1)
	if err := os.RemoveAll(filepath.Join(n.cfg.Dir, snapDir)); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshot(within(t)); err == nil {
		t.Fatal("a snapshot into nowhere")
	}
	wantFatal(t, n, nil, "snapshot")
}

func FuzzReadSnapshot(f *testing.F) {
	head, err := encodeHead(&raft.SnapshotMeta{Version: 1, ID: "x", Index: 3, Term: 2, Size: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(append(head, "state"...), encodeTrailer(5, 1)...))
	f.Add([]byte(snapMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, start, _, err := readSnapshot(bytes.NewReader(b), int64(len(b)))
		if err == nil && (m.Index == 0 || start+m.Size+snapTrailer != int64(len(b))) {
			t.Fatalf("accepted %+v at %d of %d", m, start, len(b))
		}
	})
}

func FuzzCheckBolt(f *testing.F) {
	dir := f.TempDir()
	b, err := openBolt(dir)
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(50) {
		if err := b.StoreLog(&raft.Log{Index: i + 1, Data: make([]byte, 100*i)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, boltFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(100), uint64(3))
	f.Add(uint32(4096*3+8), uint64(0xffff))
	f.Add(uint32(4096*4+16), uint64(1<<40))
	f.Fuzz(func(t *testing.T, at uint32, with uint64) {
		file := filepath.Join(t.TempDir(), "f")
		bad := bytes.Clone(good)
		for i := range 8 {
			bad[(int(at)+i)%len(bad)] ^= byte(with >> (8 * i))
		}
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkBolt(file); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}
