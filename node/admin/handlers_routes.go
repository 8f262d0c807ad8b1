package admin

import (
	"net/http"
	"net/url"

	"imroute/mesh/wire"
)

func getRoute(r *request) (any, error) {
	q, err := r.clientQuery("tenant", "consistency", "all_nodes")
	if err != nil {
		return nil, err
	}
	consistency := q.Get("consistency")
	switch consistency {
	case "":
		consistency = Linearizable
	case Linearizable, Local:
	default:
		return nil, Errorf(StatusBadRequest, "parameter %q is %q: want %s or %s", "consistency", consistency, Linearizable, Local)
	}
	all, err := boolParam(q, "all_nodes")
	if err != nil {
		return nil, err
	}
	id, err := r.namedClient(q, q.Get("tenant"))
	if err != nil {
		return nil, err
	}
	if err := r.body(&struct{}{}); err != nil {
		return nil, err
	}
	found, err := r.s.cfg.Backend.Route(r.ctx, RouteQuery{Client: id, Consistency: consistency, AllNodes: all})
	if err != nil {
		return nil, err
	}
	if all {
		found.Nodes = list(found.Nodes)
	}
	if !found.Found && len(found.Devices) == 0 {
		return answer{http.StatusNotFound, found}, nil
	}
	return found, nil
}

// clientQuery is query for calls that name a client either in the path or, whatever it is called, as a parameter.
func (r *request) clientQuery(allowed ...string) (url.Values, error) {
	if _, inPath := r.params["client"]; !inPath {
		allowed = append([]string{"client"}, allowed...)
	}
	return r.query(allowed...)
}

func (r *request) namedClient(q url.Values, tenant string) (wire.ClientID, error) {
	if name, inPath := r.params["client"]; inPath {
		return clientID("path", tenant, name)
	}
	if q.Get("client") == "" {
		return wire.ClientID{}, Errorf(StatusBadRequest, `parameter "client" is missing`).WithHint("name the client: ?client=ID")
	}
	return clientID(`parameter "client"`, tenant, q.Get("client"))
}

func checkRoutes(r *request) (any, error) {
	var b checkBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("fix", b.Fix)
	c, err := r.s.cfg.Backend.CheckRoutes(r.ctx, b.Fix)
	c.Nodes = list(c.Nodes)
	for i := range c.Nodes {
		c.Nodes[i].Differences = list(c.Nodes[i].Differences)
	}
	r.note("clean", c.Clean)
	return c, err
}

func listRoutes(r *request) (any, error) {
	q, err := r.query("node", "tenant", "prefix", "cursor", "limit")
	if err != nil {
		return nil, err
	}
	limit, err := limitParam(q)
	if err != nil {
		return nil, err
	}
	if err := checkPrefix(q.Get("prefix")); err != nil {
		return nil, err
	}
	if err := r.body(&struct{}{}); err != nil {
		return nil, err
	}
	page, err := r.s.cfg.Backend.Routes(r.ctx, RouteListQuery{
		Node: q.Get("node"), Tenant: tenantParam(q), Prefix: q.Get("prefix"), Cursor: q.Get("cursor"), Limit: limit,
	})
	page.Routes = list(page.Routes)
	return page, err
}

func routeStats(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	st, err := r.s.cfg.Backend.RouteStats(r.ctx)
	if st.ByNode == nil {
		st.ByNode = map[string]uint32{}
	}
	return st, err
}

func kick(r *request) (any, error) {
	r.note("client", r.params["client"])
	var b kickBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("reason", b.Reason)
	tenant, err := r.tenant(b.Tenant)
	if err != nil {
		return nil, err
	}
	r.note("tenant", tenant)
	id, err := clientID("path", tenant, r.params["client"])
	if err != nil {
		return nil, err
	}
	if len(b.Reason) > maxReason {
		return nil, Errorf(StatusBadRequest, "field %q has %d bytes: at most %d", "reason", len(b.Reason), maxReason)
	}
	res, err := r.s.cfg.Backend.Kick(r.ctx, id, b.Reason)
	if err == nil {
		r.note("node", res.Node)
		r.note("epoch", uint64(res.Epoch))
	}
	return res, err
}

// maxReason bounds what a kicked client is told: it travels in a frame's header.
const maxReason = 1024

func checkPrefix(p string) error {
	if len(p) > wire.MaxClientID {
		return Errorf(StatusBadRequest, "parameter %q has %d bytes: at most %d", "prefix", len(p), wire.MaxClientID)
	}
	return nil
}
