package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unicode/utf8"

	"imroute/mesh/wire"
)

// Kind names a command. Numbers are append-only.
type Kind uint8

const (
	KindInit         Kind = 1  // ClusterID, CACert, Settings, [Level]: 0 is BaseFeatureLevel
	KindNoop         Kind = 2  // [Mark]: its index is what counts
	KindNodeJoin     Kind = 3  // Node, Name, Addrs, Version, [Role]
	KindNodeUp       Kind = 4  // Node, Boot, Addrs, Version
	KindNodeExpire   Kind = 5  // Node, Incarnation, Term
	KindNodeDrain    Kind = 6  // Node, Cancel
	KindNodeRemove   Kind = 7  // Node, By
	KindBatch        Kind = 8  // Node, Incarnation, Seq, Ops
	KindTokenCreate  Kind = 9  // ID, Hash, ExpiresUnix
	KindTokenRevoke  Kind = 10 // ID
	KindSetSettings  Kind = 11 // Settings
	KindFeatureLevel Kind = 12 // Level
	KindRecover      Kind = 13 // Generation: after a lost majority; takes every node down and voids every route
	KindNodeRole     Kind = 14 // Node, Role
	KindNodeDown     Kind = 15 // Node, Incarnation: proposed by the node itself once it delivers nothing more
	KindKeyCreate    Kind = 16 // ID, Hash, Scopes, [Name, Tenant, OneTenant, ExpiresUnix]: an API key
	KindKeyRevoke    Kind = 17 // ID
)

var kindNames = [...]string{
	KindInit: "init", KindNoop: "noop", KindNodeJoin: "node-join", KindNodeUp: "node-up", KindNodeExpire: "node-expire",
	KindNodeDrain: "node-drain", KindNodeRemove: "node-remove", KindBatch: "batch", KindTokenCreate: "token-create",
	KindTokenRevoke: "token-revoke", KindSetSettings: "set-settings", KindFeatureLevel: "feature-level", KindRecover: "recover", KindNodeRole: "node-role", KindNodeDown: "node-down",
	KindKeyCreate: "key-create", KindKeyRevoke: "key-revoke",
}

func (k Kind) known() bool { return k >= KindInit && int(k) < len(kindNames) }

func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// Command is the union of all commands; the Kinds say which fields each has. Others are left zero.
type Command struct {
	Kind        Kind             `cbor:"0,keyasint"`
	Node        wire.NodeID      `cbor:"1,keyasint,omitempty"`
	Incarnation wire.Incarnation `cbor:"2,keyasint,omitempty"`
	Seq         uint64           `cbor:"3,keyasint,omitempty"` // 1 for the first batch of an incarnation
	Ops         []Op             `cbor:"4,keyasint,omitempty"`
	Boot        wire.Boot        `cbor:"5,keyasint,omitempty"`
	Term        uint64           `cbor:"6,keyasint,omitempty"` // the leader's term when it decided
	Name        string           `cbor:"7,keyasint,omitempty"`
	Addrs       wire.Addrs       `cbor:"8,keyasint,omitzero"`
	Version     string           `cbor:"9,keyasint,omitempty"`
	Cancel      bool             `cbor:"10,keyasint,omitempty"`
	By          wire.NodeID      `cbor:"11,keyasint,omitempty"` // who proposes a removal
	ClusterID   uint64           `cbor:"12,keyasint,omitempty"`
	CACert      []byte           `cbor:"13,keyasint,omitempty"`
	Settings    Settings         `cbor:"14,keyasint,omitzero"`
	ID          string           `cbor:"15,keyasint,omitempty"` // of a token
	Hash        []byte           `cbor:"16,keyasint,omitempty"` // of a token
	ExpiresUnix int64            `cbor:"17,keyasint,omitempty"`
	Level       uint32           `cbor:"18,keyasint,omitempty"`
	Generation  uint16           `cbor:"19,keyasint,omitempty"`
	Role        Role             `cbor:"20,keyasint,omitempty"`
	Mark        bool             `cbor:"21,keyasint,omitempty"` // every member keeps its table as it is here: FSM.TakeMark
	Scopes      wire.Scope       `cbor:"22,keyasint,omitempty"` // of an API key
	Tenant      string           `cbor:"23,keyasint,omitempty"` // of an API key
	OneTenant   bool             `cbor:"24,keyasint,omitempty"`
}

