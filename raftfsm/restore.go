package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unsafe"

	"imroute/mesh/wire"
)

// ReadSnapshot reads what View.WriteSnapshot wrote, to its end, into a new table, and says at which index it was taken. With
// cluster not 0 a snapshot of another cluster is refused. The error is one of ErrSnapshotDamaged (also: too short, or with
// something behind it), ErrSnapshotForeign, ErrSnapshotVersion, or r's own.
func ReadSnapshot(r io.Reader, cluster uint64) (t *Table, index uint64, err error) {
	return readSnapshot(r, cluster, MaxFeatureLevel)
}

// readSnapshot is ReadSnapshot for a program that knows the feature levels up to known.
func readSnapshot(r io.Reader, cluster uint64, known uint32) (t *Table, index uint64, err error) {
	sr := &snapshotReader{r: r, t: NewTable(), known: known}
	if err := sr.read(cluster); err != nil {
		return nil, 0, fmt.Errorf("read snapshot: %w", err)
	}
	return sr.t, sr.header.Index, nil
}

type snapshotReader struct {
	r       io.Reader
	known   uint32 // feature levels
	crc     uint32
	chunks  int
	buf     []byte
	t       *Table
	header  snapshotHeader
	members []*member
	version uint16
	routes  int
	topics  int // holdings
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSnapshotDamaged, fmt.Sprintf(format, args...))
}

// full reads all of b; an end before that is damage, any other error the reader's own.
func (sr *snapshotReader) full(b []byte) error {
	_, err := io.ReadFull(sr.r, b)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it ends in the middle, after %d chunks", sr.chunks)
	}
	return err
}

