package admin

import (
	"context"
	"time"

	"imroute/mesh/wire"
)

// Backend is what the server needs of a node. Every method may be called from many goroutines at once.
//
// A method ends by itself when its context does; the server gives each call at most Config.CallTimeout. Where a method
// has to ask the leader or another node it does so itself: any node answers any question.
//
// "ref" names a node by its name or by its id (sixteen hex digits). If both fit different nodes the name wins.
//
// Errors are *Error, *wire.Error, or a context's; anything else is answered as internal and logged. By their Status:
//
//   - StatusUnavailable: no quorum, no leader, or not ready yet. NOTHING was changed; Client asks the next address.
//   - StatusTimeout (also wire.Unknown): the outcome is not known, it may yet take effect.
//   - StatusNotFound: no such node, route, token.
//   - StatusConflict: refused for a reason that trying again does not change; Hint says what would.
//   - StatusBadRequest: an argument that only the backend can judge is wrong.
//
// Set Hint whenever the operator can do something about it.
type Backend interface {
	// Ready says whether the node should be sent clients. It must not block: it reads what the node knows anyway.
	Ready() Readiness
	// Version names build and node. It does not block.
	Version() VersionInfo

	// Nodes lists all members ordered by name, from this node's own table and what it last heard of them. It needs no
	// quorum and does not block on the network.
	Nodes(ctx context.Context) ([]Node, error)
	// Node asks the node itself for its Detail; a node that does not answer in time is no error but Reachable false.
	// StatusNotFound if there is no such member.
	Node(ctx context.Context, ref string) (NodeDetail, error)

	// DrainNode records that a node is to be emptied (or, with cancel, no more) and returns once that is committed; the
	// emptying goes on afterwards and shows in Nodes (State, Clients). Idempotent: a node that drains already is no error.
	DrainNode(ctx context.Context, ref string, cancel bool) (Node, error)
	// LeaveNode makes a node drain, hand over leadership, leave the configuration and end its process. It returns once that
	// has begun; the node is gone when Nodes no longer has it. Idempotent while it is under way. StatusConflict for the
	// last member.
	LeaveNode(ctx context.Context, ref string) (Node, error)
	// PromoteNode makes a node a voter once it has caught up and waits for that. Idempotent. StatusConflict for a node that
	// is down.
	PromoteNode(ctx context.Context, ref string) (Node, error)
	// DemoteNode makes a voter a non-voter; a leader hands over first. Idempotent. StatusConflict for the last voter.
	DemoteNode(ctx context.Context, ref string) (Node, error)
	// RemoveNode takes a dead node out of the cluster for good; its id never comes back. A node that is not down is
	// StatusConflict with a hint (drain and leave, or force); with force its grants stop and its lease is waited for.
	// Idempotent only in effect: the second call is StatusNotFound.
	RemoveNode(ctx context.Context, ref string, force bool) error

	// ClusterStatus judges the whole. It never fails for want of a quorum: that is its answer then.
	ClusterStatus(ctx context.Context) (ClusterStatus, error)
	// Settings reads the agreed settings from this node's table.
	Settings(ctx context.Context) (Settings, error)
	// ChangeSettings changes what is not nil (values are checked by the server) and returns all as they are then, once
	// that is committed. Idempotent.
	ChangeSettings(ctx context.Context, c SettingsChange) (Settings, error)

	// CreateToken makes a join token that holds for ttl (more than 0) and returns once its hash is committed. Not
	// idempotent: each call makes another.
	CreateToken(ctx context.Context, ttl time.Duration) (JoinToken, error)
	// Tokens lists what is kept of the tokens, by expiry.
	Tokens(ctx context.Context) ([]JoinTokenInfo, error)
	// RevokeToken ends a token. StatusNotFound if there is none of that id. Nodes that joined by it stay.
	RevokeToken(ctx context.Context, id string) error

	// RaftPeers reads this node's latest configuration; it needs no quorum.
	RaftPeers(ctx context.Context) (RaftPeers, error)
	// TransferLeadership hands leadership to a voter (empty: the leader's choice) and waits until there is a new leader.
	// StatusConflict if that node is no voter. Idempotent when to leads already.
	TransferLeadership(ctx context.Context, to string) (TransferResult, error)
	// VerifyTables has every node hash its table at one index. Nodes that do not answer in time are in the result with
	// their error; then Agree is false.
	VerifyTables(ctx context.Context) (VerifyResult, error)
	// RaiseFeatureLevel agrees on the highest level that every node which is up can do, and returns once that is committed.
	// Idempotent. StatusConflict, naming them, if some nodes keep the others from a higher one and there is nothing to raise.
	RaiseFeatureLevel(ctx context.Context) (UpgradeResult, error)
	// TakeSnapshot writes a snapshot on this node and waits for it. StatusConflict if there is nothing new to write.
	TakeSnapshot(ctx context.Context) (SnapshotResult, error)

	// Route looks a client up. No route is not an error: Found is false.
	Route(ctx context.Context, q RouteQuery) (Route, error)
	// Routes reads one page of this node's own table. StatusBadRequest for a cursor that is not one of its own.
	Routes(ctx context.Context, q RouteListQuery) (RoutePage, error)
	// RouteStats counts this node's own table without scanning it.
	RouteStats(ctx context.Context) (RouteStats, error)
	// CheckRoutes has every node that is up compare its sessions with its rows in the table, and with fix repair what
	// differs. Nodes that do not answer in time are in the result with their error. Idempotent.
	CheckRoutes(ctx context.Context, fix bool) (CheckResult, error)
	// WatchRoutes calls emit for each change of this node's own table that fits q, in order, from one goroutine, until the
	// context ends or emit fails; then it returns nil or that error. It starts with EventResync, which carries the index
	// from which on it reports. emit may block: a backend that falls behind drops events and emits EventResync; it never
	// holds Apply up. It emits neither heartbeats nor the end.
	WatchRoutes(ctx context.Context, q WatchQuery, emit func(RouteEvent) error) error
	// Kick closes a client's session and returns once it is no longer delivered to. reason (may be empty) is told to the
	// client. StatusNotFound if it has no route. Not idempotent: a client that comes back is kicked by the second call.
	Kick(ctx context.Context, client wire.ClientID, reason string) (KickResult, error)

	// Groups reads one page of a tenant's groups, with every one that was joined before the call; it needs a quorum.
	Groups(ctx context.Context, q GroupQuery) (GroupPage, error)
	// GroupMembers asks the nodes that have members of a group and merges a page of what they say. A group that nobody is in
	// has none; that is no error.
	GroupMembers(ctx context.Context, group wire.Topic, q GroupQuery) (GroupMembers, error)
	// CloseGroup removes all members of a group, each of whom is told reason. Who joins later is in it again. Idempotent.
	CloseGroup(ctx context.Context, group wire.Topic, reason string) (GroupClosed, error)

	PresenceBackend

	// Assign names a node that takes clients: one that is up, not draining, not full, and whose lease was renewed lately.
	// StatusUnavailable if no such node is known.
	Assign(ctx context.Context, q AssignQuery) (Assignment, error)
	// Presence says who of some clients is online, by linearizable reads, in the order asked.
	Presence(ctx context.Context, clients []wire.ClientID) ([]Presence, error)
	// Rebalance has every node move clients away, at most rate a second, until it has no more than its share; with rate 0 it
	// only says how far that is. It returns once it has begun. Nodes that do not answer are in the result. Idempotent: what is
	// under way goes on towards the same number, with the new rate.
	Rebalance(ctx context.Context, rate uint32) (Rebalance, error)

	// CreateAPIKey makes a key and returns once its hash is committed. Not idempotent: each call makes another.
	CreateAPIKey(ctx context.Context, q NewAPIKey) (APIKey, error)
	// APIKeys lists what is kept of the keys, by id.
	APIKeys(ctx context.Context) ([]APIKeyInfo, error)
	// RevokeAPIKey ends a key and returns once every node that is up refuses it, or names those that did not confirm that in time.
	// StatusNotFound if there is none of that id.
	RevokeAPIKey(ctx context.Context, id string) (APIKeyRevoked, error)

	// Send sends a message and waits for its outcome, at most m.Timeout. Outcomes (offline, unavailable …) are results;
	// errors are kept for messages that were never tried. A second call with the same ID gets the first one's outcome or
	// leads to no second delivery. m.Payload is the backend's to keep.
	Send(ctx context.Context, m Message) (SendResult, error)
	// ClientToken signs a login token with the cluster's key. StatusConflict with a hint where there is no such key: in
	// development mode (no token needed) or where own keys are configured (the owner of the keys signs).
	ClientToken(ctx context.Context, client wire.ClientID, ttl time.Duration, grants TokenGrants) (ClientToken, error)
}

