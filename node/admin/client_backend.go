package admin

import (
	"context"
	"net/http"

	"imroute/mesh/wire"
)

// Assign asks where a client should connect; transport is tcp (also if empty) or ws.
func (c *Client) Assign(ctx context.Context, client wire.ClientID, transport string) (a Assignment, err error) {
	path := withQuery(AssignPath, query("client", client.ID, "tenant", client.Tenant, "transport", transport))
	err = c.do(ctx, call{method: http.MethodGet, path: path, out: &a})
	return a, err
}

// Presence asks whether a client is online.
func (c *Client) Presence(ctx context.Context, client wire.ClientID) (p Presence, err error) {
	path := withQuery("/v1/presence/"+segment(client.ID), query("tenant", client.Tenant))
	err = c.do(ctx, call{method: http.MethodGet, path: path, out: &p})
	return p, err
}

// PresenceOf asks for up to MaxPresence clients of a tenant at once.
func (c *Client) PresenceOf(ctx context.Context, tenant string, clients []string) ([]Presence, error) {
	var p PresenceList
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/presence", in: PresenceRequest{Tenant: tenant, Clients: clients}, out: &p})
	return p.Clients, err
}

// SendMany sends one message to several clients and waits for every outcome. As with Send it names the message.
func (c *Client) SendMany(ctx context.Context, m SendManyRequest) (r SendManyResult, err error) {
	if m.ID == "" {
		m.ID = wire.MessageID{Instance: wire.NewID(), Counter: 1}.String()
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/messages/many", in: m, out: &r})
	return r, err
}

// CreateAPIKey makes an API key.
func (c *Client) CreateAPIKey(ctx context.Context, q APIKeyRequest) (k APIKey, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/api-keys", in: q, out: &k, once: true})
	return k, err
}

// APIKeys lists the API keys, without their secrets.
func (c *Client) APIKeys(ctx context.Context) (ks []APIKeyInfo, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/api-keys", out: &ks})
	return ks, err
}

// RevokeAPIKey ends an API key. What it returns names the nodes that may take it for another moment.
func (c *Client) RevokeAPIKey(ctx context.Context, id string) (r APIKeyRevoked, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/api-keys/" + segment(id), out: &r})
	return r, err
}

// Rebalance starts moving clients, at most rate (0: DefaultRebalanceRate) a second away from each node that has too many.
func (c *Client) Rebalance(ctx context.Context, rate uint32) (r Rebalance, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/cluster/rebalance", in: rebalanceBody{Rate: rate}, out: &r})
	return r, err
}

// RebalanceState says how far that is.
func (c *Client) RebalanceState(ctx context.Context) (r Rebalance, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/cluster/rebalance", out: &r})
	return r, err
}
