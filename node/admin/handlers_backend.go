package admin

import (
	"context"
	_ "embed"
	"net/http"
	"net/url"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// openAPI describes every route of table; a test compares the two.
//
//go:embed openapi.yaml
var openAPI []byte

func (s *Server) openAPI(r *request, w http.ResponseWriter) {
	if err := r.empty(); err != nil {
		s.fail(w, asError(err))
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	s.writeDeadline(w, s.cfg.WriteTimeout)
	_, _ = w.Write(openAPI) // a caller that is gone needs no answer
}

// AssignQuery asks where a client should connect. Client is valid.
type AssignQuery struct {
	Client    wire.ClientID
	Transport string // "tcp" or "ws"
}

func assignQuery(v url.Values, transport string) (q AssignQuery, err error) {
	if v.Get("client") == "" {
		return q, Errorf(StatusBadRequest, `parameter "client" is missing`).WithHint("name the client that is to connect: ?client=ID")
	}
	if q.Client, err = clientID(`parameter "client"`, v.Get("tenant"), v.Get("client")); err != nil {
		return q, err
	}
	switch q.Transport = v.Get("transport"); q.Transport {
	case "":
		q.Transport = transport
	case "tcp", "ws":
	default:
		return q, Errorf(StatusBadRequest, "parameter %q is %q: want tcp or ws", "transport", q.Transport)
	}
	return q, nil
}

func assign(r *request) (any, error) {
	v, err := r.query("client", "tenant", "transport")
	if err != nil {
		return nil, err
	}
	q, err := assignQuery(v, "tcp")
	if err != nil {
		return nil, err
	}
	if q.Client.Tenant, err = r.tenant(q.Client.Tenant); err != nil {
		return nil, err
	}
	if err := r.body(&struct{}{}); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.Assign(r.ctx, q)
}

// AssignPath is where AssignHandler belongs.
const AssignPath = "/v1/assign"

// assignedTo is what strangers are told of an Assignment: not how busy the nodes are.
type assignedTo struct {
	Client    string `json:"client"`
	Tenant    string `json:"tenant"`
	Node      string `json:"node"`
	Transport string `json:"transport"`
	Addr      string `json:"addr"`
	URL       string `json:"url"`
}

// AssignHandler answers clients who ask, without a token, where to connect: GET AssignPath. The transport is ws unless they say
// otherwise. It tells them what welcome and goaway would. With anyOrigin pages of any origin may read the answer.
func AssignHandler(assign func(context.Context, AssignQuery) (Assignment, error), anyOrigin bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if anyOrigin {
			h.Set("Access-Control-Allow-Origin", "*")
		}
		out, err := func() (any, error) {
			if hr.Method != http.MethodGet && hr.Method != http.MethodHead {
				h.Set("Allow", "GET, HEAD")
				return nil, Errorf(StatusMethod, "%s is not possible here", hr.Method).WithHint("use GET")
			}
			v, err := (&request{Request: hr}).query("client", "tenant", "transport")
			if err != nil {
				return nil, err
			}
			q, err := assignQuery(v, "ws")
			if err != nil {
				return nil, err
			}
			a, err := assign(hr.Context(), q)
			return assignedTo{a.Client, a.Tenant, a.Node, a.Transport, a.Addr, a.URL}, err
		}()
		status := http.StatusOK
		if err != nil {
			e := asError(err)
			status, out = statusHTTP[e.Status], e.body()
			if e.Status == StatusUnavailable {
				h.Set("Retry-After", "1")
			}
		}
		raw, _ := encode(out) // numbers and texts: it cannot fail
		w.WriteHeader(status)
		_, _ = w.Write(raw) // a caller that is gone needs no answer
	})
}

func presenceOne(r *request) (any, error) {
	v, err := r.clientQuery("tenant")
	if err != nil {
		return nil, err
	}
	if err := r.body(&struct{}{}); err != nil {
		return nil, err
	}
	tenant, err := r.tenant(v.Get("tenant"))
	if err != nil {
		return nil, err
	}
	id, err := r.namedClient(v, tenant)
	if err != nil {
		return nil, err
	}
	all, err := r.presence([]wire.ClientID{id})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func presenceMany(r *request) (any, error) {
	var b PresenceRequest
	if err := r.only(&b); err != nil {
		return nil, err
	}
	tenant, err := r.tenant(b.Tenant)
	if err != nil {
		return nil, err
	}
	ids, err := clientIDs("clients", tenant, b.Clients, MaxPresence)
	if err != nil {
		return nil, err
	}
	all, err := r.presence(ids)
	return PresenceList{Clients: all}, err
}

func (r *request) presence(ids []wire.ClientID) ([]Presence, error) {
	all, err := r.s.cfg.Backend.Presence(r.ctx, ids)
	if err != nil {
		return nil, err
	}
	if len(all) != len(ids) {
		return nil, Errorf(StatusInternal, "%d answers for %d clients", len(all), len(ids))
	}
	for i := range all {
		all[i].Devices = list(all[i].Devices)
	}
	return all, nil
}

// clientIDs checks a list of ids: at least one, none twice.
func clientIDs(field, tenant string, names []string, most int) (ids []wire.ClientID, err error) {
	if len(names) == 0 || len(names) > most {
		return nil, Errorf(StatusBadRequest, "field %q names %d clients: want 1 to %d", field, len(names), most)
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		id, err := clientID(`field "`+field+`"`, tenant, name)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, Errorf(StatusBadRequest, "field %q names %q twice", field, name)
		}
		seen[name] = true
		ids = append(ids, id)
	}
	return ids, nil
}

