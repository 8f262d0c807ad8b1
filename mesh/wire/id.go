package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxClientID is the longest client id, MaxTenant the longest tenant, in bytes.
const (
	MaxClientID = 255
	MaxTenant   = 64
)

// NodeID names a node for ever: random, made at its first start and kept in its data folder. Zero means none.
// Its text form is sixteen hex digits, which is also its Raft server id.
type NodeID uint64

func (n NodeID) String() string { return fmt.Sprintf("%016x", uint64(n)) }

// MarshalText makes NodeID hex in JSON.
func (n NodeID) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *NodeID) UnmarshalText(b []byte) error {
	id, err := ParseNodeID(string(b))
	*n = id
	return err
}

// ParseNodeID reads sixteen hex digits.
func ParseNodeID(s string) (NodeID, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 || v == 0 {
		return 0, fmt.Errorf("node id %q: want sixteen hex digits", s)
	}
	return NodeID(v), nil
}

// Incarnation is the number Raft gives a node at each NodeUp. Zero means none.
type Incarnation uint64

// Boot counts the starts of one data folder.
type Boot uint64

// Epoch fences owners: (generation, counter), raised by the state machine at each registration. Zero means none.
type Epoch uint64

// EpochCounterBits is the width of an Epoch's counter; its generation stands above it.
const EpochCounterBits = 48

// MakeEpoch joins a generation and a counter.
func MakeEpoch(generation uint16, counter uint64) Epoch {
	return Epoch(uint64(generation)<<EpochCounterBits | counter&(1<<EpochCounterBits-1))
}

// Generation is raised when a cluster is recovered after a lost majority.
func (e Epoch) Generation() uint16 { return uint16(e >> EpochCounterBits) }

// Counter is the part that rises with each registration of one generation.
func (e Epoch) Counter() uint64 { return uint64(e) & (1<<EpochCounterBits - 1) }

// SessionID names one live connection of a client: the SDK's random instance and its rising attempt number.
type SessionID struct {
	Instance uint64 `cbor:"1,keyasint" json:"instance,string"`
	Attempt  uint64 `cbor:"2,keyasint" json:"attempt,string"`
}

func (s SessionID) String() string { return fmt.Sprintf("%016x.%d", s.Instance, s.Attempt) }

// MessageID names a message for ever: the sender's SDK instance and a counter that rises with each send.
type MessageID struct {
	Instance uint64 `cbor:"1,keyasint" json:"instance,string"`
	Counter  uint64 `cbor:"2,keyasint" json:"counter,string"`
}

func (m MessageID) String() string { return fmt.Sprintf("%016x.%d", m.Instance, m.Counter) }

// ParseMessageID reads what MessageID.String wrote.
func ParseMessageID(s string) (MessageID, error) {
	a, b, ok := strings.Cut(s, ".")
	i, err1 := strconv.ParseUint(a, 16, 64)
	c, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || len(a) != 16 || err1 != nil || err2 != nil {
		return MessageID{}, fmt.Errorf("message id %q: want sixteen hex digits, a dot and a number", s)
	}
	return MessageID{i, c}, nil
}

// Sender is the instance under which a client's messages travel: bound to who it is, so that no client can send under the
// message ids of another one, whatever instance it claims. It hides the instance that was logged in with.
func Sender(c ClientID, instance uint64) uint64 {
	b := make([]byte, 0, 8+MaxTenant+1+MaxClientID)
	b = binary.BigEndian.AppendUint64(b, instance)
	b = append(append(append(b, c.Tenant...), 0xff), c.ID...)
	sum := sha256.Sum256(b)
	return max(binary.BigEndian.Uint64(sum[:]), 1) // zero means none
}

// ClientID is a client's name within its tenant. An optional single "/" separates user and device.
type ClientID struct {
	Tenant string `cbor:"1,keyasint,omitempty" json:"tenant,omitempty"`
	ID     string `cbor:"2,keyasint" json:"client"`
}

func (c ClientID) String() string {
	if c.Tenant == "" {
		return c.ID
	}
	return c.Tenant + ":" + c.ID
}

// User is the part of the id before "/", or all of it.
func (c ClientID) User() string {
	user, _, _ := strings.Cut(c.ID, "/")
	return user
}

