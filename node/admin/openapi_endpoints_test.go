package admin

import (
	"flag"
	"strings"
)

var updateOpenAPI = flag.Bool("update-openapi", false, "write openapi.yaml anew from the types and this file's table")

// endpoint is what the types do not say about a route. Whether it is true is for TestOpenAPI to find out from the handlers.
type endpoint struct {
	summary  string
	query    []string // "name" or "name:type", required ones with a "!" before; default type string
	in, out  any      // zero values of the bodies' types; nil: none
	required []string // fields of in
	example  string   // body of a call that succeeds
	with     string   // query of a call that succeeds
	statuses []int    // nil: those that every call of the backend may have
	content  string   // of 200, where it is not JSON
	once     int      // another status that has the body of 200
}

var backendStatuses = []int{200, 400, 401, 403, 404, 409, 413, 429, 500, 503, 504}

var endpoints = map[string]endpoint{
	"GET /healthz": {summary: "Whether a process lives here", out: struct {
		OK bool `json:"ok"`
	}{}, statuses: []int{200}},
	"GET /readyz":     {summary: "Whether this node should be sent clients", out: Readiness{}, statuses: []int{200, 503}},
	"GET /metrics":    {summary: "Metrics of this node for Prometheus", content: "text/plain", statuses: []int{200, 401, 403}},
	"GET /v1/version": {summary: "Build and name of this node", out: VersionInfo{}, statuses: []int{200, 400, 401, 403, 413, 429}},

	"GET /v1/nodes":                 {summary: "List the nodes", out: []Node{}},
	"GET /v1/nodes/{node}":          {summary: "One node, as it says itself", out: NodeDetail{}},
	"POST /v1/nodes/{node}/drain":   {summary: "Empty a node, or cancel that", in: drainBody{}, out: Node{}},
	"POST /v1/nodes/{node}/leave":   {summary: "Have a node leave the cluster", out: Node{}},
	"POST /v1/nodes/{node}/promote": {summary: "Make a node a voter", out: Node{}},
	"POST /v1/nodes/{node}/demote":  {summary: "Make a node a non-voter", out: Node{}},
	"DELETE /v1/nodes/{node}":       {summary: "Take a dead node out of the cluster", query: []string{"force:boolean"}, out: done{}},

	"GET /v1/cluster":            {summary: "The cluster as a whole", out: ClusterStatus{}},
	"GET /v1/cluster/settings":   {summary: "The agreed settings", out: Settings{}},
	"PUT /v1/cluster/settings":   {summary: "Change settings", in: SettingsChange{}, out: Settings{}, example: `{"target_voters":3}`},
	"POST /v1/cluster/upgrade":   {summary: "Raise the feature level to what every node knows", out: UpgradeResult{}},
	"GET /v1/cluster/rebalance":  {summary: "How far moving clients is", out: Rebalance{}},
	"POST /v1/cluster/rebalance": {summary: "Move clients gently until the nodes have about the same number", in: rebalanceBody{}, out: Rebalance{}},
	"POST /v1/tokens":            {summary: "Make a join token", in: tokenBody{}, out: JoinToken{}},
	"GET /v1/tokens":             {summary: "List join tokens", out: []JoinTokenInfo{}},
	"DELETE /v1/tokens/{id}":     {summary: "End a join token", out: done{}},

	"GET /v1/raft/peers":     {summary: "The Raft configuration", out: RaftPeers{}},
	"POST /v1/raft/transfer": {summary: "Hand leadership over", in: transferBody{}, out: TransferResult{}},
	"POST /v1/raft/verify":   {summary: "Compare the tables of all nodes", out: VerifyResult{}},
	"POST /v1/raft/snapshot": {summary: "Write a snapshot on this node", out: SnapshotResult{}},

	"GET /v1/routes":                {summary: "One page of the table", out: RoutePage{}, query: []string{"node", "tenant", "prefix", "cursor", "limit:integer"}},
	"GET /v1/routes/stats":          {summary: "Count the table", out: RouteStats{}},
	"GET /v1/routes/watch":          {summary: "Follow the table: one JSON object a line; the last one, event end, says why it ends, say that the API key was revoked or has expired", content: "application/x-ndjson", statuses: []int{200, 400, 401, 403, 429, 503}, query: []string{"tenant", "client", "prefix"}},
	"POST /v1/routes/check":         {summary: "Compare the nodes' sessions with the table", in: checkBody{}, out: CheckResult{}},
	"GET /v1/routes/{client}":       {summary: "Who owns a client; one called stats or watch is asked for with GET /v1/route", out: Route{}, query: []string{"tenant", "consistency", "all_nodes:boolean"}, once: 404},
	"GET /v1/route":                 {summary: "Who owns a client, whatever it is called", out: Route{}, query: []string{"!client", "tenant", "consistency", "all_nodes:boolean"}, with: "client=stats", once: 404},
	"POST /v1/routes/{client}/kick": {summary: "Close a client's session", in: kickBody{}, out: KickResult{}},

	"GET /v1/groups":                 {summary: "One page of a tenant's groups", out: GroupPage{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"GET /v1/groups/{group}/members": {summary: "One page of a group's members", out: GroupMembers{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"POST /v1/groups/{group}/close":  {summary: "Remove all members of a group", in: groupCloseBody{}, out: GroupClosed{}},

	"POST /v1/messages": {summary: "Send a message to a client, a group, a user or many", in: SendRequest{}, out: SendResult{}, example: `{"to":"bob","payload":"hi"}`},
	"POST /v1/messages/many": {
		summary: "Send a message to several clients", in: SendManyRequest{}, out: SendManyResult{}, required: []string{"to"}, example: `{"to":["bob","eve"],"payload":"hi"}`,
		statuses: []int{200, 400, 401, 403, 413, 429},
	},
	"GET /v1/services":          {summary: "One page of a tenant's services", out: ServicePage{}, query: []string{"tenant", "cursor", "limit:integer"}},
	"GET /v1/presence/count":    {summary: "How many clients and users are online, in one tenant or in all", out: PresenceCount{}, query: []string{"tenant"}},
	"GET /v1/presence/{client}": {summary: "Whether a client is online; one called count is asked for with GET /v1/presence", out: Presence{}, query: []string{"tenant"}},
	"GET /v1/presence":          {summary: "Whether a client is online, whatever it is called", out: Presence{}, query: []string{"!client", "tenant"}, with: "client=count"},
	"POST /v1/presence":         {summary: "Who of several clients is online", in: PresenceRequest{}, out: PresenceList{}, required: []string{"clients"}, example: `{"clients":["a","b"]}`},
	"GET /v1/assign":            {summary: "Where a client should connect", out: Assignment{}, query: []string{"!client", "tenant", "transport"}, with: "client=bob"},
	"POST /v1/client-tokens":    {summary: "Sign a login token", in: clientTokenBody{}, out: ClientToken{}, required: []string{"client"}, example: `{"client":"bob"}`},

	"POST /v1/api-keys":        {summary: "Make an API key", in: APIKeyRequest{}, out: APIKey{}, required: []string{"scopes"}, example: `{"scopes":["send"]}`},
	"GET /v1/api-keys":         {summary: "List API keys", out: []APIKeyInfo{}},
	"DELETE /v1/api-keys/{id}": {summary: "End an API key, on every node that is up", out: APIKeyRevoked{}},
	"GET /v1/openapi.yaml":     {summary: "This description", content: "application/yaml", statuses: []int{200, 400, 401, 403}},
}

// undescribed are Go's own, for people with Go's tools.
func undescribed(rt *route) bool { return strings.HasPrefix(rt.path, "/debug/") }

func (e *endpoint) codes() []int {
	if e.statuses != nil {
		return e.statuses
	}
	return backendStatuses
}

// generator makes schemas of Go types, with their comments as descriptions.
type generator struct {
	schemas  map[string]any
	comments map[string]string // "Type" and "Type.Field"
}
