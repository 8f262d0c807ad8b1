package datadir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Secret names one of the files that hold keys, certificates and tokens. They are kept as they are given, without a checksum:
// PEM and tokens are checked by whoever uses them, and a person may put his own there.
type Secret string

const (
	NodeCert  Secret = identityDir + "/node.crt"   // PEM, the node's certificate chain
	NodeKey   Secret = identityDir + "/node.key"   // PEM
	CACert    Secret = identityDir + "/ca.crt"     // PEM, the cluster's CA
	CAKey     Secret = identityDir + "/ca.key"     // PEM, on voters only
	AdminTok  Secret = secretsDir + "/admin.token" // bearer token of the admin API
	ClientKey Secret = secretsDir + "/client.key"  // signing key of client tokens
	DevMode   Secret = secretsDir + "/dev-mode"    // there if the cluster is in development mode
	Discovery Secret = secretsDir + "/discovery"   // the key by which nodes of this cluster know each other on a LAN
)

// SecretPath is where a secret is kept, for programs that want a file name.
func (d *Dir) SecretPath(s Secret) string {
	return filepath.Join(d.path, filepath.FromSlash(string(s)))
}

// Secret reads a secret; ErrMissing if it was never written. An empty file is an error that names it.
func (d *Dir) Secret(s Secret) ([]byte, error) {
	path := d.SecretPath(s)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s %w", path, ErrMissing)
	case err != nil:
		return nil, err
	case len(bytes.TrimSpace(b)) == 0:
		return nil, fmt.Errorf("%s is %w: it is empty; restore it from a copy, or delete it to have it made anew", path, ErrDamaged)
	}
	return b, nil
}

// HasSecret tells whether a secret was written.
func (d *Dir) HasSecret(s Secret) bool {
	_, err := os.Stat(d.SecretPath(s))
	return err == nil
}

// SetSecret writes a secret (0600). Several that belong together are best written with the one last whose presence says
// that all are there: each is on the disk before the next is begun.
func (d *Dir) SetSecret(s Secret, content []byte) error {
	if len(bytes.TrimSpace(content)) == 0 {
		return fmt.Errorf("%s: nothing to write", s)
	}
	return d.write(filepath.FromSlash(string(s)), content)
}

// RemoveSecret deletes a secret, say the CA's key on a node that is no longer a voter; nothing if it is not there.
func (d *Dir) RemoveSecret(s Secret) error { return d.remove(filepath.FromSlash(string(s))) }

// remove deletes a file of the folder, if it is there.
func (d *Dir) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.lockedLocked(); err != nil {
		return err
	}
	path := filepath.Join(d.path, name)
	switch err := os.Remove(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}
