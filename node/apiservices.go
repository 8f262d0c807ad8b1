package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// opServiceCounts asks a node for its instances of services.
const opServiceCounts = "service-counts"

// handleServiceCounts answers for the instances here.
func (n *Node) handleServiceCounts(q groupAsk) (out groupSaid) {
	out.Counts, out.Open = make([]int, len(q.Topics)), make([]int, len(q.Topics))
	l := n.present.Load()
	if l == nil {
		return out
	}
	for i, t := range q.Topics {
		for _, m := range l.topics.members(t) {
			out.Counts[i]++
			if ms, ok := m.(*memberships); ok {
				if b := ms.book(t); b != nil {
					out.Open[i] += int(b.open.Load())
				}
			}
		}
	}
	return out
}

// Services lists what the table knows and counts the instances with those who have them.
func (a api) Services(ctx context.Context, q admin.GroupQuery) (page admin.ServicePage, err error) {
	page.Services, page.Next, page.Errors, err = topicPage(ctx, a, q, wire.TopicService, opServiceCounts,
		func(t wire.Topic, nodes []string) admin.ServiceRow {
			return admin.ServiceRow{Service: t.Name, Tenant: t.Tenant, Nodes: nodes}
		},
		func(rows []admin.ServiceRow, said groupSaid) {
			for i := range rows[:min(len(said.Counts), len(said.Open), len(rows))] {
				rows[i].Instances += uint32(said.Counts[i])
				rows[i].Open += uint32(said.Open[i])
			}
		})
	return page, err
}

// onlineCount counts who is online. Users are counted by reading the whole table, so there is one count at a time, and what it found
// serves everybody who asks until twenty times as long as it took have passed: not at all with few routes, seconds with millions.
type onlineCount struct {
	counting chan struct{} // capacity 1: taken by whoever counts
	last     map[countOf]counted
}

// countOf is what was counted: all, or a tenant.
type countOf struct {
	one    bool
	tenant string
}

type counted struct {
	admin.PresenceCount
	until time.Duration // by now()
}

// onlineRest is how many times longer than a count its answer holds, which bounds the processor time that counting may take.
const onlineRest = 20

// maxCounted bounds how many counts are kept.
const maxCounted = 64

func newOnlineCount() *onlineCount {
	return &onlineCount{counting: make(chan struct{}, 1), last: map[countOf]counted{}}
}

func (o *onlineCount) count(ctx context.Context, tenant *string, grab func() *raftfsm.View, nodes func() []raftfsm.Node) (out admin.PresenceCount, err error) {
	select {
	case o.counting <- struct{}{}:
		defer func() { <-o.counting }()
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
	what := countOf{one: tenant != nil}
	if tenant != nil {
		what.tenant = *tenant
	}
	began := now()
	maps.DeleteFunc(o.last, func(_ countOf, c counted) bool { return began >= c.until })
	if c, ok := o.last[what]; ok {
		return c.PresenceCount, nil
	}
	view := grab()
	defer view.Close()
	out = admin.PresenceCount{Tenant: tenant, Index: view.Index}
	var users, clients map[wire.NodeID]int
	if tenant != nil {
		c, err := view.Tenant(ctx, *tenant)
		if err != nil {
			return out, err
		}
		out.Users, users, clients = uint32(c.Users), c.UsersAt, c.Routes
		for _, n := range clients {
			out.Clients += uint32(n)
		}
	} else {
		all, at, err := view.Users(ctx)
		if err != nil {
			return out, err
		}
		out.Users, users, clients = uint32(all), at, view.CountByNode()
		out.Clients = uint32(view.Count())
	}
	for _, node := range nodes() {
		out.Nodes = append(out.Nodes, admin.PresenceNode{Node: node.Name, Clients: uint32(clients[node.ID]), Users: uint32(users[node.ID])})
	}
	slices.SortFunc(out.Nodes, func(x, y admin.PresenceNode) int { return cmp.Compare(x.Node, y.Node) })
	if len(o.last) < maxCounted {
		o.last[what] = counted{out, now() + onlineRest*(now()-began)}
	}
	return out, nil
}

// PresenceCount counts in this node's table, once that has caught up.
func (a api) PresenceCount(ctx context.Context, tenant *string) (admin.PresenceCount, error) {
	if err := a.n.known(); err != nil {
		return admin.PresenceCount{}, err
	}
	fresh, cancel := context.WithTimeout(ctx, presenceWait)
	defer cancel()
	if err := a.n.refresh(fresh); err != nil {
		return admin.PresenceCount{}, withoutQuorum(err)
	}
	out, err := a.n.online.count(ctx, tenant, a.n.fsm.Grab, a.n.fsm.Nodes)
	out.Nodes = slices.Clone(out.Nodes) // others are told the same
	return out, err
}
