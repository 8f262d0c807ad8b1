package discover

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"imroute/mesh/wire"
)

// An announcement on the wire:
//
//	"IMRD"     magic
//	version    1 byte, 1
//	state      1 byte, a State; repeated nowhere else
//	length     1 byte, then so many bytes: the cluster's name
//	body       CBOR map with integer keys, see Announcement
//	mac        32 bytes, HMAC-SHA-256 over everything before it
//
// Magic, version, state and name stay where they are in every version to come: by them a node can say why it does not
// understand another one. Nothing of the body is looked at before the mac was checked.
const (
	magic     = "IMRD"
	version   = 1
	headBytes = len(magic) + 3
	macBytes  = sha256.Size

	// MaxPacket is the largest announcement in bytes: what an Ethernet frame holds.
	MaxPacket = 1472
	// maxView is how many nodes an announcement names at most: they must fit into a packet, 20 bytes each.
	maxView = 48
	maxAddr = 128
)

// State is what a node announces itself as.
type State uint8

const (
	Seeking  State = 1 // it looks for a cluster to join, or for others to found one with
	Founding State = 2 // it has decided to found a cluster and cannot be joined yet
	Member   State = 3 // it belongs to a cluster
)

func (s State) String() string {
	switch s {
	case Seeking:
		return "seeking"
	case Founding:
		return "founding"
	case Member:
		return "member"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Seen is one process of a node: a restart is another one.
type Seen struct {
	_        struct{}    `cbor:",toarray"`
	Node     wire.NodeID //
	Instance uint64      // random in each process
}

// Announcement is what a node says of itself.
type Announcement struct {
	State    State       `cbor:"-"`
	Node     wire.NodeID `cbor:"1,keyasint"`
	Instance uint64      `cbor:"2,keyasint"`
	Seq      uint64      `cbor:"3,keyasint"`           // rises with each announcement of a process
	Name     string      `cbor:"4,keyasint,omitempty"` // the node's label
	Dev      bool        `cbor:"5,keyasint,omitempty"` // in development mode
	Expect   uint32      `cbor:"6,keyasint,omitempty"` // seekers: found only when so many are there
	// View has, sorted, the seekers that a seeker hears, itself included, up to the maxView lowest; of the others, whom they
	// have just heard that wants to know.
	View    []Seen   `cbor:"7,keyasint,omitempty"`
	Mesh    string   `cbor:"8,keyasint,omitempty"`  // members: where to join
	Cluster uint64   `cbor:"9,keyasint,omitempty"`  // members: the cluster's id
	CAHash  [32]byte `cbor:"10,keyasint,omitempty"` // members: hash of the cluster's CA
}

// names tells whether the sender has heard that process.
func (a *Announcement) names(s Seen) bool {
	for _, v := range a.View {
		if v.Node == s.Node && v.Instance == s.Instance {
			return true
		}
	}
	return false
}

// Why an announcement is not taken. The texts are label values of a metric.
var (
	errForeign = errors.New("malformed")      // not an announcement at all, or a broken one
	errVersion = errors.New("version")        // of another version of the protocol
	errName    = errors.New("other_cluster")  // of a cluster of another name
	errSecret  = errors.New("wrong_secret")   // of our name, made with another secret
	errBody    = errors.New("malformed_body") // made with our secret, and still of no use
)

// seal encodes an announcement.
func (k *Key) seal(a *Announcement) ([]byte, error) {
	b := make([]byte, 0, 512)
	b = append(b, magic...)
	b = append(b, version, byte(a.State), byte(len(k.cluster)))
	b = append(b, k.cluster...)
	body, err := wire.Marshal(a)
	if err != nil {
		return nil, err
	}
	b = append(b, body...)
	b = k.mac(b).Sum(b)
	if len(b) > MaxPacket {
		return nil, fmt.Errorf("announcement of %d bytes: at most %d", len(b), MaxPacket)
	}
	return b, nil
}

func (k *Key) mac(b []byte) interface{ Sum([]byte) []byte } {
	m := hmac.New(sha256.New, k.announce)
	_, _ = m.Write(b) // never fails
	return m
}

// open checks and decodes an announcement, which shares nothing with b. With errVersion and errSecret it returns the state
// that the announcement claims, and nothing else.
func (k *Key) open(b []byte) (*Announcement, error) {
	if len(b) < headBytes || len(b) > MaxPacket || string(b[:len(magic)]) != magic {
		return nil, errForeign
	}
	ver, state, nameLen := b[len(magic)], State(b[len(magic)+1]), int(b[len(magic)+2])
	if len(b) < headBytes+nameLen+macBytes {
		return nil, errForeign
	}
	if string(b[headBytes:headBytes+nameLen]) != k.cluster {
		return nil, errName
	}
	if ver != version {
		return &Announcement{State: state}, errVersion
	}
	signed, mac := b[:len(b)-macBytes], b[len(b)-macBytes:]
	if !hmac.Equal(mac, k.mac(signed).Sum(nil)) {
		return &Announcement{State: state}, errSecret
	}
	a := &Announcement{}
	if err := wire.Unmarshal(signed[headBytes+nameLen:], a); err != nil {
		return nil, errBody
	}
	a.State = state
	if !a.valid() {
		return nil, errBody
	}
	return a, nil
}

func (a *Announcement) valid() bool {
	switch {
	case a.State < Seeking || a.State > Member, a.Node == 0, a.Seq == 0, len(a.View) > maxView, len(a.Mesh) > maxAddr, len(a.Name) > 255:
		return false
	case a.State == Member && (a.Mesh == "" || a.Cluster == 0 || a.CAHash == [32]byte{}):
		return false
	}
	return true
}