// sendWorkers is how many recipients of one call are sent to at the same time.
const sendWorkers = 32

func sendMany(r *request) (any, error) {
	var b SendManyRequest
	if err := r.only(&b); err != nil {
		return nil, err
	}
	tenant, err := r.tenant(b.Tenant)
	if err != nil {
		return nil, err
	}
	ids, err := clientIDs("to", tenant, b.To, MaxRecipients)
	if err != nil {
		return nil, err
	}
	one := SendRequest{
		From: b.From, Tenant: tenant, To: ids[0].ID, Payload: b.Payload, PayloadB64: b.PayloadB64, Ack: b.Ack, TimeoutMS: b.TimeoutMS, ID: b.ID,
	}
	m, err := one.message(r.s.cfg.MaxPayload)
	if err != nil {
		return nil, err
	}
	r.note("from", b.From)
	r.note("tenant", tenant)
	r.note("recipients", len(ids))
	r.note("id", m.ID.String())
	r.note("bytes", len(m.Payload))
	ctx, cancel := context.WithTimeout(r.Context(), m.Timeout+sendGrace)
	defer cancel()
	out := SendManyResult{ID: m.ID.String(), Results: make([]SendResult, len(ids))}
	errs := make([]error, len(ids))
	until := time.Now().Add(m.Timeout)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(sendWorkers, len(ids)) {
		wg.Go(func() {
			for i := range next {
				one := m
				one.To = ids[i]
				one.Payload = append([]byte(nil), m.Payload...) // the backend keeps it
				if one.Timeout = time.Until(until); one.Timeout <= 0 {
					out.Results[i] = SendResult{Result: wire.Timeout.String(), Code: wire.Timeout, ID: out.ID} // it never left
					continue
				}
				out.Results[i], errs[i] = r.s.cfg.Backend.Send(ctx, one)
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, err := range errs {
		if err != nil { // the others may be through: their results are worth more than an error
			e := asError(err)
			out.Results[i] = SendResult{Result: e.Code.String(), Code: e.Code, ID: out.ID}
		}
		if out.Results[i].Code == wire.Delivered {
			out.Delivered++
		}
	}
	r.note("delivered", out.Delivered)
	return out, nil
}

func createKey(r *request) (any, error) {
	var b APIKeyRequest
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("name", b.Name)
	r.note("scopes", b.Scopes)
	q := NewAPIKey{Name: b.Name}
	var err error
	if q.Scopes, err = wire.ParseScopes(b.Scopes...); err != nil {
		return nil, Errorf(StatusBadRequest, "field %q: %v", "scopes", err)
	}
	if len(b.Name) > maxKeyName {
		return nil, Errorf(StatusBadRequest, "field %q has %d bytes: at most %d", "name", len(b.Name), maxKeyName)
	}
	if b.Tenant != nil {
		r.note("tenant", *b.Tenant)
		if _, err := clientID(`field "tenant"`, *b.Tenant, "x"); err != nil {
			return nil, err
		}
		if q.Scopes.Has(wire.ScopeAdmin) {
			return nil, Errorf(StatusBadRequest, "the scope admin is for the whole cluster and cannot be bound to a tenant").WithHint("leave the tenant out, or name other scopes")
		}
		q.Tenant, q.OneTenant = *b.Tenant, true
	}
	if b.TTLSeconds != 0 {
		if q.TTL, err = ttl(b.TTLSeconds); err != nil {
			return nil, err
		}
	}
	k, err := r.s.cfg.Backend.CreateAPIKey(r.ctx, q)
	r.note("key_id", k.ID)
	k.Scopes = list(k.Scopes)
	return k, err
}

// maxKeyName bounds a key's label in bytes.
const maxKeyName = 100

// NewAPIKey is a checked APIKeyRequest.
type NewAPIKey struct {
	Name      string
	Scopes    wire.Scope
	Tenant    string
	OneTenant bool
	TTL       time.Duration // 0: it never expires
}

func listKeys(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	ks, err := r.s.cfg.Backend.APIKeys(r.ctx)
	for i := range ks {
		ks[i].Scopes = list(ks[i].Scopes)
	}
	return list(ks), err
}

func revokeKey(r *request) (any, error) {
	r.note("key_id", r.params["id"])
	if err := r.empty(); err != nil {
		return nil, err
	}
	k, err := r.s.cfg.Backend.RevokeAPIKey(r.ctx, r.params["id"])
	if k.Unconfirmed = list(k.Unconfirmed); len(k.Unconfirmed) > 0 {
		r.note("unconfirmed", k.Unconfirmed)
	}
	return k, err
}

func startRebalance(r *request) (any, error) {
	var b rebalanceBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	if b.Rate == 0 {
		b.Rate = DefaultRebalanceRate
	}
	r.note("rate", b.Rate)
	if b.Rate > MaxRebalanceRate {
		return nil, Errorf(StatusBadRequest, "field %q is %d: at most %d", "rate", b.Rate, MaxRebalanceRate)
	}
	st, err := r.s.cfg.Backend.Rebalance(r.ctx, b.Rate)
	st.Nodes = list(st.Nodes)
	return st, err
}

func showRebalance(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	st, err := r.s.cfg.Backend.Rebalance(r.ctx, 0)
	st.Nodes = list(st.Nodes)
	return st, err
}
