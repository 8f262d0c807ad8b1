package admin

import (
	"time"

	"imroute/mesh/wire"
)

// Roles of a node in Raft.
const (
	RoleLeader   = "leader"
	RoleVoter    = "voter"
	RoleNonVoter = "non-voter"
)

// States of a node in the table.
const (
	StateUp       = "up"
	StateDraining = "draining"
	StateDown     = "down"
	StateRemoving = "removing" // still there: until its lease has run out
)

// Health of a cluster, worst last.
const (
	HealthOK       = "ok"
	HealthDegraded = "degraded"  // it works, but a fault is missing before it does not, or some node is not well
	HealthElecting = "electing"  // no leader at the moment, and for no longer than an election may take: nothing is agreed until there is one
	HealthNoQuorum = "no_quorum" // nothing can be agreed: no logins, no linearizable reads
)

// Consistency of a look-up.
const (
	Linearizable = "linearizable" // proven to be the cluster's answer at a moment within the call
	Local        = "local"        // what the asked node has applied so far
)

// What the owner itself said about a route.
const (
	OwnerConfirmed   = "confirmed"   // it delivers to this session at this epoch, lease held
	OwnerDenied      = "denied"      // it does not (any more)
	OwnerUnreachable = "unreachable" // no answer in time
	OwnerSkipped     = "skipped"     // not asked: no route, or a local look-up
)

// Policies for a second login under one id.
const (
	DuplicateReplace = "replace" // the new session takes over
	DuplicateReject  = "reject"  // the new session is refused
)

// Node is one line of the list of nodes.
type Node struct {
	Name         string           `json:"name"`
	ID           wire.NodeID      `json:"id"`
	Role         string           `json:"role"`  // leader, voter or non-voter
	State        string           `json:"state"` // up, draining, removing (until its lease has run out) or down
	Incarnation  wire.Incarnation `json:"incarnation,string"`
	Voter        bool             `json:"voter"`
	Leader       bool             `json:"leader"`
	AppliedIndex uint64           `json:"applied_index,string"` // as last heard of; 0 = never heard
	Clients      uint32           `json:"clients"`              // as last heard of
	Version      string           `json:"version"`
	wire.Addrs                    // mesh, client_tcp, client_ws, admin: as advertised
}

// NodeDetail is what a node says of itself. Reachable false: the node did not answer and everything in Detail is zero.
type NodeDetail struct {
	Node
	Reachable bool    `json:"reachable"`
	Detail    *Detail `json:"detail,omitempty"`
}

// Detail is the inside of one node.
type Detail struct {
	RaftState     string   `json:"raft_state"` // follower, candidate, leader, shutdown
	Term          uint64   `json:"term,string"`
	CommitIndex   uint64   `json:"commit_index,string"`
	LastLogIndex  uint64   `json:"last_log_index,string"`
	SnapshotIndex uint64   `json:"snapshot_index,string"`
	LeaseLeftMS   int32    `json:"lease_left_ms"` // negative: for how long it has been over
	UptimeSeconds uint32   `json:"uptime_seconds"`
	Boot          uint64   `json:"boot,string"`
	Clients       uint32   `json:"clients"`    // logged in
	PeersUp       []string `json:"peers_up"`   // names of the peers it has a data connection to
	PeersDown     []string `json:"peers_down"` // members it has none to
	StoreBytes    uint64   `json:"store_bytes,string"`
	FsyncP99US    uint32   `json:"fsync_p99_us"`
	FreeDiskBytes uint64   `json:"free_disk_bytes,string"`
	Routes        uint32   `json:"routes"` // rows of its table, void ones left out
	Logins        uint64   `json:"logins,string"`
	Sends         uint64   `json:"sends,string"`
	Goroutines    uint32   `json:"goroutines"`
	HeapBytes     uint64   `json:"heap_bytes,string"`
}

