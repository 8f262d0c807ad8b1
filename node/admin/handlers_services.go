package admin

func listServices(r *request) (any, error) {
	q, err := groupQuery(r)
	if err != nil {
		return nil, err
	}
	page, err := r.s.cfg.Backend.Services(r.ctx, q)
	page.Services, page.Errors = list(page.Services), list(page.Errors)
	return page, err
}

func presenceCount(r *request) (any, error) {
	v, err := r.query("tenant")
	if err != nil {
		return nil, err
	}
	tenant := tenantParam(v)
	if tenant != nil {
		if _, err := clientID(`parameter "tenant"`, *tenant, "x"); err != nil {
			return nil, err
		}
	}
	c, err := r.s.cfg.Backend.PresenceCount(r.ctx, tenant)
	c.Nodes = list(c.Nodes)
	return c, err
}
