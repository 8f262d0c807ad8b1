package store

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft"
)

// A snapshot is one file, so that it is either whole under its name or not there:
//
//	"imrsnap1" · u32 length of meta · u32 CRC-32C of meta · meta (JSON) · state … · trailer
//	trailer: u64 length of state · u32 CRC-32C of state · u32 CRC-32C of the 12 bytes before
//
// Integers are big-endian. raft.FileSnapshotStore is not used because it has no checksum over its meta file (index, term and
// configuration), passes over a snapshot whose meta file it cannot read as if there were none, and syncs only at the end.
const (
	snapMagic   = "imrsnap1"
	snapHead    = 16
	snapTrailer = 16
	// maxSnapMeta bounds the meta part before anything is allocated for it.
	maxSnapMeta = 1 << 20
	// syncEvery is how much of a snapshot may wait in the page cache. One flush of it all at the end would hold up the
	// log's fsyncs for as long as it takes, and a leader without them is no leader.
	syncEvery = 4 << 20
)

// encodeHead makes what precedes the state.
func encodeHead(m *raft.SnapshotMeta) ([]byte, error) {
	js, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, snapHead+len(js)), snapMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(js)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(js, castagnoli))
	return append(b, js...), nil
}

func encodeTrailer(size int64, sum uint32) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, snapTrailer), uint64(size))
	b = binary.BigEndian.AppendUint32(b, sum)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readSnapshot checks everything about a snapshot but the state itself, whose length must be what the file leaves for it.
// It returns where the state begins and its checksum.
func readSnapshot(r io.ReaderAt, fileSize int64) (m *raft.SnapshotMeta, start int64, sum uint32, err error) {
	bad := func(what string) (*raft.SnapshotMeta, int64, uint32, error) {
		return nil, 0, 0, fmt.Errorf("%w: %s", ErrDamaged, what)
	}
	if fileSize < snapHead+snapTrailer {
		return bad("the file was cut short")
	}
	var h [snapHead]byte
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return nil, 0, 0, err
	}
	if string(h[:8]) != snapMagic {
		return bad("it is not a snapshot, or of a version not known here")
	}
	n := int64(binary.BigEndian.Uint32(h[8:]))
	if n > maxSnapMeta || n > fileSize-snapHead-snapTrailer {
		return bad("its description is too long")
	}
	js := make([]byte, n)
	if _, err := r.ReadAt(js, snapHead); err != nil {
		return nil, 0, 0, err
	}
	if crc32.Checksum(js, castagnoli) != binary.BigEndian.Uint32(h[12:]) {
		return bad("its description has a wrong checksum")
	}
	m = new(raft.SnapshotMeta)
	if err := json.Unmarshal(js, m); err != nil {
		return bad("its description: " + err.Error())
	}
	var t [snapTrailer]byte
	if _, err := r.ReadAt(t[:], fileSize-snapTrailer); err != nil {
		return nil, 0, 0, err
	}
	if crc32.Checksum(t[:12], castagnoli) != binary.BigEndian.Uint32(t[12:]) {
		return bad("its end is missing or has a wrong checksum")
	}
	start = snapHead + n
	m.Size = fileSize - snapTrailer - start
	if uint64(m.Size) != binary.BigEndian.Uint64(t[:]) {
		return bad("its length is wrong")
	}
	if m.Version < raft.SnapshotVersionMin || m.Version > raft.SnapshotVersionMax || m.Index == 0 || m.Term == 0 {
		return bad(fmt.Sprintf("version %d, index %d, term %d make no sense", m.Version, m.Index, m.Term))
	}
	return m, start, binary.BigEndian.Uint32(t[8:]), nil
}

// snapSink writes a snapshot. One goroutine uses it.
type snapSink struct {
	s    *snapStore
	meta raft.SnapshotMeta
	f    *os.File
	w    *bufio.Writer
	tmp  string

	size     int64
	unsynced int64
	sum      uint32
	err      error // of the first Write that failed: what follows would be a snapshot with a hole
	done     bool
}

var _ raft.SnapshotSink = (*snapSink)(nil)

// ID names the snapshot.
func (k *snapSink) ID() string { return k.meta.ID }

// Write appends to the state. A failing disk is fatal, as it is for the log.
func (k *snapSink) Write(b []byte) (int, error) {
	if k.done {
		return 0, os.ErrClosed
	}
	if k.s.fail.closing.Load() {
		k.err = ErrClosed // a snapshot can take long; Store.Close does not wait for it
	}
	if k.err != nil {
		return 0, k.err
	}
	n, err := k.w.Write(b)
	k.sum = crc32.Update(k.sum, castagnoli, b[:n])
	k.size += int64(n)
	if k.unsynced += int64(n); err == nil && k.unsynced >= syncEvery {
		err = k.flush()
	}
	if err != nil {
		k.err = err
		k.s.failed("write", k.tmp, err)
	}
	return n, err
}

func (k *snapSink) flush() error {
	k.unsynced = 0
	if err := k.w.Flush(); err != nil {
		return err
	}
	return k.f.Sync()
}

// Close finishes the snapshot: once it returns nil the snapshot survives a power loss. After a Write that failed it drops the
// snapshot, whatever the state machine made of the error.
func (k *snapSink) Close() error {
	if k.done {
		return k.err
	}
	if k.err != nil {
		return errors.Join(k.err, k.Cancel())
	}
	k.done = true
	err := func() error {
		if _, err := k.w.Write(encodeTrailer(k.size, k.sum)); err != nil {
			return err
		}
		return k.flush()
	}()
	if err := errors.Join(err, k.f.Close()); err != nil {
		k.s.failed("finish", k.tmp, err)
		return errors.Join(err, os.Remove(k.tmp))
	}
	k.meta.Size = k.size
	if err := k.s.install(k.tmp, &k.meta); err != nil {
		k.s.failed("finish", k.tmp, err)
		return err
	}
	return nil
}

// Cancel drops what was written.
func (k *snapSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.f.Close(), os.Remove(k.tmp))
}

// snapReader reads a snapshot's state and checks it: the last bytes are handed out only if the checksum of all is right.
type snapReader struct {
	s    *snapStore
	f    *os.File
	r    *bufio.Reader
	left int64
	sum  uint32
	want uint32
	err  error
}

// Read fills b from the state.
func (k *snapReader) Read(b []byte) (int, error) {
	switch {
	case k.err != nil:
		return 0, k.err
	case k.left == 0:
		return 0, io.EOF
	case k.s.fail.closing.Load():
		return 0, ErrClosed
	}
	n, err := k.r.Read(b[:min(int64(len(b)), k.left)])
	k.sum = crc32.Update(k.sum, castagnoli, b[:n])
	k.left -= int64(n)
	switch {
	case err != nil:
		k.err = fmt.Errorf("%w: %w", ErrDamaged, err)
	case k.left == 0 && k.sum != k.want:
		k.err = fmt.Errorf("%w: checksum %08x, want %08x", ErrDamaged, k.sum, k.want)
	default:
		return n, nil
	}
	k.err = fmt.Errorf("snapshot %s: %w; %s", k.f.Name(), k.err, wipe)
	k.s.damage(k.err)
	return 0, k.err
}

// Close ends reading.
func (k *snapReader) Close() error { return k.f.Close() }
