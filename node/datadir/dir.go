package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"imroute/mesh/wire"
)

const (
	lockFile    = "lock"
	nodeFile    = "node.json"
	bootFile    = "boot.json"
	membersFile = "members.json"
	raftDir     = "raft"
	identityDir = "identity"
	secretsDir  = "secrets"
)

// Dir is an open data folder. Its methods may be called from several goroutines; after Close only the paths may be used.
type Dir struct {
	// Fixed after Open.
	path     string
	id       wire.NodeID
	resetKey [32]byte

	mu   sync.Mutex
	lock *os.File  // guarded by mu: nil after Close
	boot wire.Boot // guarded by mu
}

// Open opens the folder at path, or creates it (0700) with a new, random node id. It holds the folder's lock until Close;
// a folder that is in use is refused with ErrInUse.
//
// A folder left behind by a first start that crashed is completed. One that has state but no identity is refused
// (ErrIncomplete): a new identity in it would be a voter that forgot its votes.
func Open(path string) (_ *Dir, err error) {
	if path == "" {
		return nil, errors.New("no data folder given: name one, say with --data")
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := mkdirAll(path); err != nil {
		return nil, fmt.Errorf("create the data folder %s: %w", path, err)
	}
	d := &Dir{path: path}
	if d.lock, err = acquire(filepath.Join(path, lockFile)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.private(); err != nil {
		return nil, err
	}
	if err := d.loadNode(); err != nil {
		return nil, err
	}
	if d.boot, err = d.readBoot(); err != nil {
		return nil, err
	}
	for _, sub := range []string{raftDir, identityDir, secretsDir} {
		if err := mkdir(filepath.Join(path, sub)); err != nil {
			return nil, fmt.Errorf("complete the data folder: %w", err)
		}
	}
	return d, nil
}

// private takes the rights of others away from a folder that was made by hand or copied. Windows has no such bits: there
// the folder inherits the rights of the one above.
func (d *Dir) private() error {
	st, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return fmt.Errorf("the data folder %s can be read by others and that cannot be changed: %w", d.path, err)
	}
	return nil
}

// used tells whether the folder holds anything but what a first start leaves that did not get as far as the identity.
func (d *Dir) used() (string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == lockFile, name == bootFile, name == "lost+found", strings.HasSuffix(name, tmpSuffix):
		case e.IsDir() && (name == raftDir || name == identityDir || name == secretsDir):
			inside, err := os.ReadDir(filepath.Join(d.path, name))
			if err != nil {
				return "", err
			}
			if len(inside) > 0 {
				return filepath.Join(name, inside[0].Name()), nil
			}
		default:
			return name, nil
		}
	}
	return "", nil
}

// Path is the folder, absolute.
func (d *Dir) Path() string { return d.path }

// RaftDir is the folder for the Raft log and snapshots. It exists.
func (d *Dir) RaftDir() string { return filepath.Join(d.path, raftDir) }

// Check fails with ErrGone if the folder is not at its place any more, or another one is: what is written to files that were
// opened before is lost when they are closed.
func (d *Dir) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	ours, err := d.lock.Stat()
	if err != nil {
		return fmt.Errorf("look at the data folder's lock: %w", err)
	}
	there, err := os.Stat(filepath.Join(d.path, lockFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w", d.path, ErrGone)
	case err != nil:
		return nil // it cannot be told at the moment
	case !os.SameFile(ours, there):
		return fmt.Errorf("%s was replaced by another folder: %w", d.path, ErrGone)
	}
	return nil
}

// Free returns how many bytes this process can still write on the folder's file system.
func (d *Dir) Free() (uint64, error) {
	n, err := free(d.path)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", d.path, err)
	}
	return n, nil
}

// Close gives the folder back. It may be called again.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	err := release(d.lock)
	d.lock = nil
	return err
}

// lockedLocked refuses to write without the lock: somebody else may be at work.
func (d *Dir) lockedLocked() error {
	if d.lock == nil {
		return fmt.Errorf("the data folder %s is closed", d.path)
	}
	return nil
}

// write replaces one of the folder's files.
func (d *Dir) write(name string, content []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writeLocked(name, content)
}

func (d *Dir) writeLocked(name string, content []byte) error {
	if err := d.lockedLocked(); err != nil {
		return err
	}
	if err := WriteFileAtomic(filepath.Join(d.path, name), content, 0o600); err != nil {
		return fmt.Errorf("%w; check the disk and its free space, then start the node again", err)
	}
	return nil
}
