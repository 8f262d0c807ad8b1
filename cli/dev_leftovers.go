package cli

import (
	"os"
	"path/filepath"
)

// devTempPattern names the temporary folders of "imctl dev".
const devTempPattern = "imctl-dev-*"

// dataLock is the file in each node's data folder that a running node has locked, see package node/datadir.
const dataLock = "lock"

// removeLeftovers removes the temporary folders in parent whose "imctl dev" was killed, and returns them. One that anybody
// uses, a node that has outlived its "imctl dev" included, is left alone, and so is what cannot be judged: the next start
// looks again.
func removeLeftovers(parent string) (removed []string) {
	dirs, err := filepath.Glob(filepath.Join(parent, devTempPattern))
	if err != nil {
		return nil // the pattern is right
	}
	for _, dir := range dirs {
		if removeLeftover(dir) {
			removed = append(removed, dir)
		}
	}
	return removed
}

func removeLeftover(dir string) bool {
	if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
		return false
	}
	// One without nodes may just have been made by somebody who has not locked it yet.
	nodes, err := filepath.Glob(filepath.Join(dir, "*", dataLock))
	if err != nil || len(nodes) == 0 {
		return false
	}
	// All locks are taken, and given back before the files go, which not every system allows while they are open. In between
	// only another start can come, and it wants the same.
	var held []func()
	defer func() {
		for _, unlock := range held {
			unlock()
		}
	}()
	for _, path := range append([]string{filepath.Join(dir, devLock)}, nodes...) {
		if _, err := os.Stat(path); err != nil {
			return false
		}
		unlock, err := lockFile(path, 0)
		if err != nil {
			return false
		}
		held = append(held, unlock)
	}
	for _, unlock := range held {
		unlock()
	}
	held = nil
	return os.RemoveAll(dir) == nil
}