// OpKind names an op. Numbers are append-only.
type OpKind uint8

const (
	Register   OpKind = 1 // Client, Session, [Fenced]
	Unregister OpKind = 2 // Client, Epoch
	Join       OpKind = 3 // Topic: this incarnation has a member of it
	Leave      OpKind = 4 // Topic: it has none any more
)

func (k OpKind) String() string {
	switch k {
	case Register:
		return "register"
	case Unregister:
		return "unregister"
	case Join:
		return "join"
	case Leave:
		return "leave"
	}
	return fmt.Sprintf("op_kind_%d", uint8(k))
}

// ofTopic says whether an op of this kind has a topic instead of a client.
func (k OpKind) ofTopic() bool { return k == Join || k == Leave }

// Op is one registration or its end, or the first member of a topic or the end of its last one on the proposing node. Join and
// Leave may be repeated: what is so already stays so.
type Op struct {
	Kind    OpKind         `cbor:"1,keyasint"`
	Client  wire.ClientID  `cbor:"2,keyasint,omitzero"`
	Session wire.SessionID `cbor:"3,keyasint,omitzero"`
	Fenced  wire.Epoch     `cbor:"4,keyasint,omitempty"` // an epoch whose holder no longer delivers; 0 for none
	Epoch   wire.Epoch     `cbor:"5,keyasint,omitempty"`
	Topic   wire.Topic     `cbor:"6,keyasint,omitzero"`
}

// Limits of a command.
const (
	MaxCommand = 512 << 10 // bytes of an encoded command
	MaxOps     = 1000      // ops of a batch
	MaxName    = 63        // bytes of a node's name
	MaxNodes   = 1000      // members
	MaxTokens  = 1000      // join tokens kept at a time

	maxAddr    = 255
	maxVersion = 64
	maxTokenID = 64
	maxHash    = 64
	maxCACert  = 64 << 10
)

// Feature levels: what a new version writes must be readable by all, so nothing above the agreed level is proposed.
const (
	BaseFeatureLevel  uint32 = 1 // agreed from the start, unless Init says more
	TopicFeatureLevel uint32 = 2 // Join and Leave, Settings.OnePerClass, MaxDevices
	KeyFeatureLevel   uint32 = 3 // API keys
	MaxFeatureLevel   uint32 = 3 // the highest this program can read
)

// Errors of Decode and Check. ErrTooNew means that this program is too old for what the cluster agreed on.
var (
	ErrDamaged = errors.New("command is damaged")
	ErrTooNew  = errors.New("command is newer than this program: upgrade this node")
)

// An encoded command is version (1 byte) · feature level (2, big-endian) · CRC-32C of all the rest (4) · CBOR map.
const (
	commandVersion = 1
	commandHeader  = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func commandCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:3], castagnoli), castagnoli, b[commandHeader:])
}

// needs is the feature level without which c cannot be read.
func (c *Command) needs() uint32 {
	switch {
	case c.Kind == KindInit && c.Level > BaseFeatureLevel:
		return min(c.Level, math.MaxUint16)
	case c.Kind == KindKeyCreate || c.Kind == KindKeyRevoke:
		return KeyFeatureLevel
	case c.Settings.OnePerClass:
		return TopicFeatureLevel
	}
	for i := range c.Ops {
		if c.Ops[i].Kind.ofTopic() {
			return TopicFeatureLevel
		}
	}
	return BaseFeatureLevel
}

// Encode makes the form that goes into the log.
func Encode(c *Command) ([]byte, error) {
	body, err := wire.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s command: %w", c.Kind, err)
	}
	if len(body)+commandHeader > MaxCommand {
		return nil, fmt.Errorf("encode %s command: %d bytes, at most %d", c.Kind, len(body)+commandHeader, MaxCommand)
	}
	b := make([]byte, commandHeader, commandHeader+len(body))
	b[0] = commandVersion
	binary.BigEndian.PutUint16(b[1:], uint16(c.needs()))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[3:], commandCRC(b))
	return b, nil
}

// Decode reads what Encode wrote. The command shares nothing with b. The error is ErrTooNew or ErrDamaged, wrapped.
func Decode(b []byte) (*Command, error) { return decode(b, MaxFeatureLevel) }

