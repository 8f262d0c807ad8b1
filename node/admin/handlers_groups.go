package admin

import "imroute/mesh/wire"

// GroupQuery asks for a page of groups or of one group's members.
type GroupQuery struct {
	Tenant string
	Cursor string // Next of the page before; empty: the first
	Limit  int    // 1 to MaxPage
}

func groupQuery(r *request) (q GroupQuery, err error) {
	v, err := r.query("tenant", "cursor", "limit")
	if err != nil {
		return q, err
	}
	limit, err := limitParam(v)
	if err != nil {
		return q, err
	}
	q = GroupQuery{Tenant: v.Get("tenant"), Cursor: v.Get("cursor"), Limit: limit}
	if q.Tenant, err = r.tenant(q.Tenant); err != nil {
		return q, err
	}
	if err := (wire.ClientID{Tenant: q.Tenant, ID: "x"}).Validate(); err != nil {
		return q, Errorf(StatusBadRequest, "parameter %q: %v", "tenant", err)
	}
	if len(q.Cursor) > wire.MaxTopicName {
		return q, Errorf(StatusBadRequest, "parameter %q has %d bytes: at most %d", "cursor", len(q.Cursor), wire.MaxTopicName)
	}
	return q, r.body(&struct{}{})
}

func groupTopic(tenant, name string) (wire.Topic, error) {
	t := wire.Topic{Tenant: tenant, Kind: wire.TopicGroup, Name: name}
	if err := t.Validate(); err != nil {
		return t, Errorf(StatusBadRequest, "group: %v", err)
	}
	return t, nil
}

func listGroups(r *request) (any, error) {
	q, err := groupQuery(r)
	if err != nil {
		return nil, err
	}
	page, err := r.s.cfg.Backend.Groups(r.ctx, q)
	page.Groups, page.Errors = list(page.Groups), list(page.Errors)
	return page, err
}

func groupMembers(r *request) (any, error) {
	q, err := groupQuery(r)
	if err != nil {
		return nil, err
	}
	t, err := groupTopic(q.Tenant, r.params["group"])
	if err != nil {
		return nil, err
	}
	m, err := r.s.cfg.Backend.GroupMembers(r.ctx, t, q)
	m.Members, m.Errors = list(m.Members), list(m.Errors)
	return m, err
}

func closeGroup(r *request) (any, error) {
	r.note("group", r.params["group"])
	var b groupCloseBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("reason", b.Reason)
	tenant, err := r.tenant(b.Tenant)
	if err != nil {
		return nil, err
	}
	r.note("tenant", tenant)
	t, err := groupTopic(tenant, r.params["group"])
	if err != nil {
		return nil, err
	}
	if len(b.Reason) > maxReason {
		return nil, Errorf(StatusBadRequest, "field %q has %d bytes: at most %d", "reason", len(b.Reason), maxReason)
	}
	res, err := r.s.cfg.Backend.CloseGroup(r.ctx, t, b.Reason)
	res.Errors = list(res.Errors)
	if err == nil {
		r.note("members", res.Count)
	}
	return res, err
}
