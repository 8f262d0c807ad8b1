package admin

import (
	"time"

	"imroute/mesh/wire"
)

// Assignment names the node that a client should connect to.
type Assignment struct {
	Client    string `json:"client"`
	Tenant    string `json:"tenant"`
	Node      string `json:"node"`
	Transport string `json:"transport"` // tcp or ws
	Addr      string `json:"addr"`      // host:port, as advertised
	URL       string `json:"url"`       // the same as the Go SDK takes it, and for ws as a browser does
	Policy    string `json:"policy"`    // min-clients, round-robin or hash
	Clients   uint32 `json:"clients"`   // on that node, as last heard of
}

// Presence says whether a client is online, as a linearizable read found it. A client is Online if a session of just this id
// is, or, for an id without a "/", any device of that user.
type Presence struct {
	Client  string           `json:"client"`
	Tenant  string           `json:"tenant"`
	Online  bool             `json:"online"`
	Node    string           `json:"node"`         // of the session of just this id; empty: there is none
	Epoch   wire.Epoch       `json:"epoch,string"` // likewise; 0: there is none
	Devices []PresenceDevice `json:"devices"`      // of the user of this id
}

// PresenceDevice is one device of a user.
type PresenceDevice struct {
	Client string     `json:"client"`
	Node   string     `json:"node"`
	Epoch  wire.Epoch `json:"epoch,string"`
}

// PresenceList answers for many clients, in the order asked.
type PresenceList struct {
	Clients []Presence `json:"clients"`
}

// PresenceRequest asks for up to MaxPresence clients.
type PresenceRequest struct {
	Tenant  string   `json:"tenant,omitempty"`
	Clients []string `json:"clients"`
}

// SendManyRequest is one message to several clients, each of whom gets it as if it had been named alone. Fields are those of
// SendRequest.
type SendManyRequest struct {
	From       string   `json:"from,omitempty"`
	Tenant     string   `json:"tenant,omitempty"`
	To         []string `json:"to"` // client ids, at most MaxRecipients
	Payload    *string  `json:"payload,omitempty"`
	PayloadB64 *string  `json:"payload_b64,omitempty"`
	Ack        string   `json:"ack,omitempty"`
	TimeoutMS  uint32   `json:"timeout_ms,omitempty"`
	ID         string   `json:"id,omitempty"` // the message's, for all of them: as in SendRequest
}

// SendManyResult is how each ended, in the order of To.
type SendManyResult struct {
	ID        string       `json:"id"`
	Delivered uint32       `json:"delivered"` // recipients with that result
	Results   []SendResult `json:"results"`
}

// APIKeyRequest asks for a key.
type APIKeyRequest struct {
	Name       string   `json:"name,omitempty"` // a label for people
	Scopes     []string `json:"scopes"`         // send, presence, groups, kick, assign, admin
	Tenant     *string  `json:"tenant,omitempty"`
	TTLSeconds uint32   `json:"ttl_seconds,omitempty"` // 0: it never expires
}

// APIKeyInfo is what is kept of a key: everything but the secret.
type APIKeyInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Scopes  []string   `json:"scopes"`
	Tenant  *string    `json:"tenant,omitempty"`  // the only one it is for; none: it is for all
	Expires *time.Time `json:"expires,omitempty"` // none: never
	Expired bool       `json:"expired"`
}

// APIKey is a new key. The secret is told once and kept nowhere.
type APIKey struct {
	APIKeyInfo
	Key string `json:"key"`
}

// APIKeyRevoked says that a key is revoked, and where it may still be taken.
type APIKeyRevoked struct {
	ID          string   `json:"id"`
	Revoked     bool     `json:"revoked"`
	Unconfirmed []string `json:"unconfirmed"` // nodes that are up and did not confirm in time that they refuse it; they will as soon as they reach the cluster
}

// RebalanceNode is one node's part of a rebalance.
type RebalanceNode struct {
	Name    string `json:"name"`
	Clients uint32 `json:"clients"` // now
	Target  uint32 `json:"target"`  // it moves clients away until it has no more than this; 0: it has none
	Moved   uint32 `json:"moved"`   // clients asked to move since it was last started
	Moving  bool   `json:"moving"`
	Error   string `json:"error,omitempty"` // why it did not answer
}

// Rebalance is the state of moving clients until the nodes have about the same number.
type Rebalance struct {
	Moving bool            `json:"moving"` // on some node
	Nodes  []RebalanceNode `json:"nodes"`
}

type rebalanceBody struct {
	Rate uint32 `json:"rate"` // clients a second that each node moves at most; 0: DefaultRebalanceRate
}

// Limits of the back ends' calls.
const (
	MaxPresence          = 1000
	MaxRecipients        = 1000
	DefaultRebalanceRate = 50
	MaxRebalanceRate     = 100_000
)
