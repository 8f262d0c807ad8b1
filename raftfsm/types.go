package raftfsm

import (
	"fmt"

	"imroute/mesh/wire"
)

// NodeState is what the cluster agreed about a member.
type NodeState uint8

const (
	Down     NodeState = 0 // it never came up, or its incarnation was expired: it owns nothing
	Up       NodeState = 1
	Draining NodeState = 2 // up, and asked to empty itself
)

func (s NodeState) String() string {
	switch s {
	case Down:
		return "down"
	case Up:
		return "up"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// MarshalText makes NodeState a lower-case word in JSON.
func (s NodeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *NodeState) UnmarshalText(b []byte) error {
	for _, v := range []NodeState{Down, Up, Draining} {
		if v.String() == string(b) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("node state %q: want down, up or draining", b)
}

// Node is a member of the cluster. One that never came up has Incarnation 0 and is Down.
type Node struct {
	ID          wire.NodeID      `cbor:"1,keyasint"`
	Name        string           `cbor:"2,keyasint"`
	Incarnation wire.Incarnation `cbor:"3,keyasint,omitempty"`
	Boot        wire.Boot        `cbor:"4,keyasint,omitempty"`
	State       NodeState        `cbor:"5,keyasint,omitempty"`
	Addrs       wire.Addrs       `cbor:"6,keyasint"`
	Version     string           `cbor:"7,keyasint,omitempty"`
	// Drain says that the node was asked to empty itself. It outlives a restart and Down, State does not.
	Drain bool `cbor:"8,keyasint,omitempty"`
	Role  Role `cbor:"9,keyasint,omitempty"`
}

// Role is what an operator wants a node to be in Raft.
type Role uint8

const (
	RoleAuto     Role = 0 // promoted while the voters are fewer than Settings.Voters
	RoleVoter    Role = 1
	RoleNonVoter Role = 2
	RoleRemoved  Role = 3 // taken out as soon as its incarnation has ended: gets no lease, does not come up again, has no way back
)

func (r Role) String() string {
	switch r {
	case RoleAuto:
		return "auto"
	case RoleVoter:
		return "voter"
	case RoleNonVoter:
		return "non-voter"
	case RoleRemoved:
		return "removed"
	}
	return fmt.Sprintf("role_%d", uint8(r))
}

// Route says who owns a client.
type Route struct {
	Client      wire.ClientID
	Node        wire.NodeID
	Incarnation wire.Incarnation
	Session     wire.SessionID
	Epoch       wire.Epoch
}

// DuplicatePolicy decides what happens when another SDK instance logs in under a client id that is online.
type DuplicatePolicy uint8

const (
	DuplicateReplace DuplicatePolicy = 0 // the newer one takes over
	DuplicateReject  DuplicatePolicy = 1 // the newer one is refused while the older one is there
)

func (p DuplicatePolicy) String() string {
	switch p {
	case DuplicateReplace:
		return "replace"
	case DuplicateReject:
		return "reject"
	}
	return fmt.Sprintf("policy_%d", uint8(p))
}

// MarshalText makes DuplicatePolicy a word in JSON.
func (p DuplicatePolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *DuplicatePolicy) UnmarshalText(b []byte) error {
	v, err := ParseDuplicatePolicy(string(b))
	*p = v
	return err
}

// ParseDuplicatePolicy reads "replace" or "reject".
func ParseDuplicatePolicy(s string) (DuplicatePolicy, error) {
	switch s {
	case "replace":
		return DuplicateReplace, nil
	case "reject":
		return DuplicateReject, nil
	}
	return 0, fmt.Errorf("duplicate policy %q: want replace or reject", s)
}

// Settings are what decides Apply or what every node must agree on. The zero value means the defaults.
type Settings struct {
	Duplicate DuplicatePolicy `cbor:"1,keyasint,omitempty" json:"duplicate"`
	// OnePerClass allows one session for each device class of a user: of client ids user/class:device, and user/class alone, that
	// agree in tenant, user and class at most one is live. Client ids without a device are a class of their own. Feature level 2.
	// Turning it on ends nobody: devices of a class that are online together stay until the next login in that class.
	OnePerClass bool   `cbor:"3,keyasint,omitempty" json:"one_per_class"`
	Voters      uint32 `cbor:"2,keyasint,omitempty" json:"voters"` // how many voters are aimed at: 1, 3, 5 or 7; 0 means 3
}

// DefaultVoters is what Settings.Voters zero means.
const DefaultVoters = 3

func (s Settings) withDefaults() Settings {
	if s.Voters == 0 {
		s.Voters = DefaultVoters
	}
	return s
}

func (s Settings) check() error {
	if s.Duplicate > DuplicateReject {
		return fmt.Errorf("settings: duplicate policy %d is not known", s.Duplicate)
	}
	switch s.Voters {
	case 0, 1, 3, 5, 7:
		return nil
	}
	return fmt.Errorf("settings: %d voters: want 1, 3, 5 or 7", s.Voters)
}

// Token is a join token as the cluster keeps it: never the secret, only its hash.
type Token struct {
	ID          string `cbor:"1,keyasint"`
	Hash        []byte `cbor:"2,keyasint"`
	ExpiresUnix int64  `cbor:"3,keyasint,omitempty"` // seconds; 0 means never
}
