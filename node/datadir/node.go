package datadir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"imroute/mesh/wire"
)

// loadNode reads the identity, or makes one for a folder in which there is nothing yet. Nothing that matters is written before
// it: whatever a crash before that left behind is as good as nothing.
func (d *Dir) loadNode() error {
	path := filepath.Join(d.path, nodeFile)
	var n nodeJSON
	err := read(path, &n)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return d.makeNode()
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("%w; %s", err, rejoin)
	case err != nil:
		return err
	case n.Version > nodeVersion:
		return fmt.Errorf("%s was written by a newer version: start that one", path)
	case n.ID == 0 || len(n.ResetKey) != len(d.resetKey):
		return fmt.Errorf("%s is %w: a field is missing; %s", path, ErrDamaged, rejoin)
	}
	d.id = n.ID
	copy(d.resetKey[:], n.ResetKey)
	return nil
}

func (d *Dir) makeNode() error {
	switch found, err := d.used(); {
	case err != nil:
		return err
	case found != "":
		return fmt.Errorf("%w: %s holds %s but no %s; %s", ErrIncomplete, d.path, found, nodeFile, rejoin)
	}
	d.id = wire.NodeID(wire.NewID())
	_, _ = rand.Read(d.resetKey[:]) // never fails: crypto/rand ends the process instead
	// The counter comes first, so that wherever there is an identity there is a counter.
	zero, err := encode(bootJSON{})
	if err != nil {
		return err
	}
	if err := d.write(bootFile, zero); err != nil {
		return err
	}
	b, err := encode(nodeJSON{nodeVersion, d.id, d.resetKey[:]})
	if err != nil {
		return err
	}
	return d.write(nodeFile, b)
}
