package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire/mutate"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// disk is the bbolt file with the mitigations around it. Raft sees it as its LogStore; stable is its other half. Methods of
// raft.LogStore end the calling goroutine after a failure, see failStop: they are for Raft's own goroutines.
//
// Safe for use by several goroutines.
type disk struct {
	db       db
	fail     *failStop
	deadline time.Duration
	configs  *configTracker

	fsync     histogram
	writes    chan struct{} // one token: a snapshot may be due
	logBytes  atomic.Int64  // appended since the newest snapshot
	snapBytes atomic.Int64  // logBytes at which a snapshot is due
	counting  atomic.Bool   // NewRaft is reading the log behind the snapshot: what it reads counts as appended
}

var _ raft.LogStore = (*disk)(nil)

// deleteChunk is how many entries one transaction deletes. bbolt has one writer: a transaction that drops a hundred thousand
// entries would hold up appends, and with them heartbeats, for seconds.
const deleteChunk = 1024

// write does one durable write.
//
// Issue 503 of hashicorp/raft: a leader whose disk hangs in StoreLogs goes on sending heartbeats and stays leader of a
// cluster that makes no progress. Hence the deadline. Issue 614: a node whose writes fail steps down, is elected again, fails
// again. And what a failed fsync left on the disk is unknown, so a second try may succeed over lost pages. Hence no second
// try: the first error is the end.
func (d *disk) write(what string, fn func() error) {
	if d.fail.hasFailed() != nil {
		d.fail.halt(nil)
	}
	timer := time.AfterFunc(d.deadline, func() {
		d.fail.fail(fmt.Errorf("%s: the disk did not answer within %v; check the disk, then start the node again", what, d.deadline))
	})
	start := time.Now()
	err := guard(fn)
	timer.Stop()
	d.fsync.observe(time.Since(start))
	if err != nil {
		d.fail.halt(fmt.Errorf("%s: %w; check the disk and its free space, then start the node again", what, err))
	}
	if d.fail.hasFailed() != nil {
		d.fail.halt(nil) // it came too late: nothing may be acknowledged any more
	}
}

// StoreLogs appends entries.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	size := int64(0)
	for i, l := range logs {
		sealed[i] = seal(l)
		size += int64(len(l.Data) + len(l.Extensions))
	}
	d.write("append to the Raft log", func() error {
		mutate.StallDisk()
		return d.db.StoreLogs(sealed)
	})
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			d.configs.appended(l.Index, raft.DecodeConfiguration(l.Data))
		}
	}
	d.logBytes.Add(size)
	select {
	case d.writes <- struct{}{}:
	default:
	}
	return nil
}

// StoreLog appends one entry.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// GetLog reads one entry. A damaged one is fatal: Raft would panic over it, or skip it.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	err := d.getLog(index, l)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	d.fail.halt(fmt.Errorf("entry %d of the Raft log is damaged: %w; %s", index, err, wipe))
	return nil
}

func (d *disk) getLog(index uint64, l *raft.Log) error {
	if err := guard(func() error { return d.db.GetLog(index, l) }); err != nil {
		return err
	}
	if err := unseal(index, l); err != nil {
		return err
	}
	if d.counting.Load() {
		d.logBytes.Add(int64(len(l.Data) + len(l.Extensions)))
		if l.Type == raft.LogConfiguration {
			d.configs.appended(l.Index, raft.DecodeConfiguration(l.Data))
		}
	}
	return nil
}

// FirstIndex is the first index in the log, 0 if it is empty.
func (d *disk) FirstIndex() (uint64, error) { return d.bound("first", d.db.FirstIndex) }

// LastIndex is the last index in the log, 0 if it is empty.
func (d *disk) LastIndex() (uint64, error) { return d.bound("last", d.db.LastIndex) }

func (d *disk) bound(which string, fn func() (uint64, error)) (i uint64, err error) {
	if i, err = guardIndex(fn); err != nil {
		d.fail.halt(fmt.Errorf("read the %s index of the Raft log: %w; %s", which, err, wipe))
	}
	return i, nil
}

func guardIndex(fn func() (uint64, error)) (i uint64, err error) {
	err = guard(func() (err error) {
		i, err = fn()
		return err
	})
	return i, err
}

// DeleteRange drops the entries low to high, both included, in several transactions. A crash between two of them must leave
// a log without a hole: a suffix (entries that a new leader overrules) goes from its end, a prefix (compaction) from its start.
func (d *disk) DeleteRange(low, high uint64) error {
	last, err := d.LastIndex()
	if err != nil {
		return err
	}
	what := "compact the Raft log"
	suffix := high >= last
	if suffix {
		what = "cut the Raft log back"
		high = min(high, last)
	}
	for low <= high {
		a, b := low, high
		if suffix {
			a = max(low, high-min(high, deleteChunk-1))
			high = a - 1
		} else {
			b = min(high, low+deleteChunk-1)
			low = b + 1
		}
		d.write(what, func() error { return d.db.DeleteRange(a, b) })
		if suffix {
			d.configs.truncated(a)
			if a == 0 {
				break
			}
		}
	}
	return nil
}

// seal returns a copy of l with a checksum in front of its Extensions. bbolt checks none of its pages but the header's, and
// the state machine's own checksum covers neither terms nor configurations: a flipped bit in a term would let two logs
// differ unnoticed. The copy shares Data; l, which is on its way to the followers, stays as it is.
func seal(l *raft.Log) *raft.Log {
	c := *l
	c.Extensions = make([]byte, 4, 4+len(l.Extensions))
	binary.LittleEndian.PutUint32(c.Extensions, logSum(l))
	c.Extensions = append(c.Extensions, l.Extensions...)
	return &c
}

// unseal checks what seal made and undoes it.
func unseal(index uint64, l *raft.Log) error {
	if len(l.Extensions) < 4 {
		return fmt.Errorf("%w: the entry has no checksum", ErrDamaged)
	}
	want := binary.LittleEndian.Uint32(l.Extensions)
	if l.Extensions = l.Extensions[4:]; len(l.Extensions) == 0 {
		l.Extensions = nil
	}
	if got := logSum(l); got != want {
		return fmt.Errorf("%w: checksum %08x, want %08x", ErrDamaged, got, want)
	}
	if l.Index != index {
		return fmt.Errorf("%w: it is entry %d", ErrDamaged, l.Index)
	}
	return nil
}

// logSum covers all of an entry but AppendedAt, which decides nothing and loses its monotonic part on the way to the disk.
func logSum(l *raft.Log) uint32 {
	var h [25]byte
	binary.LittleEndian.PutUint64(h[0:], l.Index)
	binary.LittleEndian.PutUint64(h[8:], l.Term)
	binary.LittleEndian.PutUint64(h[16:], uint64(len(l.Data)))
	h[24] = byte(l.Type)
	return crc32.Update(crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, l.Data), castagnoli, l.Extensions)
}
