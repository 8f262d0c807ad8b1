package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// Nodes lists the members.
func (c *Client) Nodes(ctx context.Context) (nodes []Node, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/nodes", out: &nodes})
	return nodes, err
}

// Node asks for one node, by name or id.
func (c *Client) Node(ctx context.Context, ref string) (n NodeDetail, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: nodePath(ref, ""), out: &n})
	return n, err
}

// Drain empties a node, or cancels that. It returns once this is recorded; follow it in Nodes.
func (c *Client) Drain(ctx context.Context, ref string, cancel bool) (n Node, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: nodePath(ref, "drain"), in: drainBody{Cancel: cancel}, out: &n})
	return n, err
}

// Leave makes a node leave the cluster and end. It returns once that has begun; the node is gone when Nodes lacks it.
func (c *Client) Leave(ctx context.Context, ref string) (n Node, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: nodePath(ref, "leave"), out: &n})
	return n, err
}

// Promote makes a node a voter.
func (c *Client) Promote(ctx context.Context, ref string) (n Node, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: nodePath(ref, "promote"), out: &n})
	return n, err
}

// Demote makes a voter a non-voter.
func (c *Client) Demote(ctx context.Context, ref string) (n Node, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: nodePath(ref, "demote"), out: &n})
	return n, err
}

// Remove takes a dead node out for good; force does so with one that still lives.
func (c *Client) Remove(ctx context.Context, ref string, force bool) error {
	path := nodePath(ref, "")
	if force {
		path += "?force=true"
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path})
}

// ClusterStatus asks how the cluster is. Without a quorum that is in the answer, not an error.
func (c *Client) ClusterStatus(ctx context.Context) (s ClusterStatus, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/cluster", out: &s})
	return s, err
}

// Settings reads the cluster's settings.
func (c *Client) Settings(ctx context.Context) (s Settings, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/cluster/settings", out: &s})
	return s, err
}

// ChangeSettings changes what is not nil and returns all settings.
func (c *Client) ChangeSettings(ctx context.Context, ch SettingsChange) (s Settings, err error) {
	err = c.do(ctx, call{method: http.MethodPut, path: "/v1/cluster/settings", in: ch, out: &s})
	return s, err
}

// CreateToken makes a join token that holds for ttl, counted in whole seconds.
func (c *Client) CreateToken(ctx context.Context, ttl time.Duration) (t JoinToken, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/tokens", in: tokenBody{TTLSeconds: seconds(ttl)}, out: &t, once: true})
	return t, err
}

// Tokens lists the join tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) (ts []JoinTokenInfo, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/tokens", out: &ts})
	return ts, err
}

// RevokeToken ends a join token by its id.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/tokens/" + segment(id)})
}

// RaftPeers reads the Raft configuration.
func (c *Client) RaftPeers(ctx context.Context) (p RaftPeers, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/raft/peers", out: &p})
	return p, err
}

// TransferLeadership hands leadership to a voter; to may be empty.
func (c *Client) TransferLeadership(ctx context.Context, to string) (r TransferResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/raft/transfer", in: transferBody{To: to}, out: &r})
	return r, err
}

// VerifyTables compares all nodes' tables at one index. A difference is in the answer, not an error.
func (c *Client) VerifyTables(ctx context.Context) (r VerifyResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/raft/verify", out: &r})
	return r, err
}

// RaiseFeatureLevel agrees on the highest feature level that every node can do.
func (c *Client) RaiseFeatureLevel(ctx context.Context) (u UpgradeResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/cluster/upgrade", out: &u})
	return u, err
}

// CheckRoutes compares every node's sessions with the table, and repairs with fix. A difference is in the answer, not an
// error.
func (c *Client) CheckRoutes(ctx context.Context, fix bool) (r CheckResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/routes/check", in: checkBody{Fix: fix}, out: &r})
	return r, err
}

// TakeSnapshot makes the node that answers write a snapshot.
func (c *Client) TakeSnapshot(ctx context.Context) (r SnapshotResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/raft/snapshot", out: &r})
	return r, err
}

// Route looks a client up; consistency is Linearizable (also if empty) or Local. No route is not an error: Found is false.
func (c *Client) Route(ctx context.Context, client wire.ClientID, consistency string, allNodes bool) (r Route, err error) {
	q := query("tenant", client.Tenant, "consistency", consistency)
	if allNodes {
		q.Set("all_nodes", "true")
	}
	err = c.do(ctx, call{method: http.MethodGet, path: routePath(client.ID, "", q), out: &r, okStatus: http.StatusNotFound})
	return r, err
}