// Hash spreads (tenant, user) so that the devices of one user stay together. It is the same on every node and in every
// version: tables and lanes are laid out by it.
func (c ClientID) Hash() uint64 { return hashPair(c.Tenant, c.User()) }

// HashID spreads the whole id; like Hash it never changes. Without a device it is the same as Hash.
func (c ClientID) HashID() uint64 { return hashPair(c.Tenant, c.ID) }

// Hashes gives Hash and HashID for the price of one if the id names no device.
func (c ClientID) Hashes() (user, id uint64) {
	u := c.User()
	user = hashPair(c.Tenant, u)
	if len(u) == len(c.ID) {
		return user, user
	}
	return user, c.HashID()
}

// Odd numbers with about as many ones as zeros.
const (
	hashSeed = 0x9e3779b97f4a7c15
	hashA    = 0xd6e8feb86659fd93
	hashB    = 0xa0761d6478bd642f
)

func hashPair(tenant, s string) uint64 {
	h := uint64(hashSeed)
	if tenant != "" {
		h = hashText(h, tenant)
	}
	return hashText(h, s)
}

// hashText folds eight bytes at a time: it runs several times for each message. The length goes in as well, so that the
// border between two texts counts.
func hashText(h uint64, s string) uint64 {
	h = fold(h^uint64(len(s)), hashB)
	for ; len(s) >= 8; s = s[8:] {
		h = fold(h^(uint64(s[0])|uint64(s[1])<<8|uint64(s[2])<<16|uint64(s[3])<<24|
			uint64(s[4])<<32|uint64(s[5])<<40|uint64(s[6])<<48|uint64(s[7])<<56), hashA)
	}
	var rest uint64
	for i := range len(s) {
		rest |= uint64(s[i]) << (8 * i)
	}
	return fold(h^rest^hashSeed, hashB)
}

// fold multiplies to 128 bits and joins the halves, so that every bit of h reaches every bit of the result.
func fold(h, k uint64) uint64 {
	hi, lo := bits.Mul64(h, k)
	return hi ^ lo
}

// Validate says what is wrong with an id and what a right one looks like.
func (c ClientID) Validate() error {
	if len(c.Tenant) > MaxTenant {
		return fmt.Errorf("tenant is %d bytes long: at most %d", len(c.Tenant), MaxTenant)
	}
	if err := validText(c.Tenant, "tenant"); err != nil {
		return err
	}
	if strings.ContainsAny(c.Tenant, ":/") {
		return errors.New("tenant: must not contain ':' or '/'")
	}
	if c.ID == "" {
		return errors.New("client id is empty: want 1 to 255 bytes of UTF-8")
	}
	if len(c.ID) > MaxClientID {
		return fmt.Errorf("client id is %d bytes long: at most %d", len(c.ID), MaxClientID)
	}
	if err := validText(c.ID, "client id"); err != nil {
		return err
	}
	if user, device, ok := strings.Cut(c.ID, "/"); ok && (user == "" || device == "" || strings.Contains(device, "/")) {
		return fmt.Errorf("client id %q: a single '/' between user and device, neither of them empty", c.ID)
	}
	return nil
}

func validText(s, what string) error {
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
		case c < 0x20 || c == 0x7f:
			return fmt.Errorf("%s: control characters are not allowed", what)
		case c == '*':
			return fmt.Errorf("%s: '*' is not allowed, it is kept for patterns", what)
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s: not valid UTF-8", what)
	}
	if strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return fmt.Errorf("%s: control characters are not allowed", what)
	}
	return nil
}

// NewID returns a random non-zero 64-bit number to name an instance or a node.
func NewID() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if v := binary.BigEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}

// Addrs is where a node can be reached, as others should dial it (its advertised addresses).
type Addrs struct {
	Mesh      string `cbor:"1,keyasint,omitempty" json:"mesh"`
	ClientTCP string `cbor:"2,keyasint,omitempty" json:"client_tcp"`
	ClientWS  string `cbor:"3,keyasint,omitempty" json:"client_ws"`
	Admin     string `cbor:"4,keyasint,omitempty" json:"admin"`
}
