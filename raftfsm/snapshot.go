package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"

	"imroute/mesh/wire"
)

// A snapshot is magic (8 bytes) · format version (2, big-endian) · chunks: one header, nodes, tokens, removed ids, routes, topics,
// API keys, one trailer, and nothing behind it. Only version 2 has topics; it is what is written once the cluster agreed on
// TopicFeatureLevel, so that members of a mixed cluster can read each other's before. A chunk is
//
//	kind (1 byte) · length of the payload (4, big-endian) · payload · CRC-32C (4)
//
// The checksum goes on from that of the chunk before, so that chunks cannot be lost, repeated or exchanged either. Routes
// and topics are packed rows, all else is CBOR.
const (
	snapshotMagic   = "imrtsnap"
	snapshotVersion = 2 // the highest that is read
	versionNoTopics = 1

	chunkHeader  = 1
	chunkNode    = 2
	chunkTokens  = 3
	chunkRemoved = 4
	chunkRoutes  = 5
	chunkTrailer = 6
	chunkTopics  = 7 // before the trailer, whatever its number
	chunkKeys    = 8 // likewise; only from KeyFeatureLevel on, which programs without it refuse by the header

	routesChunk = 64 << 10  // bytes after which a chunk of routes or topics is written
	maxChunk    = 512 << 10 // a node with the results of a full batch is the largest
	listChunk   = 500       // entries of a chunk of tokens or removed ids
	syncEvery   = 4 << 20   // bytes between two flushes to the disk

	packedRow = 4 + 2 + 24 // node u32 · tenant length u8 · id length u8 · instance, attempt, epoch u64 · tenant · id
)

// Errors of reading a snapshot, wrapped with what was found.
var (
	ErrSnapshotDamaged = errors.New("snapshot is damaged")
	ErrSnapshotForeign = errors.New("snapshot is of another cluster")
	ErrSnapshotVersion = errors.New("snapshot is newer than this program: upgrade this node")
)

type snapshotHeader struct {
	Meta    meta   `cbor:"1,keyasint"`
	Index   uint64 `cbor:"2,keyasint"`
	Nodes   int    `cbor:"3,keyasint"`
	Tokens  int    `cbor:"4,keyasint"`
	Removed int    `cbor:"5,keyasint"`
	Routes  int    `cbor:"6,keyasint"`
	Topics  int    `cbor:"7,keyasint,omitempty"` // holdings
	Keys    int    `cbor:"8,keyasint,omitempty"`
}

type snapshotNode struct {
	Node  Node      `cbor:"1,keyasint"`
	Batch lastBatch `cbor:"2,keyasint"`
}

type snapshotTrailer struct {
	Chunks int `cbor:"1,keyasint"`
	Routes int `cbor:"2,keyasint"`
	Topics int `cbor:"3,keyasint,omitempty"` // holdings
}

// chunkWriter writes chunks and lets others run in between. If what it writes to can be flushed, it is, in bounded pieces: one
// flush of everything at the end would stall the log's.
type chunkWriter struct {
	w      io.Writer
	crc    uint32
	chunks int
	since  int
	buf    []byte
}

func (cw *chunkWriter) begin(version uint16) error {
	b := binary.BigEndian.AppendUint16([]byte(snapshotMagic), version)
	cw.crc = crc32.Checksum(b, castagnoli)
	_, err := cw.w.Write(b)
	return err
}

func (cw *chunkWriter) chunk(kind byte, payload []byte) error {
	if len(payload) > maxChunk {
		return fmt.Errorf("chunk of %d bytes, at most %d", len(payload), maxChunk)
	}
	cw.buf = append(cw.buf[:0], kind)
	cw.buf = binary.BigEndian.AppendUint32(cw.buf, uint32(len(payload)))
	cw.buf = append(cw.buf, payload...)
	cw.crc = crc32.Update(cw.crc, castagnoli, cw.buf)
	cw.buf = binary.BigEndian.AppendUint32(cw.buf, cw.crc)
	if _, err := cw.w.Write(cw.buf); err != nil {
		return err
	}
	cw.chunks++
	runtime.Gosched()
	if cw.since += len(cw.buf); cw.since < syncEvery {
		return nil
	}
	cw.since = 0
	if s, ok := cw.w.(interface{ Sync() error }); ok {
		return s.Sync()
	}
	return nil
}

func (cw *chunkWriter) value(kind byte, v any) error {
	b, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	return cw.chunk(kind, b)
}

// WriteSnapshot writes the view as a snapshot, 64 KiB at a time. If w has a Sync method it is called every few MiB.
func (v *View) WriteSnapshot(w io.Writer) error {
	cw := &chunkWriter{w: w}
	if err := v.writeSnapshot(cw); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (v *View) writeSnapshot(cw *chunkWriter) error {
	version := uint16(snapshotVersion)
	if v.meta.FeatureLevel < TopicFeatureLevel {
		version = versionNoTopics
	}
	if err := cw.begin(version); err != nil {
		return err
	}
	err := cw.value(chunkHeader, snapshotHeader{v.meta, v.Index, len(v.members), len(v.tokens), len(v.removed), v.rows, v.holds, len(v.keys)})
	if err != nil {
		return err
	}
	ordinals := make(map[wire.NodeID]uint32, len(v.members))
	for i := range v.members {
		m := &v.members[i]
		ordinals[m.ID] = uint32(i)
		if err := cw.value(chunkNode, snapshotNode{m.Node, m.batch}); err != nil {
			return err
		}
	}
	for list := v.tokens; len(list) > 0; list = list[min(listChunk, len(list)):] {
		if err := cw.value(chunkTokens, list[:min(listChunk, len(list))]); err != nil {
			return err
		}
	}
	for list := v.removed; len(list) > 0; list = list[min(listChunk, len(list)):] {
		if err := cw.value(chunkRemoved, list[:min(listChunk, len(list))]); err != nil {
			return err
		}
	}
	routes, err := v.writeRoutes(cw, ordinals)
	if err != nil {
		return err
	}
	topics, err := v.writeTopics(cw, ordinals)
	if err != nil {
		return err
	}
	for list := v.keys; len(list) > 0; list = list[min(listChunk, len(list)):] {
		if err := cw.value(chunkKeys, list[:min(listChunk, len(list))]); err != nil {
			return err
		}
	}
	return cw.value(chunkTrailer, snapshotTrailer{cw.chunks + 1, routes, topics})
}

func (v *View) writeRoutes(cw *chunkWriter, ordinals map[wire.NodeID]uint32) (routes int, err error) {
	byOwner := make([]uint32, len(v.owners))
	for i, o := range v.owners {
		byOwner[i] = ordinals[o.node]
	}
	buf := make([]byte, 0, routesChunk+packedRow+wire.MaxTenant+wire.MaxClientID)
	for i := range v.stripes {
		v.stripes[i].eachPage(func(p page) bool {
			return p.each(func(_ uint16, off int) bool {
				ord := p.owner(off)
				if !v.owners[ord].live {
					return true
				}
				row := p.row(off)
				buf = le.AppendUint32(buf, byOwner[ord])
				buf = append(buf, row[28], row[29])
				buf = append(buf, row[4:28]...)
				buf = append(buf, row[rowHeader:]...)
				routes++
				if len(buf) >= routesChunk {
					err = cw.chunk(chunkRoutes, buf)
					buf = buf[:0]
				}
				return err == nil
			})
		})
		if err != nil {
			return routes, err
		}
	}
	if len(buf) > 0 {
		err = cw.chunk(chunkRoutes, buf)
	}
	return routes, err
}
