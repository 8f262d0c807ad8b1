package admin

import (
	"context"
	"net/http"
	"strconv"
)

// Groups reads one page of a tenant's groups. Limit 0 is DefaultPage.
func (c *Client) Groups(ctx context.Context, q GroupQuery) (p GroupPage, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: groupPath("/v1/groups", q), out: &p})
	return p, err
}

// GroupMembers reads one page of a group's members.
func (c *Client) GroupMembers(ctx context.Context, group string, q GroupQuery) (m GroupMembers, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: groupPath("/v1/groups/"+segment(group)+"/members", q), out: &m})
	return m, err
}

// CloseGroup removes all members of a group.
func (c *Client) CloseGroup(ctx context.Context, tenant, group, reason string) (r GroupClosed, err error) {
	in := groupCloseBody{Tenant: tenant, Reason: reason}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/groups/" + segment(group) + "/close", in: in, out: &r})
	return r, err
}

func groupPath(path string, q GroupQuery) string {
	v := query("tenant", q.Tenant, "cursor", q.Cursor)
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return withQuery(path, v)
}
