package wire

// Control calls between nodes: one request, one answer, each with a deadline. The kind stands before the request's CBOR.
// Confirm, renew and revoke go over the Raft connection so that data cannot delay them; the others over the data one.

// CallKind names a control call.
type CallKind uint8

const (
	CallConfirm CallKind = 1 // leader → voter: is your term still mine?
	CallRenew   CallKind = 2 // node → leader: my lease, please
	CallRevoke  CallKind = 3 // node → holder: give this epoch up
	CallPropose CallKind = 4 // node → leader: an encoded command
	CallRead    CallKind = 5 // node → leader: who owns these clients, linearizably
	CallSecrets CallKind = 6 // voter → leader: what voters hold
	CallAdmin   CallKind = 7 // node → node: an operator's request for the other one
	CallProbe   CallKind = 8 // node → owner: do you own this (client, epoch) at the moment?
	CallHash    CallKind = 9 // node → node: the table's hash at an index
)

// ConfirmRequest asks a voter for its term; the nonce comes back so that an old answer cannot pass for a new one.
type ConfirmRequest struct {
	Nonce uint64 `cbor:"1,keyasint"`
	Term  uint64 `cbor:"2,keyasint"`
}

// ConfirmReply carries the voter's current term as it was when the request was read.
type ConfirmReply struct {
	Nonce uint64 `cbor:"1,keyasint"`
	Term  uint64 `cbor:"2,keyasint"`
}

// RenewRequest asks the leader for a lease of its configured length, counted by the asker from the moment it sent this.
type RenewRequest struct {
	Incarnation Incarnation `cbor:"1,keyasint"`
	Applied     uint64      `cbor:"2,keyasint"`
	Clients     uint64      `cbor:"3,keyasint,omitempty"` // load, so that every node can say how busy the others are
	Version     string      `cbor:"4,keyasint,omitempty"`
	Features    uint32      `cbor:"5,keyasint,omitempty"` // the highest feature level that the node knows; 0: the first
	Closed      bool        `cbor:"6,keyasint,omitempty"` // it takes no more clients: full, draining, or short of disk
}

// RenewReply grants (OK) or refuses: NotLeader with Leader set, NotReady, BadIncarnation.
type RenewReply struct {
	Code    Code       `cbor:"1,keyasint"`
	Leader  NodeID     `cbor:"2,keyasint,omitempty"`
	LeaseMS uint32     `cbor:"3,keyasint,omitempty"`
	Applied uint64     `cbor:"4,keyasint,omitempty"` // the leader's
	Nodes   []NodeLoad `cbor:"5,keyasint,omitempty"`
}

// NodeLoad is what the leader last heard of a node, spread with every renewal.
type NodeLoad struct {
	Node    NodeID `cbor:"1,keyasint"`
	Clients uint64 `cbor:"2,keyasint,omitempty"`
	Applied uint64 `cbor:"3,keyasint,omitempty"`
	Version string `cbor:"4,keyasint,omitempty"`

	Incarnation Incarnation `cbor:"5,keyasint,omitempty"` // that said so
	Features    uint32      `cbor:"6,keyasint,omitempty"` // as in RenewRequest
	Closed      bool        `cbor:"7,keyasint,omitempty"` // likewise, or its last renewal was refused
	AgeMS       uint32      `cbor:"8,keyasint,omitempty"` // how long ago the leader heard it, when it sent this
}

// RevokeRequest asks the holder to stop delivering to a client at every epoch up to Epoch.
type RevokeRequest struct {
	Client      ClientID    `cbor:"1,keyasint"`
	Incarnation Incarnation `cbor:"2,keyasint"`
	Epoch       Epoch       `cbor:"3,keyasint"`
	By          SessionID   `cbor:"4,keyasint"`           // who takes over: tells replaced from superseded
	Code        Code        `cbor:"5,keyasint,omitempty"` // what to tell the closed session instead, say Kicked
	Text        string      `cbor:"6,keyasint,omitempty"` // why, with Code or where By is of another client id
}

// RevokeReply is OK once nothing more will be delivered; its absence means nothing.
type RevokeReply struct {
	Code Code `cbor:"1,keyasint"`
}

// ProposeRequest carries an encoded state machine command.
type ProposeRequest struct {
	Command []byte `cbor:"1,keyasint"`
}

// ProposeReply carries the state machine's encoded answer (OK), or why there is none. Unknown: it may yet take effect.
type ProposeReply struct {
	Code   Code   `cbor:"1,keyasint"`
	Leader NodeID `cbor:"2,keyasint,omitempty"`
	Index  uint64 `cbor:"3,keyasint,omitempty"`
	Result []byte `cbor:"4,keyasint,omitempty"`
	Text   string `cbor:"5,keyasint,omitempty"`
}

// MaxRead is how many clients one ReadRequest may name.
const MaxRead = 1000

// ReadRequest asks the leader who owns these clients, linearizably: everything acknowledged before the request was sent
// shows in the answer.
type ReadRequest struct {
	Clients []ClientID `cbor:"1,keyasint,omitempty"`
}

// ReadReply is the leader's answer, read at Index and proven by a ConfirmTerm that began after the request arrived. Owners
// has an element for each client, in order.
type ReadReply struct {
	Code   Code    `cbor:"1,keyasint"`
	Leader NodeID  `cbor:"2,keyasint,omitempty"`
	Index  uint64  `cbor:"3,keyasint,omitempty"`
	Term   uint64  `cbor:"4,keyasint,omitempty"`
	Owners []Owner `cbor:"5,keyasint,omitempty"`
}

// Owner is who owns a client; Node zero: nobody does.
type Owner struct {
	Node        NodeID      `cbor:"1,keyasint,omitempty"`
	Incarnation Incarnation `cbor:"2,keyasint,omitempty"`
	Epoch       Epoch       `cbor:"3,keyasint,omitempty"`
	Session     SessionID   `cbor:"4,keyasint,omitzero"`
	Devices     uint32      `cbor:"5,keyasint,omitempty"` // nobody owns it, and it is a user's own id: how many of his devices are online
}

// ProbeRequest asks whether the node delivers to (Client, Epoch) right now.
type ProbeRequest struct {
	Client      ClientID    `cbor:"1,keyasint"`
	Incarnation Incarnation `cbor:"2,keyasint"`
	Epoch       Epoch       `cbor:"3,keyasint"`
}

// ProbeReply: OK, NotOwner, or LeaseLost.
type ProbeReply struct {
	Code  Code   `cbor:"1,keyasint"`
	AgeMS uint64 `cbor:"2,keyasint,omitempty"` // OK: for how long the session has been there
}

// Verdict returns the answer's code and, with NotLeader, whom to ask instead.
func (r *RenewReply) Verdict() (Code, NodeID) { return r.Code, r.Leader }

// Verdict returns the answer's code and, with NotLeader, whom to ask instead.
func (r *ProposeReply) Verdict() (Code, NodeID) { return r.Code, r.Leader }

// Verdict returns the answer's code and, with NotLeader, whom to ask instead.
func (r *ReadReply) Verdict() (Code, NodeID) { return r.Code, r.Leader }
