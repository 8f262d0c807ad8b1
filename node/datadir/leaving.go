package datadir

import (
	"os"
	"path/filepath"
)

const leavingFile = "leaving"

// Leaving says whether the node was asked to leave its cluster and has not done so.
func (d *Dir) Leaving() bool {
	_, err := os.Stat(filepath.Join(d.path, leavingFile))
	return err == nil
}

// SetLeaving remembers that the node was asked to leave, or that it no longer is, once that survives a power loss.
func (d *Dir) SetLeaving(leaving bool) error {
	if leaving {
		return d.write(leavingFile, []byte("asked to leave the cluster; `imctl node drain --cancel` takes that back\n"))
	}
	return d.remove(leavingFile)
}