// Routes reads one page of the table of the node that answers. A cursor is valid at every node. Limit 0 is DefaultPage.
func (c *Client) Routes(ctx context.Context, q RouteListQuery) (p RoutePage, err error) {
	v := query("node", q.Node, "prefix", q.Prefix, "cursor", q.Cursor)
	setTenant(v, q.Tenant)
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	err = c.do(ctx, call{method: http.MethodGet, path: withQuery("/v1/routes", v), out: &p})
	return p, err
}

// EachRoute reads all pages and hands every row to f, until f returns an error, which it returns.
func (c *Client) EachRoute(ctx context.Context, q RouteListQuery, f func(RouteRow) error) error {
	return c.EachRoutePage(ctx, q, func(page RoutePage) error {
		for _, r := range page.Routes {
			if err := f(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// EachRoutePage reads all pages and hands them to f, until f returns an error, which it returns.
func (c *Client) EachRoutePage(ctx context.Context, q RouteListQuery, f func(RoutePage) error) error {
	for {
		page, err := c.Routes(ctx, q)
		if err != nil {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		if page.Next == "" {
			return nil
		}
		if page.Next == q.Cursor {
			return Errorf(StatusInternal, "the list of routes does not advance beyond cursor %q", q.Cursor)
		}
		q.Cursor = page.Next
	}
}

// RouteStats counts the table of the node that answers.
func (c *Client) RouteStats(ctx context.Context) (s RouteStats, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/routes/stats", out: &s})
	return s, err
}

// Kick closes a client's session.
func (c *Client) Kick(ctx context.Context, client wire.ClientID, reason string) (r KickResult, err error) {
	k := call{method: http.MethodPost, path: routePath(client.ID, "kick", nil), out: &r, once: true}
	k.in = kickBody{Tenant: client.Tenant, Reason: reason}
	err = c.do(ctx, k)
	return r, err
}

// Send sends a message and waits for its outcome. It names the message (ID) if the caller did not, so that asking a second
// node after the first one broke leads to no second delivery. A context without a deadline gets one behind the message's
// own time-out.
func (c *Client) Send(ctx context.Context, m SendRequest) (r SendResult, err error) {
	if m.ID == "" {
		m.ID = wire.MessageID{Instance: wire.NewID(), Counter: 1}.String()
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		wait := DefaultSendTimeout
		if m.TimeoutMS != 0 {
			wait = time.Duration(m.TimeoutMS) * time.Millisecond
		}
		ctx, cancel = context.WithTimeout(ctx, wait*time.Duration(len(c.bases))+5*time.Second)
		defer cancel()
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/messages", in: m, out: &r})
	return r, err
}

// ClientToken has a login token signed, for ttl in whole seconds.
func (c *Client) ClientToken(ctx context.Context, client wire.ClientID, ttl time.Duration) (t ClientToken, err error) {
	return c.ClientTokenFor(ctx, client, ttl, TokenGrants{})
}

// ClientTokenFor is ClientToken with a say in what the client may send to and join.
func (c *Client) ClientTokenFor(ctx context.Context, client wire.ClientID, ttl time.Duration, grants TokenGrants) (t ClientToken, err error) {
	in := clientTokenBody{Client: client.ID, Tenant: client.Tenant, TTLSeconds: seconds(ttl), Send: grants.Send, Join: grants.Join}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/client-tokens", in: in, out: &t})
	return t, err
}

// Version asks the node that answers for its build.
func (c *Client) Version(ctx context.Context) (v VersionInfo, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/version", out: &v})
	return v, err
}

// Ready asks the first node that answers whether it is ready. Not being ready is in the answer, not an error.
func (c *Client) Ready(ctx context.Context) (r Readiness, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/readyz", out: &r, okStatus: http.StatusServiceUnavailable})
	return r, err
}

// Healthy asks the first address that answers whether a process lives there.
func (c *Client) Healthy(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: "/healthz"})
}

func nodePath(ref, verb string) string {
	path := "/v1/nodes/" + segment(ref)
	if verb != "" {
		path += "/" + verb
	}
	return path
}

func routePath(client, verb string, q url.Values) string {
	path := "/v1/routes/" + segment(client)
	if verb != "" {
		path += "/" + verb
	}
	return withQuery(path, q)
}

// segment percent-encodes one path segment. The first byte is always encoded: that keeps a client called "stats" apart
// from the endpoint of that name, now and for every endpoint to come, and "." and ".." from being tidied away.
func segment(s string) string {
	if s == "" {
		return ""
	}
	rest := strings.ReplaceAll(url.PathEscape(s[1:]), ".", "%2E")
	return fmt.Sprintf("%%%02X", s[0]) + rest
}

func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// setTenant keeps "the empty tenant" apart from "every tenant".
func setTenant(v url.Values, tenant *string) {
	if tenant != nil {
		v.Set("tenant", *tenant)
	}
}

func withQuery(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

func seconds(d time.Duration) uint32 {
	return uint32(min(max((d+time.Second-1)/time.Second, 0), 1<<31))
}
