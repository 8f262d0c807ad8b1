package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imroute/mesh/wire"
)

// First byte of every stream.
const (
	streamHello byte = 1
	streamRaft  byte = 2
	streamCall  byte = 3
	streamLane  byte = 4
)

const (
	alpnRaft = "imroute-raft/1"
	alpnData = "imroute-data/1"
	alpnJoin = "imroute-join/1"

	maxHello = 1024
)

// connKind tells the two connections of a pair apart; it indexes peer.slots.
type connKind int

const (
	kindRaft connKind = iota
	kindData
	kinds
)

func (k connKind) String() string { return [...]string{"raft", "data"}[k] }

func (k connKind) alpn() string { return [...]string{alpnRaft, alpnData}[k] }

func kindOfALPN(proto string) (connKind, bool) {
	switch proto {
	case alpnRaft:
		return kindRaft, true
	case alpnData:
		return kindData, true
	}
	return 0, false
}

// hello is what both sides say before a connection is used. The answer means that the connection is accepted; a refusal is
// the connection's close reason instead.
type hello struct {
	Node    wire.NodeID `cbor:"1,keyasint"`
	Process uint64      `cbor:"2,keyasint"`
	Lanes   int         `cbor:"3,keyasint,omitempty"`
	Probe   bool        `cbor:"4,keyasint,omitempty"` // only wants to know who answers: replaces nothing
}

func writeHello(w io.Writer, h *hello, withKind bool) error {
	body, err := wire.Marshal(h)
	if err != nil {
		return err
	}
	b := make([]byte, 0, 3+len(body))
	if withKind {
		b = append(b, streamHello)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

func readHello(r io.Reader) (*hello, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxHello {
		return nil, fmt.Errorf("hello of %d bytes: at most %d", n, maxHello)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return parseHello(b)
}

func parseHello(b []byte) (*hello, error) {
	var h hello
	if err := wire.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	if h.Node == 0 || h.Process == 0 || h.Lanes < 0 || h.Lanes > MaxLanes {
		return nil, errors.New("hello: a field is missing or out of range")
	}
	return &h, nil
}
