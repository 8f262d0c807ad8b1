package wire

// The client protocol, version 1.
//
// A connection carries frames both ways. On TCP a frame is
//
//	uint32 length (big-endian, of all that follows) · CBOR map, the header · payload, the rest
//
// and on WebSocket one text message: the same header as a JSON object, the payload in "payload" (UTF-8 text) or
// "payload_b64" (base64: what is no text, or control characters mostly), 64-bit numbers as strings, types, ack modes by name.
//
// Log in:       C → S  login     then  S → C  (waiting)*  welcome | kick
// Steady state: C → S  send, ack, join, leave, watch, unwatch, ping, bye  and  S → C  deliver, result, leave, presence, pong, goaway, kick
//
// A send goes to one client unless kind says otherwise: group, all, others (all but the sender), prefix, user (all its
// devices). What was sent to many arrives with its kind and to, under an instance of its own (CastSender). Being in a group
// ends with the session; a login that carries groups is in them before welcome.
//
// Kind service is one instance of a service: one of the sessions that joined with that kind. It arrives with its kind, to and
// timeout_ms, under an instance of its own, not in order. It is a request: whoever gets it answers with a send to its sender
// that carries re and re_instance, the id and instance that it arrived with, and, if it failed, fault, a number other than
// zero that the two sides agree on (the payload then says more). A message to a client may be answered in the same way. Do
// not repeat a request under its id: another instance might do it once more.
//
// A watch tells the present state of each of its ids in presence frames, then its result, then every change. Watching a user's
// id without "/" tells of all his devices together. States of one id have rising epochs; a watcher that does not keep up is
// told the latest only. Watching ends with the session.
//
// Numbers that a client chooses: instance, random for each start of the program; attempt, rising with each login of one
// instance; a send's id, rising with each message of one instance and the same when a message is sent again. A message id
// that the recipient has seen is not delivered again but answered as the first one was.
//
// Whatever arrives counts as a sign of life; a client that has nothing to say sends ping before welcome's idle_ms is over.
// A frame that is malformed or out of place costs the connection: kick protocol_error. So does one that is far over the payload
// limit; a send a little over it (16 MiB on TCP, twice the limit on WebSocket) is answered with result too_large.
const (
	TypeLogin   Type = 1  // client, instance, attempt, version, [token], [tenant: development mode only], [groups]
	TypeWelcome Type = 2  // epoch, instance (under which recipients see this client's messages), node, idle_ms, max_payload, addrs
	TypeWaiting Type = 3  // timeout_ms: the former owner is being fenced; this is the longest it can take
	TypeSend    Type = 4  // to, id, [kind], [ack], [timeout_ms], [re, re_instance, [fault]: the answer to a request] · payload
	TypeDeliver Type = 5  // from, instance, id, epoch, [ack: what its sender asked for; client = answer with ack], [kind, to: if it was sent to many or a service], [timeout_ms], [re, re_instance, fault] · payload
	TypeAck     Type = 6  // instance, id of a deliver
	TypeResult  Type = 7  // id of a send, join, leave, watch or unwatch, code, [node: the owner's name], [text], [count: recipients reached], [missed: recipients that were not reached or did not acknowledge], [missed_ids: some of them], [retry_ms]
	TypePing    Type = 8  // nothing
	TypePong    Type = 9  // nothing; in JSON it also comes unasked, before a large frame: count, the bytes of that
	TypeKick    Type = 10 // code, [text], [retry_ms], [addrs]; the connection closes behind it
	TypeGoaway  Type = 11 // code, [addrs], [timeout_ms: kicked then]; finish and connect elsewhere
	TypeBye     Type = 12 // nothing: the client closes for good, its route may go at once
	TypeJoin    Type = 13 // to: a group, id; a result follows: joined, or why not. With kind service: be an instance of the service to, for [count] requests at a time
	TypeLeave   Type = 14 // C → S  to: a group, id, [kind]; a result follows: left.  S → C  to, code, [kind]: no member any more, and why

	TypeWatch    Type = 15 // ids, or to: "friends", the list that the operator's friend source has of this client; id; presence frames and then a result follow
	TypeUnwatch  Type = 16 // ids, or to, or neither: everything; id; a result follows
	TypePresence Type = 17 // client, online, [node, epoch, since: when the session began, in milliseconds since 1970], [to: the list that it is on]
)