// decode is Decode for a program that knows the levels up to known.
func decode(b []byte, known uint32) (*Command, error) {
	switch {
	case len(b) > MaxCommand:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrDamaged, len(b), MaxCommand)
	case len(b) <= commandHeader:
		return nil, fmt.Errorf("%w: only %d bytes", ErrDamaged, len(b))
	case b[0] > commandVersion: // before the checksum, which a later version may have moved
		return nil, fmt.Errorf("%w: format version %d, this program reads %d", ErrTooNew, b[0], commandVersion)
	case b[0] != commandVersion:
		return nil, fmt.Errorf("%w: format version %d", ErrDamaged, b[0])
	}
	if got, want := commandCRC(b), binary.BigEndian.Uint32(b[3:]); got != want {
		return nil, fmt.Errorf("%w: checksum %08x, should be %08x", ErrDamaged, got, want)
	}
	if level := uint32(binary.BigEndian.Uint16(b[1:])); level > known {
		return nil, fmt.Errorf("%w: it needs feature level %d, this program knows %d", ErrTooNew, level, known)
	}
	c := new(Command)
	if err := wire.Unmarshal(b[commandHeader:], c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := c.readable(known); err != nil {
		return nil, err
	}
	return c, nil
}

// readable says whether this program knows what c means, which is not the same as c being sensible.
func (c *Command) readable(known uint32) error {
	if !c.Kind.known() {
		return fmt.Errorf("%w: kind %d", ErrTooNew, c.Kind)
	}
	if (c.Kind == KindFeatureLevel || c.Kind == KindInit) && c.Level > known {
		return fmt.Errorf("%w: the cluster agreed on feature level %d, this program knows %d", ErrTooNew, c.Level, known)
	}
	if c.Role > RoleRemoved {
		return fmt.Errorf("%w: role %d", ErrTooNew, c.Role)
	}
	if c.Settings.Duplicate > DuplicateReject {
		return fmt.Errorf("%w: duplicate policy %d", ErrTooNew, c.Settings.Duplicate)
	}
	for i := range c.Ops {
		op := &c.Ops[i]
		if op.Kind < Register || op.Kind > Leave {
			return fmt.Errorf("%w: op kind %d", ErrTooNew, op.Kind)
		}
		if op.Topic.Kind > wire.TopicService {
			return fmt.Errorf("%w: topic kind %d", ErrTooNew, op.Topic.Kind)
		}
	}
	return nil
}

// Check is what the leader runs on a decoded command before it proposes it; featureLevel is the agreed one. The error says
// which field is at fault and is meant for whoever sent the command.
func (c *Command) Check(featureLevel uint32) error { return c.check(featureLevel, MaxFeatureLevel) }

func (c *Command) check(featureLevel, known uint32) error {
	if err := c.readable(known); err != nil {
		return err
	}
	if c.Kind == KindInit { // it is where the level is agreed on
		featureLevel = max(featureLevel, c.Level)
	}
	if c.needs() > featureLevel {
		return fmt.Errorf("%s command needs feature level %d, the cluster agreed on %d: once all nodes run this version, `imctl cluster upgrade` raises it",
			c.Kind, c.needs(), featureLevel)
	}
	if err := c.checkFields(); err != nil {
		return fmt.Errorf("%s command: %w", c.Kind, err)
	}
	for i := range c.Ops {
		err := c.Ops[i].Client.Validate
		if c.Ops[i].Kind.ofTopic() {
			err = c.Ops[i].Topic.Validate
		}
		if err := err(); err != nil {
			return fmt.Errorf("batch: op %d: %w", i, err)
		}
	}
	return nil
}

