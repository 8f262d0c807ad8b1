package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// Route looks a client up. Linearizable, the default, proves the answer and then asks the owner what it says itself.
func (a api) Route(ctx context.Context, q admin.RouteQuery) (admin.Route, error) {
	n := a.n
	leader, _ := n.store.Leader()
	out := admin.Route{Client: q.Client.ID, Tenant: q.Client.Tenant, Consistency: q.Consistency, OwnerCheck: admin.OwnerSkipped}
	var route raftfsm.Route
	var found bool
	if q.Consistency == admin.Linearizable {
		at, err := n.reads.do(ctx, q.Client)
		if err != nil {
			return out, &admin.Error{
				Code: wire.Unavailable, Status: admin.StatusUnavailable, Text: "without a quorum nobody can say where " + q.Client.ID + " is", Err: err,
				Hint: "`imctl cluster health` says what is missing; --consistency local shows what this node last knew",
			}
		}
		route, found, out.Index = at.route, at.found, at.index
	} else {
		if err := n.known(); err != nil {
			return out, err
		}
		out.Index = n.fsm.Applied()
		route, found = n.fsm.Lookup(q.Client)
	}
	if leader != 0 {
		out.Leader = n.nameOf(leader)
	}
	if found {
		out.Found = true
		out.Node, out.Incarnation, out.Session, out.Epoch = n.nameOf(route.Node), route.Incarnation, route.Session.String(), route.Epoch
		if node, ok := n.fsm.Node(route.Node); ok {
			out.NodeState = node.State.String()
		}
		if q.Consistency == admin.Linearizable {
			var age time.Duration
			if out.OwnerCheck, age = n.ownerCheck(ctx, route); age > 0 {
				since := time.Now().Add(-age).UTC().Truncate(time.Millisecond)
				out.Since = &since
			}
		}
	}
	if id := q.Client; id.User() == id.ID {
		if out.Index > 0 && q.Consistency == admin.Linearizable {
			if err := n.fsm.WaitApplied(ctx, out.Index); err != nil {
				return out, err
			}
		}
		out.Devices = a.deviceRows(n.fsm.Devices(id, nil))
	}
	if q.AllNodes {
		out.Nodes = a.views(ctx, q.Client)
	}
	return out, nil
}

// ownerCheck asks the owner whether it delivers to that session, and for how long that has been there (0: not known).
func (n *Node) ownerCheck(ctx context.Context, route raftfsm.Route) (string, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var reply wire.ProbeReply
	err := n.ask(ctx, route.Node, wire.CallProbe, wire.ProbeRequest{Client: route.Client, Incarnation: route.Incarnation, Epoch: route.Epoch}, &reply)
	switch {
	case err != nil:
		return admin.OwnerUnreachable, 0
	case reply.Code == wire.OK:
		return admin.OwnerConfirmed, time.Duration(reply.AgeMS) * time.Millisecond
	}
	return admin.OwnerDenied, 0
}

func (n *Node) localView(c wire.ClientID) admin.RouteView {
	v := admin.RouteView{Name: n.name, Index: n.fsm.Applied()}
	if route, ok := n.fsm.Lookup(c); ok {
		v.Found, v.Node, v.Incarnation, v.Epoch = true, n.nameOf(route.Node), route.Incarnation, route.Epoch
	}
	return v
}

func (a api) views(ctx context.Context, c wire.ClientID) []admin.RouteView {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	nodes := a.n.fsm.Nodes()
	out := make([]admin.RouteView, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			if err := a.n.askAdmin(ctx, node.ID, opView, c, &out[i]); err != nil {
				out[i] = admin.RouteView{Name: node.Name, Error: err.Error()}
			}
		})
	}
	wg.Wait()
	return out
}

// Routes reads a page of this node's own table.
func (a api) Routes(_ context.Context, q admin.RouteListQuery) (admin.RoutePage, error) {
	if err := a.n.known(); err != nil {
		return admin.RoutePage{}, err
	}
	var node wire.NodeID
	if q.Node != "" {
		v, err := a.n.resolve(q.Node)
		if err != nil {
			return admin.RoutePage{}, err
		}
		node = v.ID
	}
	view := a.n.fsm.Grab()
	defer view.Close()
	rows, next, err := view.Routes(q.Cursor, q.Limit, func(r raftfsm.Route) bool {
		return (node == 0 || r.Node == node) && (q.Tenant == nil || r.Client.Tenant == *q.Tenant) && strings.HasPrefix(r.Client.ID, q.Prefix)
	})
	if err != nil {
		return admin.RoutePage{}, admin.Errorf(admin.StatusBadRequest, "cursor: %v", err).WithHint("start again without a cursor")
	}
	page := admin.RoutePage{Routes: []admin.RouteRow{}, Next: next, Index: view.Index, Stale: a.stale()}
	for _, r := range rows {
		page.Routes = append(page.Routes, admin.RouteRow{
			Client: r.Client.ID, Tenant: r.Client.Tenant, Node: a.n.nameOf(r.Node), Incarnation: r.Incarnation, Session: r.Session.String(), Epoch: r.Epoch,
		})
	}
	return page, nil
}