// ProtocolVersion is what login must name.
const ProtocolVersion = 1

// MaxHeader bounds a frame's header in bytes, MaxPayload is the default bound of its payload.
const (
	MaxHeader  = 8 << 10
	MaxPayload = 1 << 20
)

// Type is a frame's type.
type Type uint8

// Flag is yes (1) or no (0): a number in CBOR, true or false in JSON.
type Flag uint8

// AckMode says what a sender wants to hear.
type AckMode uint8

const (
	AckNone   AckMode = 0 // nothing, except that the message was refused
	AckOwner  AckMode = 1 // the owner wrote it to the recipient's connection
	AckClient AckMode = 2 // the recipient acknowledged it
)

// Frame is the union of all client frames; the constants above say which fields a type has. Fields a type does not have
// are ignored by readers and left out by writers when zero.
//
// After decoding, strings and Payload may share memory with the buffer they were read from: see the decoder used.
type Frame struct {
	Type       Type     `cbor:"0,keyasint" json:"type"`
	Client     string   `cbor:"1,keyasint,omitempty" json:"client,omitempty"`
	To         string   `cbor:"2,keyasint,omitempty" json:"to,omitempty"`
	From       string   `cbor:"3,keyasint,omitempty" json:"from,omitempty"`
	ID         uint64   `cbor:"4,keyasint,omitempty" json:"id,string,omitempty"`
	Instance   uint64   `cbor:"5,keyasint,omitempty" json:"instance,string,omitempty"`
	Attempt    uint64   `cbor:"6,keyasint,omitempty" json:"attempt,string,omitempty"`
	Ack        AckMode  `cbor:"7,keyasint,omitempty" json:"ack,omitempty"`
	TimeoutMS  uint32   `cbor:"8,keyasint,omitempty" json:"timeout_ms,omitempty"`
	Code       Code     `cbor:"9,keyasint,omitempty" json:"code,omitempty"`
	Epoch      Epoch    `cbor:"10,keyasint,omitempty" json:"epoch,string,omitempty"`
	Node       string   `cbor:"11,keyasint,omitempty" json:"node,omitempty"`
	Token      string   `cbor:"12,keyasint,omitempty" json:"token,omitempty"`
	IdleMS     uint32   `cbor:"13,keyasint,omitempty" json:"idle_ms,omitempty"`
	Addrs      []string `cbor:"14,keyasint,omitempty" json:"addrs,omitempty"`
	RetryMS    uint32   `cbor:"15,keyasint,omitempty" json:"retry_ms,omitempty"`
	Text       string   `cbor:"16,keyasint,omitempty" json:"text,omitempty"`
	MaxPayload uint32   `cbor:"17,keyasint,omitempty" json:"max_payload,omitempty"`
	Version    uint32   `cbor:"18,keyasint,omitempty" json:"version,omitempty"`
	Tenant     string   `cbor:"19,keyasint,omitempty" json:"tenant,omitempty"`
	Kind       Kind     `cbor:"20,keyasint,omitempty" json:"kind,omitempty"`
	Groups     []string `cbor:"21,keyasint,omitempty" json:"groups,omitempty"`
	Count      uint32   `cbor:"22,keyasint,omitempty" json:"count,omitempty"`
	Re         uint64   `cbor:"23,keyasint,omitempty" json:"re,string,omitempty"`
	ReInstance uint64   `cbor:"24,keyasint,omitempty" json:"re_instance,string,omitempty"`
	Fault      uint32   `cbor:"25,keyasint,omitempty" json:"fault,omitempty"`
	IDs        []string `cbor:"26,keyasint,omitempty" json:"ids,omitempty"`
	Online     Flag     `cbor:"27,keyasint,omitempty" json:"online,omitempty"`
	Since      uint64   `cbor:"28,keyasint,omitempty" json:"since,string,omitempty"`
	Missed     uint32   `cbor:"29,keyasint,omitempty" json:"missed,omitempty"`
	MissedIDs  []string `cbor:"30,keyasint,omitempty" json:"missed_ids,omitempty"`

	Payload []byte `cbor:"-" json:"-"`
}
