package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const recoveredFile = "recovered.json"

// Recovered says from which recovery of the cluster this node's Raft state descends. The zero value: from none, the cluster
// is as it was founded.
type Recovered struct {
	Generation uint16 `json:"generation"`        // of the epochs; rises with each recovery
	Mark       uint64 `json:"mark,string"`       // tells apart two recoveries that were begun with different peers
	Pending    bool   `json:"pending,omitempty"` // it was begun and has not been finished: the node must not start
}

// Recovered returns what SetRecovered was last told.
func (d *Dir) Recovered() (r Recovered, err error) {
	path := filepath.Join(d.path, recoveredFile)
	switch err := read(path, &r); {
	case errors.Is(err, os.ErrNotExist):
		return Recovered{}, nil
	case errors.Is(err, ErrDamaged):
		return Recovered{}, fmt.Errorf("%w; %s", err, rejoin)
	case err != nil:
		return Recovered{}, err
	case r.Generation == 0:
		return Recovered{}, fmt.Errorf("%s is %w: a field is missing; %s", path, ErrDamaged, rejoin)
	}
	return r, nil
}

// SetRecovered remembers a recovery, once it survives a power loss.
func (d *Dir) SetRecovered(r Recovered) error {
	b, err := encode(r)
	if err != nil {
		return err
	}
	return d.write(recoveredFile, b)
}

// Exists tells whether there is a node's data folder at path, without touching it.
func Exists(path string) (bool, error) {
	_, err := os.Stat(filepath.Join(path, nodeFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
