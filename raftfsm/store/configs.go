package store

import (
	"sync"

	"github.com/hashicorp/raft"
)

// configTracker knows the newest configuration in the log, and its index. Raft goes by this one whether it is committed or
// not; raft.GetConfiguration returns it too, but in v1.7.3 always with index 0, and without the index a change cannot be
// made to depend on what it was decided upon.
//
// Safe for use by several goroutines.
type configTracker struct {
	mu   sync.Mutex
	list []indexedConfig // guarded by mu: rising
}

type indexedConfig struct {
	index uint64
	raft.Configuration
}

// keepConfigs is how many configurations stay for the case that the log is cut back. Raft allows one uncommitted
// configuration at a time, so no more than the newest can be cut off.
const keepConfigs = 4

// appended: the entry index of the log is a configuration.
func (t *configTracker) appended(index uint64, c raft.Configuration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutLocked(index)
	t.list = append(t.list, indexedConfig{index, c})
	if n := len(t.list) - keepConfigs; n > 0 {
		t.list = append(t.list[:0], t.list[n:]...)
	}
}

// truncated: the log has lost index and what followed.
func (t *configTracker) truncated(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutLocked(index)
}

// installed: a snapshot stands for the log up to its index; of the configurations up to there, its own is the newest.
func (t *configTracker) installed(m *raft.SnapshotMeta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []indexedConfig{{m.ConfigurationIndex, m.Configuration}}
	for _, c := range t.list {
		if c.index > m.Index {
			list = append(list, c)
		}
	}
	t.list = list
}

func (t *configTracker) cutLocked(index uint64) {
	n := len(t.list)
	for n > 0 && t.list[n-1].index >= index {
		n--
	}
	t.list = t.list[:n]
}

// latest returns the newest configuration; the caller must not change it.
func (t *configTracker) latest() indexedConfig {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		return indexedConfig{}
	}
	return t.list[len(t.list)-1]
}
