package node

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// folderEvery is the time between two looks at the data folder.
const folderEvery = 5 * time.Second

// watchFolder ends the node when its data folder is deleted, moved or replaced: whatever it agrees to from then on would be
// forgotten at its end, and a voter must not forget.
func (n *Node) watchFolder(ctx context.Context) error {
	for sleep(ctx, folderEvery) {
		if err := n.dir.Check(); err != nil {
			return n.fail(fmt.Errorf("%w; if it cannot be put back, remove this node (imctl node remove %s) and let it join again as a new member", err, n.name))
		}
	}
	return nil
}

// checkMachine says at the start what of this machine will limit the node. Only what cannot work is an error.
func (n *Node) checkMachine() error {
	if limit, ok := openFileLimit(); ok {
		// A connection is a file; some hundred more are ours.
		if need := uint64(n.cfg.MaxSessions) + 512; limit < need {
			n.log.Warn(fmt.Sprintf("the limit of open files is %d: no more than about %d clients can connect (max-sessions is %d); raise it with ulimit -n or LimitNOFILE=",
				limit, max(int64(limit)-512, 0), n.cfg.MaxSessions))
		}
	}
	free, err := n.dir.Free()
	if err != nil {
		return fmt.Errorf("free space of %s: %w", n.cfg.Data, err)
	}
	if free < n.cfg.MinFreeDisk {
		n.log.Warn("the disk of the data folder is nearly full: the node will not be ready", "free_bytes", free, "wanted_bytes", n.cfg.MinFreeDisk)
	}
	n.log.Debug("machine", "cpus", runtime.GOMAXPROCS(0), "free_disk_bytes", free)
	return nil
}
