package admin

import (
	"context"
	"slices"
	"strings"
	"time"
)

func clusterStatus(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	st, err := r.s.cfg.Backend.ClusterStatus(r.ctx)
	st.Problems, st.HeldBackBy = list(st.Problems), list(st.HeldBackBy)
	return st, err
}

func getSettings(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.Settings(r.ctx)
}

func putSettings(r *request) (any, error) {
	var c SettingsChange
	if err := r.only(&c); err != nil {
		return nil, err
	}
	if d := c.DuplicateLogin; d != nil {
		r.note("duplicate_login", *d)
		if *d != DuplicateReplace && *d != DuplicateReject {
			return nil, Errorf(StatusBadRequest, "field %q is %q: want %s or %s", "duplicate_login", *d, DuplicateReplace, DuplicateReject)
		}
	}
	if c.OnePerClass != nil {
		r.note("one_per_class", *c.OnePerClass)
	}
	if n := c.TargetVoters; n != nil {
		r.note("target_voters", *n)
		if !slices.Contains([]uint32{1, 3, 5, 7}, *n) {
			return nil, Errorf(StatusBadRequest, "field %q is %d: want 1, 3, 5 or 7", "target_voters", *n)
		}
	}
	if c == (SettingsChange{}) {
		return nil, Errorf(StatusBadRequest, "nothing to change").WithHint("%s", known(&c))
	}
	return r.s.cfg.Backend.ChangeSettings(r.ctx, c)
}

func upgrade(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	u, err := r.s.cfg.Backend.RaiseFeatureLevel(r.ctx)
	u.HeldBackBy = list(u.HeldBackBy)
	r.note("from", u.From)
	r.note("level", u.Level)
	return u, err
}

func createToken(r *request) (any, error) {
	var b tokenBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	d, err := ttl(b.TTLSeconds)
	if err != nil {
		return nil, err
	}
	r.note("ttl", d)
	t, err := r.s.cfg.Backend.CreateToken(r.ctx, d)
	r.note("token_id", t.ID)
	return t, err
}

func listTokens(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	ts, err := r.s.cfg.Backend.Tokens(r.ctx)
	return list(ts), err
}

func revokeToken(r *request) (any, error) {
	r.note("token_id", r.params["id"])
	if err := r.empty(); err != nil {
		return nil, err
	}
	return done{}, r.s.cfg.Backend.RevokeToken(r.ctx, r.params["id"])
}

func raftPeers(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	p, err := r.s.cfg.Backend.RaftPeers(r.ctx)
	p.Peers = list(p.Peers)
	return p, err
}

func raftTransfer(r *request) (any, error) {
	var b transferBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("to", b.To)
	return r.s.cfg.Backend.TransferLeadership(r.ctx, b.To)
}

func raftVerify(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	v, err := r.s.cfg.Backend.VerifyTables(r.ctx)
	v.Nodes = list(v.Nodes)
	r.note("agree", v.Agree)
	return v, err
}

func raftSnapshot(r *request) (any, error) {
	if err := r.empty(); err != nil {
		return nil, err
	}
	return r.s.cfg.Backend.TakeSnapshot(r.ctx)
}

func sendMessage(r *request) (any, error) {
	var b SendRequest
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("from", b.From)
	tenant, err := r.tenant(b.Tenant)
	if err != nil {
		return nil, err
	}
	b.Tenant = tenant
	r.note("tenant", b.Tenant)
	r.note("to", b.To)
	if b.Kind != "" {
		r.note("kind", b.Kind)
	}
	m, err := b.message(r.s.cfg.MaxPayload)
	if err != nil {
		return nil, err
	}
	r.note("id", m.ID.String())
	r.note("bytes", len(m.Payload))
	ctx, cancel := context.WithTimeout(r.Context(), m.Timeout+sendGrace)
	defer cancel()
	res, err := r.s.cfg.Backend.Send(ctx, m)
	if err == nil {
		r.note("outcome", res.Result)
	}
	return res, err
}

// sendGrace is what a send's answer may take beyond the message's own time-out.
const sendGrace = 2 * time.Second

func clientToken(r *request) (any, error) {
	var b clientTokenBody
	if err := r.only(&b); err != nil {
		return nil, err
	}
	r.note("client", b.Client)
	r.note("tenant", b.Tenant)
	if b.Client == "" {
		return nil, Errorf(StatusBadRequest, `field "client" is missing`).WithHint("name the client that is to log in with the token")
	}
	id, err := clientID(`field "client"`, b.Tenant, b.Client)
	if err != nil {
		return nil, err
	}
	d, err := ttl(b.TTLSeconds)
	if err != nil {
		return nil, err
	}
	r.note("ttl", d)
	if b.Send != nil {
		r.note("send", strings.Join(*b.Send, " "))
	}
	if b.Join != nil {
		r.note("join", strings.Join(*b.Join, " "))
	}
	return r.s.cfg.Backend.ClientToken(r.ctx, id, d, TokenGrants{Send: b.Send, Join: b.Join})
}
