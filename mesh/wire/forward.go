package wire

// Forward is one message on its way from the sender's node to the owner's. On a lane its header is a CBOR map and the
// payload follows, untouched by the codec.
//
// After decoding, strings and Payload may share memory with the buffer they were read from.
type Forward struct {
	Tenant      string      `cbor:"1,keyasint,omitempty"` // of both sides: tenants never meet
	To          string      `cbor:"2,keyasint"`
	Incarnation Incarnation `cbor:"3,keyasint"` // the owner's, as the sender's node saw it
	Epoch       Epoch       `cbor:"4,keyasint"`
	From        string      `cbor:"5,keyasint,omitempty"`
	Instance    uint64      `cbor:"6,keyasint"` // with Counter: the MessageID
	Counter     uint64      `cbor:"7,keyasint"`
	Ack         AckMode     `cbor:"8,keyasint,omitempty"`
	Ref         uint64      `cbor:"9,keyasint,omitempty"`  // the sender node's name for it, repeated in its status; 0 with AckNone
	LeftMS      uint32      `cbor:"10,keyasint,omitempty"` // time left until the sender gives up, as it left

	// Kind says what To names, if not a client. A cast (Kind.Cast) is fanned out by the node that gets it; it has no Epoch, and
	// its Instance is the sender's for this address.
	// Of kind others its Epoch may be WholeSender.
	Kind Kind `cbor:"11,keyasint,omitempty"`

	// The answer to a request: the id and instance that this came with, and a number other than 0 if it failed.
	Re         uint64 `cbor:"12,keyasint,omitempty"`
	ReInstance uint64 `cbor:"13,keyasint,omitempty"`
	Fault      uint32 `cbor:"14,keyasint,omitempty"`

	// Again is 1 if everything of this sender to this recipient that may have been refused was called back: this message and
	// those behind it are the first to be taken anew.
	Again uint8 `cbor:"15,keyasint,omitempty"`

	Payload []byte `cbor:"-"`

	// Memo, if not nil, is shared by all messages that a lane brings under one context (same Tenant, To, Incarnation, Epoch,
	// From and Instance): who receives them may keep there what it found out. Only the lane's reader touches it.
	Memo *Memo `cbor:"-"`
}

// WholeSender as the Epoch of a message to the others leaves out every session of From, and of all its devices where From is a
// user: the API sends for a name, not for a session. Without it the one session is left out that Instance belongs to.
const WholeSender Epoch = 1

// Memo holds anything: V is for the node, P for the session that the node finds.
type Memo struct{ V, P any }

// Status is what the owner's node says of a Forward: refused at once, or (Ref not zero) how it ended.
type Status struct {
	Seq   uint64 `cbor:"1,keyasint,omitempty"` // lane sequence number; set when refused at once
	Ref   uint64 `cbor:"2,keyasint,omitempty"`
	Code  Code   `cbor:"3,keyasint"`
	Index uint64 `cbor:"4,keyasint,omitempty"` // with NotOwner: what the refusing node has applied; of a cast, with any other code: recipients reached

	// Of a cast: who was not reached, see Missed. Nodes of before pass these over.
	Missed    uint32   `cbor:"5,keyasint,omitempty"`
	MissedIDs []string `cbor:"6,keyasint,omitempty"`
}