// RouteQuery asks for one client's route. Client is valid (wire.ClientID.Validate), Consistency one of the constants.
type RouteQuery struct {
	Client      wire.ClientID
	Consistency string
	AllNodes    bool // also ask every node for its own local view
}

// RouteListQuery asks for a page.
type RouteListQuery struct {
	Node   string // ref; empty: all
	Tenant *string
	Prefix string // of the client id
	Cursor string // RoutePage.Next of the page before; empty: the first
	Limit  int    // 1 to MaxPage
}

// WatchQuery filters the watch. EventNode and EventResync always pass.
type WatchQuery struct {
	Tenant *string // nil: every tenant
	Client string  // exactly this id; empty: all
	Prefix string  // of the client id
}

// Message is a checked SendRequest.
type Message struct {
	From    string        // empty, or a valid client id; the API is trusted with it
	To      wire.ClientID // its tenant, and what Kind says in place of an id
	Kind    wire.Kind
	Payload []byte
	Ack     wire.AckMode
	Timeout time.Duration  // more than 0, at most MaxSendTimeout
	ID      wire.MessageID // never zero: the server makes one where the caller gave none
}

// Limits of the API.
const (
	MaxPage        = 1000             // rows of a page of routes
	DefaultPage    = 100              // when no limit is asked for
	MaxSendTimeout = 60 * time.Second // of one message
	MaxTokenTTL    = 366 * 24 * time.Hour
)