// ClusterStatus is the cluster as the asked node sees it. Without a quorum it is still answered, with HealthNoQuorum.
type ClusterStatus struct {
	ClusterID     string   `json:"cluster_id"`
	Node          string   `json:"node"`   // who answers
	Leader        string   `json:"leader"` // name; empty: none known
	Term          uint64   `json:"term,string"`
	AppliedIndex  uint64   `json:"applied_index,string"`
	Generation    uint16   `json:"generation"`
	Voters        uint32   `json:"voters"`
	Quorum        uint32   `json:"quorum"` // how many voters must agree
	NodesUp       uint32   `json:"nodes_up"`
	NodesDown     uint32   `json:"nodes_down"`
	Routes        uint32   `json:"routes"`
	FeatureLevel  uint32   `json:"feature_level"`  // agreed
	PossibleLevel uint32   `json:"possible_level"` // that every node which is up can do; 0: not known
	HeldBackBy    []string `json:"held_back_by"`   // nodes but for which it would be higher
	Settings      Settings `json:"settings"`
	Health        string   `json:"health"`   // HealthOK, HealthDegraded, HealthElecting, HealthNoQuorum
	Problems      []string `json:"problems"` // each with what to do; empty when health is ok
}

// Settings are agreed by Raft and hold for all nodes.
type Settings struct {
	DuplicateLogin string `json:"duplicate_login"` // DuplicateReplace (default) or DuplicateReject
	OnePerClass    bool   `json:"one_per_class"`   // one session for each class of device of a user: ids user/class:device and user/class
	TargetVoters   uint32 `json:"target_voters"`   // joiners are promoted up to this many: 1, 3 (default), 5 or 7
}

// SettingsChange names what to change; what is nil stays.
type SettingsChange struct {
	DuplicateLogin *string `json:"duplicate_login,omitempty"`
	OnePerClass    *bool   `json:"one_per_class,omitempty"` // who is online together when it is turned on stays until the next login of that class
	TargetVoters   *uint32 `json:"target_voters,omitempty"`
}

// JoinToken is a token as it is handed out, once.
type JoinToken struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// JoinTokenInfo is what the cluster keeps of a token: never the token itself.
type JoinTokenInfo struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Expired bool      `json:"expired"`
}

// RaftPeers is the Raft configuration as the asked node has it.
type RaftPeers struct {
	Leader      string     `json:"leader"` // name; empty: none known
	Term        uint64     `json:"term,string"`
	CommitIndex uint64     `json:"commit_index,string"`
	ConfigIndex uint64     `json:"config_index,string"` // of the entry that made this configuration
	Peers       []RaftPeer `json:"peers"`
}

// RaftPeer is one member of the Raft configuration.
type RaftPeer struct {
	Name         string      `json:"name"`
	ID           wire.NodeID `json:"id"`
	Mesh         string      `json:"mesh"`
	Voter        bool        `json:"voter"`
	Leader       bool        `json:"leader"`
	State        string      `json:"state"`                // of the node: StateUp …
	AppliedIndex uint64      `json:"applied_index,string"` // as last heard of
}

// TransferResult names the leader after a transfer.
type TransferResult struct {
	From   string `json:"from"`
	Leader string `json:"leader"`
	Term   uint64 `json:"term,string"`
}

// VerifyResult compares every node's table at one index.
type VerifyResult struct {
	Index uint64       `json:"index,string"`
	Agree bool         `json:"agree"` // every node answered with the same hash
	Nodes []VerifyNode `json:"nodes"`
}

// VerifyNode is one node's part of a VerifyResult.
type VerifyNode struct {
	Name  string `json:"name"`
	Index uint64 `json:"index,string"`
	Hash  string `json:"hash"`            // hex; empty with Error
	Error string `json:"error,omitempty"` // why it gave none
}

// What a Difference is.
const (
	RowWithoutSession = "row_without_session" // the table has a route that the owner does not serve
	SessionWithoutRow = "session_without_row" // a session is open that the table does not have
)

// CheckResult compares the sessions of every node that is up with its rows in the table.
type CheckResult struct {
	Clean bool        `json:"clean"` // every node answered, and no difference is left
	Nodes []NodeCheck `json:"nodes"`
}

// NodeCheck is one node's part of a CheckResult.
type NodeCheck struct {
	Name        string       `json:"name"`
	Index       uint64       `json:"index,string"` // of its table when it had compared
	Rows        uint32       `json:"rows"`         // its routes in the table
	Sessions    uint32       `json:"sessions"`     // open on it
	Differences []Difference `json:"differences"`
	More        uint32       `json:"more"` // that were not looked into: check again
	Repaired    uint32       `json:"repaired"`
	Error       string       `json:"error,omitempty"` // why it did not compare
}

// Difference is one client in whom table and node do not agree.
type Difference struct {
	Kind     string     `json:"kind"`
	Client   string     `json:"client"`
	Tenant   string     `json:"tenant"`
	Epoch    wire.Epoch `json:"epoch,string"` // of the row, or of the session
	Repaired bool       `json:"repaired"`
}

