package admin

import (
	"context"
	"net/http"
)

// Services reads one page of a tenant's services. Limit 0 is DefaultPage.
func (c *Client) Services(ctx context.Context, q GroupQuery) (p ServicePage, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: groupPath("/v1/services", q), out: &p})
	return p, err
}

// PresenceCount says how many are online.
func (c *Client) PresenceCount(ctx context.Context) (p PresenceCount, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/presence/count", out: &p})
	return p, err
}
