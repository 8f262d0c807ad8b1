package node

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/gateway"
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
	if err := a.n.refresh(ctx); err != nil {
		return page, err
	}
	topics := a.topicPage(q, wire.TopicService)
	page.Next = topics.next
	for i, t := range topics.ask.Topics {
		page.Services = append(page.Services, admin.ServiceRow{Service: t.Name, Tenant: t.Tenant, Nodes: topics.names[i]})
	}
	page.Errors = a.askHolders(ctx, topics.holders, opServiceCounts, topics.ask, func(_ wire.NodeID, said groupSaid) {
		for i := range page.Services[:min(len(said.Counts), len(said.Open), len(page.Services))] {
			page.Services[i].Instances += uint32(said.Counts[i])
			page.Services[i].Open += uint32(said.Open[i])
		}
	})
	return page, nil
}

// opUsers asks a node how many users have a session there.
const opUsers = "users"

// users counts those whose sessions are here, each with all his devices once.
func (n *Node) users() int {
	seen := make(map[wire.ClientID]struct{}, n.gateway.Count())
	n.gateway.Sessions(func(s *gateway.Session) bool {
		c := s.Client()
		seen[wire.ClientID{Tenant: c.Tenant, ID: c.User()}] = struct{}{}
		return true
	})
	return len(seen)
}

// PresenceCount reads the table's counters and asks the nodes for their users.
func (a api) PresenceCount(ctx context.Context) (out admin.PresenceCount, err error) {
	if err := a.n.known(); err != nil {
		return out, err
	}
	view := a.n.fsm.Grab()
	byNode := view.CountByNode()
	out.Clients, out.Index = uint32(view.Count()), view.Index
	view.Close()
	ctx, cancel := context.WithTimeout(ctx, groupPatience)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range a.n.fsm.Nodes() {
		row := admin.PresenceNode{Node: node.Name, Clients: uint32(byNode[node.ID])}
		wg.Go(func() {
			users := 0
			var err error
			if row.Clients > 0 {
				err = a.n.askAdmin(ctx, node.ID, opUsers, nil, &users)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Errors = append(out.Errors, admin.NodeError{Node: row.Node, Error: err.Error()})
			}
			row.Users = uint32(users)
			out.Users += row.Users
			out.Nodes = append(out.Nodes, row)
		})
	}
	wg.Wait()
	slices.SortFunc(out.Nodes, func(x, y admin.PresenceNode) int { return cmp.Compare(x.Node, y.Node) })
	slices.SortFunc(out.Errors, func(x, y admin.NodeError) int { return cmp.Compare(x.Node, y.Node) })
	return out, nil
}
