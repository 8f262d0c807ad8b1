package admin

import (
	"net/http"
	"strings"

	"imroute/mesh/wire"
)

// table is every endpoint there is.
func (s *Server) table() []route {
	const send, presence, groups, kicks, assigns = wire.ScopeSend, wire.ScopePresence, wire.ScopeGroups, wire.ScopeKick, wire.ScopeAssign
	t := []route{
		{method: "GET", path: "/healthz", open: true, handler: healthz},
		{method: "GET", path: "/readyz", open: true, handler: readyz},
		{method: "GET", path: "/v1/version", scope: anyScope, handler: version},
		{method: "GET", path: "/metrics", stream: s.metrics},
		{method: "GET", path: "/debug/pprof/*", stream: s.pprof},
		{method: "POST", path: "/debug/pprof/symbol", stream: s.pprof},

		{method: "GET", path: "/v1/nodes", handler: listNodes},
		{method: "GET", path: "/v1/nodes/{node}", handler: getNode},
		{method: "POST", path: "/v1/nodes/{node}/drain", action: "node.drain", handler: drainNode},
		{method: "POST", path: "/v1/nodes/{node}/leave", action: "node.leave", handler: leaveNode},
		{method: "POST", path: "/v1/nodes/{node}/promote", action: "node.promote", handler: promoteNode},
		{method: "POST", path: "/v1/nodes/{node}/demote", action: "node.demote", handler: demoteNode},
		{method: "DELETE", path: "/v1/nodes/{node}", action: "node.remove", handler: removeNode},

		{method: "GET", path: "/v1/cluster", handler: clusterStatus},
		{method: "GET", path: "/v1/cluster/settings", handler: getSettings},
		{method: "PUT", path: "/v1/cluster/settings", action: "cluster.settings", handler: putSettings},
		{method: "POST", path: "/v1/cluster/upgrade", action: "cluster.upgrade", handler: upgrade},
		{method: "POST", path: "/v1/tokens", action: "token.create", handler: createToken},
		{method: "GET", path: "/v1/tokens", handler: listTokens},
		{method: "DELETE", path: "/v1/tokens/{id}", action: "token.revoke", handler: revokeToken},

		{method: "GET", path: "/v1/raft/peers", handler: raftPeers},
		{method: "POST", path: "/v1/raft/transfer", action: "raft.transfer", handler: raftTransfer},
		{method: "POST", path: "/v1/raft/verify", action: "raft.verify", handler: raftVerify},
		{method: "POST", path: "/v1/raft/snapshot", action: "raft.snapshot", handler: raftSnapshot},

		{method: "GET", path: "/v1/routes", handler: listRoutes},
		{method: "GET", path: "/v1/routes/stats", handler: routeStats}, // words before {client}: the first match counts
		{method: "GET", path: "/v1/routes/watch", stream: s.watch},
		{method: "POST", path: "/v1/routes/check", action: "route.check", handler: checkRoutes},
		{method: "GET", path: "/v1/routes/{client}", handler: getRoute},
		{method: "GET", path: "/v1/route", handler: getRoute}, // for a client that is called as one of the words above
		{method: "POST", path: "/v1/routes/{client}/kick", scope: kicks, action: "route.kick", handler: kick},

		{method: "GET", scope: groups, path: "/v1/groups", handler: listGroups},
		{method: "GET", scope: groups, path: "/v1/groups/{group}/members", handler: groupMembers},
		{method: "GET", scope: groups, path: "/v1/services", handler: listServices},
		{method: "GET", path: "/v1/presence/count", handler: presenceCount},
		{method: "POST", scope: groups, path: "/v1/groups/{group}/close", action: "group.close", handler: closeGroup},

		{method: "POST", path: "/v1/messages", scope: send, action: "message.send", handler: sendMessage},
		{method: "POST", path: "/v1/messages/many", scope: send, action: "message.send-many", handler: sendMany},
		{method: "GET", path: "/v1/presence/{client}", scope: presence, handler: presenceOne},
		{method: "GET", path: "/v1/presence", scope: presence, handler: presenceOne}, // for a client called count
		{method: "POST", path: "/v1/presence", scope: presence, handler: presenceMany},
		{method: "GET", path: AssignPath, scope: assigns, handler: assign},
		{method: "GET", path: "/v1/openapi.yaml", scope: anyScope, stream: s.openAPI},

		{method: "GET", path: "/v1/cluster/rebalance", handler: showRebalance},
		{method: "POST", path: "/v1/cluster/rebalance", action: "cluster.rebalance", handler: startRebalance},
		{method: "POST", path: "/v1/api-keys", action: "api-key.create", handler: createKey},
		{method: "GET", path: "/v1/api-keys", handler: listKeys},
		{method: "DELETE", path: "/v1/api-keys/{id}", action: "api-key.revoke", handler: revokeKey},

		{method: "POST", path: "/v1/client-tokens", action: actionClientToken, handler: clientToken},
	}
	for i := range t {
		t[i].parts = strings.Split(strings.TrimPrefix(t[i].path, "/"), "/")
	}
	return t
}

func healthz(*request) (any, error) {
	return struct {
		OK bool `json:"ok"`
	}{true}, nil
}

func readyz(r *request) (any, error) {
	ready := r.s.cfg.Backend.Ready()
	ready.Reasons = list(ready.Reasons)
	if !ready.Ready {
		return answer{http.StatusServiceUnavailable, ready}, nil
	}
	return ready, nil
}

func version(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.Version(), nil
}

func listNodes(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	nodes, err := r.s.cfg.Backend.Nodes(r.ctx)
	return list(nodes), err
}

func getNode(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	n, err := r.s.cfg.Backend.Node(r.ctx, r.params["node"])
	if n.Detail != nil {
		d := *n.Detail // the backend's is not ours to change
		d.PeersUp, d.PeersDown = list(d.PeersUp), list(d.PeersDown)
		n.Detail = &d
	}
	return n, err
}

func drainNode(r *request) (any, error) {
	ref := r.node()
	var b drainBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("cancel", b.Cancel)
	return r.s.cfg.Backend.DrainNode(r.ctx, ref, b.Cancel)
}

func leaveNode(r *request) (any, error) {
	ref := r.node()
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.LeaveNode(r.ctx, ref)
}

func promoteNode(r *request) (any, error) {
	ref := r.node()
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.PromoteNode(r.ctx, ref)
}

func demoteNode(r *request) (any, error) {
	ref := r.node()
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.DemoteNode(r.ctx, ref)
}

func removeNode(r *request) (any, error) {
	ref := r.node()
	q, err := r.query("force")
	if err != nil {
		return nil, err
	}
	force, err := boolParam(q, "force")
	if err != nil {
		return nil, err
	}
	r.note("force", force)
	if err := r.body(&struct{}{}); err != nil {
		return nil, err
	}
	return done{}, r.s.cfg.Backend.RemoveNode(r.ctx, ref, force)
}

// done is the answer of calls that have nothing to tell.
type done struct{}

// node is the node named in the path, noted for the audit.
func (r *request) node() string {
	r.note("node", r.params["node"])
	return r.params["node"]
}

// only reads the body of an endpoint that takes no parameters.
func (r *request) only(v any) error {
	if _, err := r.query(); err != nil {
		return err
	}
	return r.body(v)
}

// list makes an empty list of none: JSON would say null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}