// stale says how old this node's table may be; nil: it holds a lease, so it has heard a leader a moment ago.
func (a api) stale() *admin.Stale {
	if a.n.lease.holds(now()) {
		return nil
	}
	s := &admin.Stale{Node: a.n.name, LeaderHeardMS: -1}
	if heard := a.n.store.Stats().LastContact; heard >= 0 {
		s.LeaderHeardMS = int32(min(heard.Milliseconds(), 1<<31-1))
	}
	return s
}

func (a api) RouteStats(context.Context) (admin.RouteStats, error) {
	st := a.n.fsm.Stats()
	view := a.n.fsm.Grab()
	defer view.Close()
	out := admin.RouteStats{
		Routes: uint32(st.Routes), Void: uint32(st.Void), ByNode: map[string]uint32{}, Pages: uint32(st.Pages), Bytes: uint64(st.Bytes), Index: view.Index, Stale: a.stale(),
	}
	for id, count := range view.CountByNode() {
		out.ByNode[a.n.nameOf(id)] = uint32(count)
	}
	return out, nil
}

// WatchRoutes passes the table's events on.
func (a api) WatchRoutes(ctx context.Context, q admin.WatchQuery, emit func(admin.RouteEvent) error) error {
	sub := a.n.fsm.Subscribe(4096)
	defer sub.Close()
	if err := emit(admin.RouteEvent{Event: admin.EventResync, Index: a.n.fsm.Applied()}); err != nil {
		return err
	}
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		out, ok := a.event(e)
		if !ok || !passes(q, &out) {
			continue
		}
		if err := emit(out); err != nil {
			return err
		}
	}
}

func (a api) event(e raftfsm.Event) (admin.RouteEvent, bool) {
	out := admin.RouteEvent{Index: e.Index}
	switch e.Kind {
	case raftfsm.RouteSet, raftfsm.RouteGone:
		out.Event = admin.EventSet
		if e.Kind == raftfsm.RouteGone {
			out.Event = admin.EventGone
		}
		out.Client, out.Tenant, out.Node, out.Incarnation = e.Route.Client.ID, e.Route.Client.Tenant, a.n.nameOf(e.Route.Node), e.Route.Incarnation
		out.Session, out.Epoch = e.Route.Session.String(), e.Route.Epoch
	case raftfsm.NodeChanged:
		out.Event, out.Node, out.Incarnation, out.State = admin.EventNode, e.Node.Name, e.Node.Incarnation, e.Node.State.String()
	case raftfsm.NodeRemoved:
		out.Event, out.Node, out.Incarnation, out.State = admin.EventNode, e.Node.Name, e.Node.Incarnation, "removed"
	case raftfsm.Resync:
		out.Event = admin.EventResync
	default: // the end of an incarnation shows in the node's own event
		return out, false
	}
	return out, true
}

func passes(q admin.WatchQuery, e *admin.RouteEvent) bool {
	if e.Event != admin.EventSet && e.Event != admin.EventGone {
		return true
	}
	return (q.Tenant == nil || e.Tenant == *q.Tenant) && (q.Client == "" || e.Client == q.Client) && strings.HasPrefix(e.Client, q.Prefix)
}

// Kick closes a client's session wherever it is.
func (a api) Kick(ctx context.Context, client wire.ClientID, reason string) (admin.KickResult, error) {
	n := a.n
	at, err := n.reads.do(ctx, client)
	if err != nil {
		return admin.KickResult{}, err
	}
	if !at.found {
		return admin.KickResult{}, n.notToKick(ctx, client)
	}
	route := at.route
	if err := n.kick(ctx, route, reason); err != nil {
		return admin.KickResult{}, err
	}
	n.log.Info("audit", "event", "kick", "client", client.String(), "node", n.nameOf(route.Node), "epoch", uint64(route.Epoch), "reason", reason)
	return admin.KickResult{Client: client.ID, Tenant: client.Tenant, Node: n.nameOf(route.Node), Epoch: route.Epoch}, nil
}

// maxHinted bounds how many devices a hint names.
const maxHinted = 5

