package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	snapDir    = "snapshots"
	snapSuffix = ".snap"
	tmpSuffix  = ".tmp"
	// snapRetain is how many snapshots stay: one may still be on its way to a follower when the next is finished.
	snapRetain = 2
)

// snapStore keeps snapshots in files of their own. Safe for use by several goroutines.
type snapStore struct {
	dir       string
	log       *slog.Logger
	fail      *failStop
	installed func(*raft.SnapshotMeta) // called once a snapshot is safe on the disk

	running atomic.Bool // Raft runs: damage found by reading is fatal; until then Open reports it

	mu     sync.Mutex
	names  []string           // guarded by mu: the finished files, newest first
	newest *raft.SnapshotMeta // guarded by mu
}

var _ raft.SnapshotStore = (*snapStore)(nil)

// openSnapshots reads what is in dir. If the newest snapshot cannot be used, that is an error: the one before it would need
// log entries that may have been dropped since, and starting without any would be starting anew.
func openSnapshots(dir string, log *slog.Logger, fail *failStop) (*snapStore, error) {
	s := &snapStore{dir: filepath.Join(dir, snapDir), log: log, fail: fail}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder for snapshots: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("create the folder for snapshots: %w", err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder for snapshots: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasSuffix(name, tmpSuffix):
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil { // unfinished when the node stopped
				return nil, fmt.Errorf("remove an unfinished snapshot: %w", err)
			}
		case strings.HasSuffix(name, snapSuffix):
			s.names = append(s.names, name)
		default:
			log.Warn("the folder for snapshots holds something that is not one", "file", filepath.Join(s.dir, name))
		}
	}
	slices.Sort(s.names)
	slices.Reverse(s.names)
	if len(s.names) == 0 {
		return s, nil
	}
	meta, f, _, err := s.open(s.names[0])
	if err != nil {
		return nil, fmt.Errorf("the newest snapshot %s cannot be used: %w; %s", filepath.Join(s.dir, s.names[0]), err, wipe)
	}
	s.newest = meta
	return s, f.Close()
}

// open opens a snapshot and places f at the start of its state.
func (s *snapStore) open(name string) (m *raft.SnapshotMeta, f *os.File, sum uint32, err error) {
	if f, err = os.Open(filepath.Join(s.dir, name)); err != nil {
		return nil, nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, 0, err
	}
	m, start, sum, err := readSnapshot(f, st.Size())
	if err != nil {
		return nil, nil, 0, err
	}
	if m.ID+snapSuffix != name {
		return nil, nil, 0, fmt.Errorf("%w: it was written as %s", ErrDamaged, m.ID)
	}
	if _, err = f.Seek(start, io.SeekStart); err != nil {
		return nil, nil, 0, err
	}
	return m, f, sum, nil
}

// Create begins a snapshot.
func (s *snapStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	k := &snapSink{s: s, meta: raft.SnapshotMeta{
		Version: version, Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex,
		// Names sort by age; the time only tells two snapshots of one index apart.
		ID: fmt.Sprintf("%020d-%020d-%016x", term, index, time.Now().UnixNano()),
	}}
	head, err := encodeHead(&k.meta)
	if err != nil {
		return nil, err
	}
	k.tmp = filepath.Join(s.dir, k.meta.ID+tmpSuffix)
	if k.f, err = os.OpenFile(k.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		s.failed("create", k.tmp, err)
		return nil, err
	}
	k.w = bufio.NewWriterSize(k.f, 256<<10)
	if _, err := k.w.Write(head); err != nil {
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

// install gives a finished file its name and drops those that are too old.
func (s *snapStore) install(tmp string, m *raft.SnapshotMeta) error {
	name := m.ID + snapSuffix
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.add(name, m)
	if s.installed != nil {
		s.installed(m)
	}
	return nil
}

func (s *snapStore) add(name string, m *raft.SnapshotMeta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
	slices.Sort(s.names)
	slices.Reverse(s.names)
	if s.names[0] == name {
		s.newest = m
	}
	for len(s.names) > snapRetain {
		old := s.names[len(s.names)-1]
		if err := os.Remove(filepath.Join(s.dir, old)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("an old snapshot stays for now", "file", old, "error", err) // on Windows: somebody reads it
			break
		}
		s.names = s.names[:len(s.names)-1]
	}
}

// List returns the newest snapshot only: Raft would fall back to an older one if the newest failed to restore, and then
// panic over log entries that were dropped since.
func (s *snapStore) List() ([]*raft.SnapshotMeta, error) {
	if m := s.last(); m != nil {
		c := *m
		return []*raft.SnapshotMeta{&c}, nil
	}
	return nil, nil
}

func (s *snapStore) last() *raft.SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// Open opens a snapshot for reading. The reader checks the state as it goes.
func (s *snapStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, f, sum, err := s.open(id + snapSuffix)
	if err != nil {
		err = fmt.Errorf("snapshot %s: %w; %s", id, err, wipe)
		s.damage(err)
		return nil, nil, err
	}
	return m, &snapReader{s: s, f: f, r: bufio.NewReaderSize(f, 256<<10), left: m.Size, want: sum}, nil
}

// damage stops the member: what it could no longer hand to a follower it could not restore either.
func (s *snapStore) damage(err error) {
	if s.running.Load() {
		s.fail.fail(err)
	}
}

func (s *snapStore) failed(what, path string, err error) {
	s.fail.fail(fmt.Errorf("%s the snapshot %s: %w; check the disk and its free space, then start the node again", what, path, err))
}
