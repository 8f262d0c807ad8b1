package raftfsm

import (
	"fmt"

	"imroute/mesh/wire"
)

// OpCode is the outcome of one Op of a batch. Numbers are append-only.
type OpCode uint8

const (
	OpOK       OpCode = 1 // registered (Epoch is the new one), or unregistered
	OpHeld     OpCode = 2 // Register: another node's incarnation owns the client; revoke it and try again with its epoch as Fenced
	OpStale    OpCode = 3 // Register: a later attempt of the same SDK instance is registered
	OpGone     OpCode = 4 // Unregister: there is no row, or one with another epoch or of another node
	OpRejected OpCode = 5 // Register: policy "reject", and another SDK instance is online
	// OpOverloaded is wire.Overloaded for this op alone. Join: the topics of all nodes have MaxHoldings holders. Register: the
	// user has MaxDevices live routes already. Nothing changed.
	OpOverloaded OpCode = 6
	// OpClassHeld is OpHeld over another client id. Register under Settings.OnePerClass: HolderClient, of the same user and
	// device class, is registered under Epoch, on any node, the asker's own too. Whoever has fenced that session (HolderClient at
	// Epoch, not the client that asked) registers again with Fenced set to it.
	OpClassHeld OpCode = 7
)

func (c OpCode) String() string {
	switch c {
	case OpOK:
		return "ok"
	case OpHeld:
		return "held"
	case OpStale:
		return "stale"
	case OpGone:
		return "gone"
	case OpRejected:
		return "rejected"
	case OpOverloaded:
		return "overloaded"
	case OpClassHeld:
		return "class-held"
	}
	return fmt.Sprintf("op_%d", uint8(c))
}

// OpResult is the outcome of one Op. With OpOK, Epoch is the session's own. With any other code the remaining fields describe
// the live row that stood in the way; they are zero where there is none.
type OpResult struct {
	Code          OpCode           `cbor:"1,keyasint"`
	Epoch         wire.Epoch       `cbor:"2,keyasint,omitempty"`
	Node          wire.NodeID      `cbor:"3,keyasint,omitempty"`
	Incarnation   wire.Incarnation `cbor:"4,keyasint,omitempty"`
	HolderSession wire.SessionID   `cbor:"5,keyasint,omitzero"`
	HolderClient  wire.ClientID    `cbor:"6,keyasint,omitzero"` // if it is not the one that was asked for
}

// Result is the answer of a command. It travels back to the node that proposed it.
//
// Code is OK; or BadIncarnation (that incarnation ended or never was), NotMember (no such node), Refused (for good, Text says
// why), BadRequest (malformed: the leader should not have proposed it). Index is the entry that took effect: for a copy of a
// batch that of the first one.
type Result struct {
	Code        wire.Code        `cbor:"1,keyasint"`
	Text        string           `cbor:"2,keyasint,omitempty"`
	Index       uint64           `cbor:"3,keyasint,omitempty"`
	Incarnation wire.Incarnation `cbor:"4,keyasint,omitempty"` // NodeUp: the node's current one
	Boot        wire.Boot        `cbor:"5,keyasint,omitempty"` // NodeUp: the boot that got it; not the asker's if the asker's was overtaken
	Replaced    wire.NodeID      `cbor:"6,keyasint,omitempty"` // NodeJoin: the member that was Down under this name, now removed
	Ops         []OpResult       `cbor:"7,keyasint,omitempty"` // Batch: one for each op, in order
}

// Err is nil if the code is OK, else a *wire.Error.
func (r Result) Err() error {
	if r.Code == wire.OK {
		return nil
	}
	return &wire.Error{Code: r.Code, Text: r.Text}
}

// Encode makes the result's wire form.
func (r Result) Encode() ([]byte, error) { return wire.Marshal(r) }

// DecodeResult reads what Encode wrote. The result shares nothing with b.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	if err := wire.Unmarshal(b, &r); err != nil {
		return Result{}, fmt.Errorf("state machine result: %w", err)
	}
	return r, nil
}