// UpgradeResult tells what became of the feature level.
type UpgradeResult struct {
	From       uint32   `json:"from"`
	Level      uint32   `json:"level"`        // agreed now; From: all that every node can do was agreed on before
	HeldBackBy []string `json:"held_back_by"` // nodes but for which it would be higher
}

// SnapshotResult tells what was written.
type SnapshotResult struct {
	Node  string `json:"node"`
	ID    string `json:"id"`
	Index uint64 `json:"index,string"`
	Bytes uint64 `json:"bytes,string"`
}

// Route is the answer of a look-up. When Found is false the fields from Node to Epoch are zero.
type Route struct {
	Client      string           `json:"client"`
	Tenant      string           `json:"tenant"`
	Found       bool             `json:"found"`
	Node        string           `json:"node"` // the owner's name
	Incarnation wire.Incarnation `json:"incarnation,string"`
	NodeState   string           `json:"node_state"`
	Session     string           `json:"session"` // wire.SessionID as text
	Epoch       wire.Epoch       `json:"epoch,string"`
	Consistency string           `json:"consistency"`     // Linearizable or Local
	Index       uint64           `json:"index,string"`    // the table's, as it was read
	Leader      string           `json:"leader"`          // who proved the read; with Local, the leader as far as known
	OwnerCheck  string           `json:"owner_check"`     // OwnerConfirmed …
	Since       *time.Time       `json:"since,omitempty"` // when the session began, by the clock of the node that was asked; only if the owner confirmed it
	Nodes       []RouteView      `json:"nodes,omitempty"` // with all_nodes

	Devices []RouteRow `json:"devices,omitempty"` // of the user of just this id, whether or not Found
}

// RouteView is one node's own, local view of a route.
type RouteView struct {
	Name        string           `json:"name"`
	Found       bool             `json:"found"`
	Node        string           `json:"node"`
	Incarnation wire.Incarnation `json:"incarnation,string"`
	Epoch       wire.Epoch       `json:"epoch,string"`
	Index       uint64           `json:"index,string"`
	Error       string           `json:"error,omitempty"` // why this node did not answer
}

// RouteRow is one row of the table.
type RouteRow struct {
	Client      string           `json:"client"`
	Tenant      string           `json:"tenant"`
	Node        string           `json:"node"`
	Incarnation wire.Incarnation `json:"incarnation,string"`
	Session     string           `json:"session"` // wire.SessionID as text
	Epoch       wire.Epoch       `json:"epoch,string"`
}

// RoutePage is a part of the table, in an order that stays the same from page to page. Rows that come and go between two
// pages may be missing or not; a row that stays is in exactly one.
type RoutePage struct {
	Routes []RouteRow `json:"routes"`
	Next   string     `json:"next"` // cursor of the next page; empty: this was the last
	Index  uint64     `json:"index,string"`
	Stale  *Stale     `json:"stale,omitempty"` // nil: the node keeps up with the cluster
}

// Stale says that a node answered from its own table while it had no lease: whatever the cluster agreed on since it last heard
// a leader is missing.
type Stale struct {
	Node          string `json:"node"`            // who answered
	LeaderHeardMS int32  `json:"leader_heard_ms"` // how long ago it heard a leader; -1: never since it started
}

// RouteStats counts the table of the asked node.
type RouteStats struct {
	Routes uint32            `json:"routes"`  // live rows
	Void   uint32            `json:"void"`    // rows of ended incarnations, not yet reclaimed
	ByNode map[string]uint32 `json:"by_node"` // live rows by the owner's name
	Pages  uint32            `json:"pages"`
	Bytes  uint64            `json:"bytes,string"`
	Index  uint64            `json:"index,string"`
	Stale  *Stale            `json:"stale,omitempty"` // nil: the node keeps up with the cluster
}

// Kinds of RouteEvent. Readers must skip kinds that they do not know.
const (
	EventSet       = "set"       // the client is owned by Node at Epoch
	EventGone      = "gone"      // the client has no route any more
	EventNode      = "node"      // a node's state changed; its incarnation's routes are void if it is down
	EventResync    = "resync"    // events were skipped: what was known before may be out of date
	EventHeartbeat = "heartbeat" // nothing happened; the stream lives
	EventEnd       = "end"       // the last line: the node ends the stream; Reason says why
)

