package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const leavingFile = "leaving.json"

// Leaving is how far a node has come that was asked to leave its cluster.
type Leaving string

// The steps of leaving that a restart must not forget.
const (
	Stays       Leaving = ""
	AskedLeave  Leaving = "asked"    // the cluster may not have agreed on its drain yet
	DrainAgreed Leaving = "draining" // it did; if it is not so any more, somebody took that back
)

type leavingJSON struct {
	Leaving Leaving `json:"leaving"`
}

// Leaving returns what SetLeaving was last told.
func (d *Dir) Leaving() (Leaving, error) {
	var l leavingJSON
	path := filepath.Join(d.path, leavingFile)
	switch err := read(path, &l); {
	case errors.Is(err, os.ErrNotExist):
		return Stays, nil
	case errors.Is(err, ErrDamaged):
		return Stays, fmt.Errorf("%w; delete it, and let the node leave again if it should", err)
	case err != nil:
		return Stays, err
	}
	return l.Leaving, nil
}

// SetLeaving remembers it, once it survives a power loss.
func (d *Dir) SetLeaving(l Leaving) error {
	if l == Stays {
		return d.remove(leavingFile)
	}
	b, err := encode(leavingJSON{l})
	if err != nil {
		return err
	}
	return d.write(leavingFile, b)
}