// checkFields is the part of Check that Apply repeats: it keeps the table's invariants whatever was proposed.
func (c *Command) checkFields() error {
	switch c.Kind {
	case KindNodeJoin, KindNodeUp, KindNodeExpire, KindNodeDrain, KindNodeRemove, KindNodeRole, KindNodeDown, KindBatch:
		if c.Node == 0 {
			return errors.New("node id is missing")
		}
	}
	switch c.Kind {
	case KindInit:
		if c.ClusterID == 0 {
			return errors.New("cluster id is missing")
		}
		if len(c.CACert) > maxCACert {
			return fmt.Errorf("CA certificates of %d bytes: at most %d", len(c.CACert), maxCACert)
		}
		if c.Settings.OnePerClass && c.Level < TopicFeatureLevel {
			return fmt.Errorf("one session per device class needs feature level %d", TopicFeatureLevel)
		}
		return c.Settings.check()
	case KindNodeJoin:
		if err := CheckName(c.Name); err != nil {
			return err
		}
		return checkAddrs(c.Addrs, c.Version)
	case KindNodeUp:
		if c.Boot == 0 {
			return errors.New("boot is missing")
		}
		return checkAddrs(c.Addrs, c.Version)
	case KindNodeExpire:
		if c.Incarnation == 0 || c.Term == 0 {
			return errors.New("incarnation or term is missing")
		}
	case KindNodeDown:
		if c.Incarnation == 0 {
			return errors.New("incarnation is missing")
		}
	case KindBatch:
		return c.checkBatch()
	case KindTokenCreate:
		if len(c.Hash) == 0 || len(c.Hash) > maxHash {
			return fmt.Errorf("token hash of %d bytes: want 1 to %d", len(c.Hash), maxHash)
		}
		if c.ExpiresUnix < 0 {
			return errors.New("token expiry is negative")
		}
		return checkTokenID(c.ID)
	case KindKeyCreate:
		return c.checkKey()
	case KindTokenRevoke, KindKeyRevoke:
		return checkTokenID(c.ID)
	case KindSetSettings:
		return c.Settings.check()
	case KindFeatureLevel:
		if c.Level < BaseFeatureLevel {
			return fmt.Errorf("feature level %d: the lowest is %d", c.Level, BaseFeatureLevel)
		}
	case KindRecover:
		if c.Generation == 0 {
			return errors.New("generation is missing")
		}
	}
	return nil
}

func (c *Command) checkBatch() error {
	if c.Incarnation == 0 || c.Seq == 0 {
		return errors.New("incarnation or sequence number is missing")
	}
	if len(c.Ops) == 0 || len(c.Ops) > MaxOps {
		return fmt.Errorf("%d ops: want 1 to %d", len(c.Ops), MaxOps)
	}
	for i := range c.Ops {
		op := &c.Ops[i]
		if op.Kind.ofTopic() {
			if op.Client != (wire.ClientID{}) || !op.Topic.Kind.Known() || len(op.Topic.Name) == 0 || len(op.Topic.Name) > wire.MaxTopicName ||
				len(op.Topic.Tenant) > wire.MaxTenant {
				return fmt.Errorf("op %d: %s of a name of %d and a tenant of %d bytes: want 1 to %d and at most %d, and no client",
					i, op.Kind, len(op.Topic.Name), len(op.Topic.Tenant), wire.MaxTopicName, wire.MaxTenant)
			}
			continue
		}
		if op.Topic != (wire.Topic{}) {
			return fmt.Errorf("op %d: %s has no topic", i, op.Kind)
		}
		if len(op.Client.ID) == 0 || len(op.Client.ID) > wire.MaxClientID || len(op.Client.Tenant) > wire.MaxTenant {
			return fmt.Errorf("op %d: client id of %d and tenant of %d bytes: want 1 to %d and at most %d",
				i, len(op.Client.ID), len(op.Client.Tenant), wire.MaxClientID, wire.MaxTenant)
		}
	}
	return nil
}

// CheckName says what is wrong with a node's name: 1 to 63 letters, digits, dots, dashes and underscores.
func CheckName(s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("node name of %d bytes: want 1 to %d", len(s), MaxName)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("node name %q: want letters, digits, '.', '-' and '_'", s)
		}
	}
	return nil
}

func checkAddrs(a wire.Addrs, version string) error {
	for _, s := range []string{a.Mesh, a.ClientTCP, a.ClientWS, a.Admin} {
		if len(s) > maxAddr || !utf8.ValidString(s) {
			return fmt.Errorf("address %q: at most %d bytes of UTF-8", s, maxAddr)
		}
	}
	if len(version) > maxVersion || !utf8.ValidString(version) {
		return fmt.Errorf("version %q: at most %d bytes of UTF-8", version, maxVersion)
	}
	return nil
}

func checkTokenID(s string) error {
	if s == "" || len(s) > maxTokenID || !utf8.ValidString(s) {
		return fmt.Errorf("token id %q: want 1 to %d bytes of UTF-8", s, maxTokenID)
	}
	return nil
}