// RouteEvent is one line of the watch.
type RouteEvent struct {
	Event       string           `json:"event"`
	Client      string           `json:"client,omitempty"`
	Tenant      string           `json:"tenant,omitempty"`
	Node        string           `json:"node,omitempty"`
	Incarnation wire.Incarnation `json:"incarnation,string,omitempty"`
	Session     string           `json:"session,omitempty"`
	Epoch       wire.Epoch       `json:"epoch,string,omitempty"`
	State       string           `json:"state,omitempty"`  // with EventNode
	Index       uint64           `json:"index,string"`     // of the entry that did it; with EventHeartbeat, 0
	Reason      string           `json:"reason,omitempty"` // with EventEnd
	Status      Status           `json:"status,omitempty"` // with EventEnd, as the reason of an error: unauthorized if the API key was revoked or has expired
}

// KickResult names the session that was closed.
type KickResult struct {
	Client string     `json:"client"`
	Tenant string     `json:"tenant"`
	Node   string     `json:"node"`
	Epoch  wire.Epoch `json:"epoch,string"`
}

// Ack modes by name.
const (
	AckNone   = "none"
	AckOwner  = "owner"
	AckClient = "client"
)

// SendRequest is a message to send. To and one of Payload and PayloadB64 are required (an empty payload is given as
// "payload":"").
type SendRequest struct {
	From       string  `json:"from,omitempty"` // shown to the recipient and in the audit log; empty: "api"
	Tenant     string  `json:"tenant,omitempty"`
	Kind       string  `json:"kind,omitempty"` // what To names: client (default), group, prefix, user, service; all and others want no To; others leaves out the sessions of the client that From names, those of all its devices where that is a user, and is all without From. One instance of a service gets the request; its reply goes to the client that From names, if that is connected: who wants to hear it asks as a client
	To         string  `json:"to,omitempty"`
	Payload    *string `json:"payload,omitempty"`     // UTF-8 text
	PayloadB64 *string `json:"payload_b64,omitempty"` // standard base64, padded
	Ack        string  `json:"ack,omitempty"`         // AckNone, AckOwner (default), AckClient
	TimeoutMS  uint32  `json:"timeout_ms,omitempty"`  // how long to go on trying; 0: 5000
	ID         string  `json:"id,omitempty"`          // sixteen hex digits that are the sender's own, a dot and a number, such as 00000000000000a7.1, neither of them zero: the same id again is the same message. The numbers behind the same digits rise for each recipient: a lower one is answered out_of_order; who sends in no order takes new digits for each message and the number 1. None: the node makes one
}

// SendResult is how a send ended. HTTP answers 200 for every outcome: an outcome is an answer, not a failed request.
type SendResult struct {
	Result string    `json:"result"` // the code's name: delivered, offline, unavailable, timeout, unknown, accepted … For a service delivered means that an instance took the request, not that it answered
	Code   wire.Code `json:"code"`
	Owner  string    `json:"owner"` // the owner's name; empty where none was found
	Count  uint32    `json:"count"` // recipients reached, of a message to many
	RTTUS  uint32    `json:"rtt_us"`
	ID     string    `json:"id"` // the message's: what was given, or what the node made

	Missed    uint32   `json:"missed"`               // of a message to many: recipients that refused it or did not acknowledge it in time
	MissedIDs []string `json:"missed_ids,omitempty"` // client ids of some of them, 16 at most
}

// TokenGrants are patterns of what the client of a token may send to and join, such as "user:*" and "group:room-*". Nil: the
// token does not say, which leaves it to the node; empty: nothing.
type TokenGrants struct{ Send, Join *[]string }

// ClientToken lets a client log in.
type ClientToken struct {
	Client  string    `json:"client"`
	Tenant  string    `json:"tenant"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Readiness says whether the node should be sent new clients.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why not: electing, no quorum, not caught up, no lease, draining, disk nearly full
}

// VersionInfo names the build.
type VersionInfo struct {
	Version         string `json:"version"`
	Commit          string `json:"commit"`
	Go              string `json:"go"`
	OS              string `json:"os"`
	Arch            string `json:"arch"`
	Node            string `json:"node"`
	FeatureLevel    uint32 `json:"feature_level"` // the highest this build speaks
	ProtocolVersion uint32 `json:"protocol_version"`
}