// chunk reads one chunk. The payload is good until the next call.
func (sr *snapshotReader) chunk() (kind byte, payload []byte, err error) {
	var head [5]byte
	if err := sr.full(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxChunk {
		return 0, nil, damaged("chunk %d claims %d bytes", sr.chunks, n)
	}
	if cap(sr.buf) < int(n)+4 {
		sr.buf = make([]byte, max(int(n)+4, 2*routesChunk))
	}
	b := sr.buf[:n+4]
	if err := sr.full(b); err != nil {
		return 0, nil, err
	}
	payload = b[:n]
	crc := crc32.Update(crc32.Update(sr.crc, castagnoli, head[:]), castagnoli, payload)
	if got := binary.BigEndian.Uint32(b[n:]); got != crc {
		return 0, nil, damaged("chunk %d: checksum %08x, should be %08x", sr.chunks, crc, got)
	}
	sr.crc = crc
	sr.chunks++
	return head[0], payload, nil
}

func (sr *snapshotReader) read(cluster uint64) error {
	var start [len(snapshotMagic) + 2]byte
	if err := sr.full(start[:]); err != nil {
		return err
	}
	if string(start[:len(snapshotMagic)]) != snapshotMagic {
		return damaged("it does not begin like a snapshot of imroute")
	}
	sr.version = binary.BigEndian.Uint16(start[len(snapshotMagic):])
	if sr.version < versionNoTopics || sr.version > snapshotVersion {
		return fmt.Errorf("%w: format version %d, this program reads up to %d", ErrSnapshotVersion, sr.version, snapshotVersion)
	}
	sr.crc = crc32.Checksum(start[:], castagnoli)
	kind, payload, err := sr.chunk()
	if err != nil {
		return err
	}
	if kind != chunkHeader {
		return damaged("chunk of kind %d instead of the header", kind)
	}
	if err := sr.readHeader(payload, cluster); err != nil {
		return err
	}
	last := byte(chunkHeader)
	for {
		kind, payload, err := sr.chunk()
		if err != nil {
			return err
		}
		if kind == chunkTrailer {
			return sr.readTrailer(payload)
		}
		if kind < last || kind == chunkHeader {
			return damaged("chunk of kind %d behind one of kind %d", kind, last)
		}
		if err := sr.readChunk(kind, payload); err != nil {
			return err
		}
		last = kind
	}
}

func (sr *snapshotReader) value(payload []byte, v any) error {
	if err := wire.Unmarshal(payload, v); err != nil {
		return damaged("chunk %d: %v", sr.chunks, err)
	}
	return nil
}

func (sr *snapshotReader) readHeader(payload []byte, cluster uint64) error {
	if err := sr.value(payload, &sr.header); err != nil {
		return err
	}
	m := sr.header.Meta
	if cluster != 0 && m.ClusterID != cluster {
		return fmt.Errorf("%w: %016x, this is %016x", ErrSnapshotForeign, m.ClusterID, cluster)
	}
	if m.FeatureLevel > sr.known || m.Settings.Duplicate > DuplicateReject {
		return fmt.Errorf("%w: it needs feature level %d, this program knows %d", ErrSnapshotVersion, m.FeatureLevel, sr.known)
	}
	sr.t.meta = m
	sr.expect(sr.header.Routes, sr.header.Topics)
	return nil
}

// expect prepares the directories for rows in the order of their keys, of which that many will come. Without it most would
// end up where rows go that no sensible directory tells apart, and be searched for from end to end.
func (sr *snapshotReader) expect(routes, topics int) {
	for i := range sr.t.stripes {
		sr.t.stripes[i].root.expect = expectedPages(routes / stripes)
		sr.t.topics.stripes[i].expect = expectedPages(topics / stripes)
	}
}

// maxExpected bounds what a header can make of a directory.
const maxExpected = 1 << 16

// expectedPages is how many pages so many rows of one stripe fill at most, unless their ids are very long.
func expectedPages(rows int) int { return min(max(rows, 0)/16, maxExpected) }

func (sr *snapshotReader) readChunk(kind byte, payload []byte) error {
	t := sr.t
	switch kind {
	case chunkNode:
		var n snapshotNode
		if err := sr.value(payload, &n); err != nil {
			return err
		}
		if n.Node.ID == 0 || t.nodes[n.Node.ID] != nil || t.byName[n.Node.Name] != nil || n.Node.State > Draining {
			return damaged("node %s is there twice, or in no known state", n.Node.ID)
		}
		m := &member{Node: n.Node, batch: n.Batch}
		t.nodes[m.ID], t.byName[m.Name] = m, m
		if m.State != Down {
			m.owner = t.owners.begin(m.ID, m.Incarnation)
		}
		sr.members = append(sr.members, m)
	case chunkTokens:
		var list []Token
		if err := sr.value(payload, &list); err != nil {
			return err
		}
		for _, k := range list {
			t.tokens[k.ID] = k
		}
	case chunkRemoved:
		var list []removedNode
		if err := sr.value(payload, &list); err != nil {
			return err
		}
		for _, n := range list {
			t.removed[n.ID] = n.Index
		}
	case chunkRoutes:
		return sr.readRoutes(payload)
	case chunkTopics:
		return sr.readTopics(payload)
	case chunkKeys:
		return sr.readKeys(payload)
	default:
		return damaged("chunk of unknown kind %d", kind)
	}
	return nil
}

func (sr *snapshotReader) readRoutes(b []byte) error {
	t := sr.t
	highest := wire.MakeEpoch(t.Generation, t.Epochs)
	for len(b) > 0 {
		if len(b) < packedRow {
			return damaged("chunk %d: %d bytes behind the last route", sr.chunks, len(b))
		}
		node, tenant, id := le.Uint32(b), int(b[4]), int(b[5])
		size := packedRow + tenant + id
		if int64(node) >= int64(len(sr.members)) || id == 0 || tenant > wire.MaxTenant || len(b) < size {
			return damaged("chunk %d: malformed route", sr.chunks)
		}
		m := sr.members[node]
		v := rowValue{
			owner:   m.owner,
			session: wire.SessionID{Instance: le.Uint64(b[6:]), Attempt: le.Uint64(b[14:])},
			epoch:   wire.Epoch(le.Uint64(b[22:])),
		}
		// The strings live as long as the buffer: find and insert keep nothing of them.
		c := wire.ClientID{ID: unsafe.String(&b[packedRow+tenant], id)}
		if tenant > 0 {
			c.Tenant = unsafe.String(&b[packedRow], tenant)
		}
		b = b[size:]
		k := makeKey(c)
		s := &t.stripes[stripeOf(k.h)]
		if _, found := s.find(k); found || m.State == Down || v.epoch > highest {
			return damaged("chunk %d: route of %q is there twice, of a node that is down, or too new", sr.chunks, c.ID)
		}
		s.insert(&t.w, k, v)
		t.owners.add(m.owner)
		t.rows++
		sr.routes++
	}
	return nil
}

func (sr *snapshotReader) readTrailer(payload []byte) error {
	var end snapshotTrailer
	if err := sr.value(payload, &end); err != nil {
		return err
	}
	h, t := sr.header, sr.t
	if end.Chunks != sr.chunks || end.Routes != sr.routes || end.Topics != sr.topics || h.Topics != sr.topics || h.Routes != sr.routes || h.Nodes != len(t.nodes) ||
		h.Tokens != len(t.tokens) || h.Keys != len(t.keys) || h.Removed != len(t.removed) {
		return damaged("it has %d routes, %d holders of topics and %d nodes, and claims %d, %d and %d",
			sr.routes, sr.topics, len(t.nodes), h.Routes, h.Topics, h.Nodes)
	}
	sr.expect(0, 0)
	switch n, err := sr.r.Read(make([]byte, 1)); {
	case n > 0:
		return damaged("something follows its end")
	case err != nil && err != io.EOF:
		return err
	}
	return nil
}