// notToKick says that a client is not connected, and which devices of the user are: an id stands for itself alone.
func (n *Node) notToKick(ctx context.Context, client wire.ClientID) error {
	e := admin.Errorf(admin.StatusNotFound, "%s is not connected anywhere", client)
	if client.ID != client.User() {
		return e
	}
	_ = n.refresh(ctx) // without it the hint goes by a table that may be a little behind
	devices := n.fsm.Devices(client, nil)
	var ids, kicks []string
	for _, d := range devices[:min(len(devices), maxHinted)] {
		ids = append(ids, d.Client.ID)
		cmd := "imctl route kick " + admin.ShellWord(d.Client.ID)
		if client.Tenant != "" {
			cmd += " --tenant " + admin.ShellWord(client.Tenant)
		}
		kicks = append(kicks, "`"+cmd+"`")
	}
	if len(kicks) == 0 {
		return e
	}
	e = admin.Errorf(admin.StatusNotFound, "%s itself is not connected, but its devices are: %s", client, strings.Join(ids, ", "))
	hint := "a device is kicked by its own id: " + strings.Join(kicks, ", ")
	if more := len(devices) - len(kicks); more > 0 {
		hint += fmt.Sprintf("; %d more: `imctl route list --prefix %s`", more, admin.ShellWord(client.ID+"/"))
	}
	return e.WithHint("%s", hint)
}

// Send sends for a back end or an operator.
func (a api) Send(ctx context.Context, m admin.Message) (admin.SendResult, error) {
	started := time.Now()
	named := m.From != ""
	if !named {
		m.From = apiSender
	}
	o := &apiOrigin{done: make(chan apiResult, 1)}
	f := wire.Forward{Tenant: m.To.Tenant, To: m.To.ID, From: m.From, Instance: apiInstance(m), Counter: m.ID.Counter, Ack: m.Ack, Payload: m.Payload, Kind: m.Kind}
	if named && m.Kind == wire.ToOthers {
		f.Epoch = wire.WholeSender
	}
	switch {
	case m.Kind.Cast():
		a.n.router.casts.send(o, &f, m.Timeout)
	case m.Kind == wire.ToService:
		a.n.router.services.send(o, &f, m.Timeout)
	default:
		a.n.router.sendToUser(o, nil, &f, m.Timeout, nil)
	}
	r := apiResult{code: wire.Accepted}
	if m.Ack != wire.AckNone {
		select {
		case r = <-o.done:
		case <-ctx.Done():
			r.code = wire.Unknown
		}
	} else {
		select {
		case r = <-o.done: // refused at once
		default:
		}
	}
	return admin.SendResult{Result: r.code.String(), Code: r.code, Owner: r.owner, Count: r.count, Missed: r.missed.Count, MissedIDs: r.missed.IDs, RTTUS: uint32(time.Since(started).Microseconds()), ID: m.ID.String()}, nil
}

// apiSender is who a message is from when the caller of the API names nobody.
const apiSender = "api"

// apiInstance keeps the API's message ids apart from those of a client of the same name.
func apiInstance(m admin.Message) uint64 {
	return wire.Sender(wire.ClientID{Tenant: m.To.Tenant, ID: m.From + " (api)"}, m.ID.Instance)
}

// apiOrigin waits for the outcome of one message.
type apiOrigin struct{ done chan apiResult }

type apiResult struct {
	code  wire.Code
	owner string
	count uint32

	missed wire.Missed
}

// Result is called at most once for a message that wants an answer.
func (o *apiOrigin) Result(_ uint64, code wire.Code, owner, _ string) {
	select {
	case o.done <- apiResult{code: code, owner: owner}:
	default:
	}
}

// Reached is Result for messages to many.
func (o *apiOrigin) Reached(_ uint64, code wire.Code, count uint32, missed wire.Missed, _ string) {
	select {
	case o.done <- apiResult{code: code, count: count, missed: missed}:
	default:
	}
}

// ClientToken signs a login token with the cluster's own key.
func (a api) ClientToken(_ context.Context, client wire.ClientID, ttl time.Duration, g admin.TokenGrants) (admin.ClientToken, error) {
	switch {
	case a.n.cfg.Dev:
		return admin.ClientToken{}, admin.Errorf(admin.StatusConflict, "this cluster is in development mode: clients need no token").WithHint("leave the token out")
	case a.n.cfg.ClientKeys != "":
		return admin.ClientToken{}, admin.Errorf(admin.StatusConflict, "this cluster checks login tokens with its operator's own keys").WithHint("whoever holds the private key behind --client-keys makes the tokens")
	}
	keys, err := gateway.ParseKeys([]byte(a.n.secrets.ClientKeys))
	if err != nil {
		return admin.ClientToken{}, err
	}
	token, err := gateway.SignTokenFor(keys[0], a.n.issued(), client.ID, client.Tenant, g.Send, g.Join, ttl)
	if err != nil {
		return admin.ClientToken{}, admin.Errorf(admin.StatusBadRequest, "%v", err)
	}
	return admin.ClientToken{Client: client.ID, Tenant: client.Tenant, Token: token, Expires: time.Now().Add(ttl).UTC().Truncate(time.Second)}, nil
}
