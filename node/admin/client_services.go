package admin

import (
	"context"
	"net/http"
	"net/url"
)

// Services reads one page of a tenant's services. Limit 0 is DefaultPage.
func (c *Client) Services(ctx context.Context, q GroupQuery) (p ServicePage, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: groupPath("/v1/services", q), out: &p})
	return p, err
}

// PresenceCount says how many are online in a tenant; nil: in all.
func (c *Client) PresenceCount(ctx context.Context, tenant *string) (p PresenceCount, err error) {
	path := "/v1/presence/count"
	if tenant != nil {
		path += "?" + url.Values{"tenant": {*tenant}}.Encode()
	}
	err = c.do(ctx, call{method: http.MethodGet, path: path, out: &p})
	return p, err
}
