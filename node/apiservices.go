package node

import (
	"cmp"
	"context"
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
	last     admin.PresenceCount
	until    time.Duration // by now()
}

// onlineRest is how many times longer than a count its answer holds, which bounds the processor time that counting may take.
const onlineRest = 20

func newOnlineCount() *onlineCount { return &onlineCount{counting: make(chan struct{}, 1)} }

func (o *onlineCount) count(ctx context.Context, grab func() *raftfsm.View, nodes func() []raftfsm.Node) (admin.PresenceCount, error) {
	select {
	case o.counting <- struct{}{}:
		defer func() { <-o.counting }()
	case <-ctx.Done():
		return admin.PresenceCount{}, context.Cause(ctx)
	}
	began := now()
	if began < o.until {
		return o.last, nil
	}
	view := grab()
	defer view.Close()
	users, usersAt, err := view.Users(ctx)
	if err != nil {
		return admin.PresenceCount{}, err
	}
	byNode := view.CountByNode()
	out := admin.PresenceCount{Clients: uint32(view.Count()), Users: uint32(users), Index: view.Index}
	for _, node := range nodes() {
		out.Nodes = append(out.Nodes, admin.PresenceNode{Node: node.Name, Clients: uint32(byNode[node.ID]), Users: uint32(usersAt[node.ID])})
	}
	slices.SortFunc(out.Nodes, func(x, y admin.PresenceNode) int { return cmp.Compare(x.Node, y.Node) })
	o.last, o.until = out, now()+onlineRest*(now()-began)
	return out, nil
}

// PresenceCount counts in this node's table.
func (a api) PresenceCount(ctx context.Context) (admin.PresenceCount, error) {
	if err := a.n.known(); err != nil {
		return admin.PresenceCount{}, err
	}
	out, err := a.n.online.count(ctx, a.n.fsm.Grab, a.n.fsm.Nodes)
	out.Nodes = slices.Clone(out.Nodes) // others are told the same
	return out, err
}
