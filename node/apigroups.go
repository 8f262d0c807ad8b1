package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// What other nodes are asked about their members.
const (
	opGroupCounts  = "group-counts"
	opGroupMembers = "group-members"
	opGroupClose   = "group-close"
)

// groupAsk is the argument of all three. Each uses some fields.
type groupAsk struct {
	Topics []wire.Topic `json:"topics,omitempty"`
	Topic  wire.Topic   `json:"topic,omitzero"`
	After  string       `json:"after,omitempty"`
	Limit  int          `json:"limit,omitempty"`
	Reason string       `json:"reason,omitempty"`
}

type groupSaid struct {
	Counts  []int    `json:"counts,omitempty"`
	Count   int      `json:"count,omitempty"`
	Clients []string `json:"clients,omitempty"`
	Open    []int    `json:"open,omitempty"` // requests of services
}

// groupPatience bounds how long nodes are waited for.
const groupPatience = 2 * time.Second

// handleGroup answers for the members here.
func (n *Node) handleGroup(op string, arg []byte) (out groupSaid, err error) {
	var q groupAsk
	if err := json.Unmarshal(arg, &q); err != nil {
		return out, wire.Errorf(wire.BadRequest, "group: %v", err)
	}
	l := n.present.Load()
	if l == nil {
		out.Counts = make([]int, len(q.Topics))
		return out, nil
	}
	switch op {
	case opServiceCounts:
		return n.handleServiceCounts(q), nil
	case opGroupCounts:
		for _, t := range q.Topics {
			out.Counts = append(out.Counts, l.topics.size(t))
		}
	case opGroupMembers:
		members := l.topics.members(q.Topic)
		out.Count = len(members)
		for _, m := range members {
			if id := m.Client().ID; id > q.After {
				out.Clients = append(out.Clients, id)
			}
		}
		slices.Sort(out.Clients)
		out.Clients = out.Clients[:min(len(out.Clients), max(q.Limit, 0), admin.MaxPage+1)]
	case opGroupClose:
		out.Count = l.topics.clear(q.Topic, wire.GroupClosed, q.Reason)
	}
	return out, nil
}

// askHolders asks nodes at the same time and hands each answer to f, one at a time.
func (a api) askHolders(ctx context.Context, nodes []wire.NodeID, op string, q groupAsk, f func(wire.NodeID, groupSaid)) []admin.NodeError {
	ctx, cancel := context.WithTimeout(ctx, groupPatience)
	defer cancel()
	var mu sync.Mutex
	var failed []admin.NodeError
	var wg sync.WaitGroup
	for _, id := range nodes {
		wg.Go(func() {
			var said groupSaid
			err := a.n.askAdmin(ctx, id, op, q, &said)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, admin.NodeError{Node: a.n.nameOf(id), Error: err.Error()})
				return
			}
			f(id, said)
		})
	}
	wg.Wait()
	slices.SortFunc(failed, func(x, y admin.NodeError) int { return cmp.Compare(x.Node, y.Node) })
	return failed
}

// fresh brings the table here up to date. Its error says that nothing was read and nothing was changed: what ended in waiting was not
// a call whose outcome is not known.
func (a api) fresh(ctx context.Context, what string) error {
	err := a.n.refresh(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return &admin.Error{
		Code: wire.Unavailable, Status: admin.StatusUnavailable, Text: "without a quorum nobody can say " + what, Err: err,
		Hint: "`imctl cluster health` says what is missing",
	}
}

// topicPage is one page of the topics that the table knows: row makes one of each, and count adds what a holder says to them.
func topicPage[T any](ctx context.Context, a api, q admin.GroupQuery, kind wire.TopicKind, op string,
	row func(t wire.Topic, holders []string) T, count func(rows []T, said groupSaid),
) (rows []T, next string, failed []admin.NodeError, err error) {
	if err := a.fresh(ctx, "which "+kind.String()+"s there are"); err != nil {
		return nil, "", nil, err
	}
	topics := a.n.fsm.Topics(q.Tenant, kind, q.Cursor, q.Limit+1)
	if len(topics) > q.Limit {
		topics = topics[:q.Limit]
		next = topics[q.Limit-1].Topic.Name
	}
	var ask groupAsk
	holders := map[wire.NodeID]bool{}
	for _, t := range topics {
		var names []string
		for _, h := range t.Holders {
			holders[h.Node] = true
			names = append(names, a.n.nameOf(h.Node))
		}
		slices.Sort(names)
		rows, ask.Topics = append(rows, row(t.Topic, names)), append(ask.Topics, t.Topic)
	}
	failed = a.askHolders(ctx, slices.Collect(maps.Keys(holders)), op, ask, func(_ wire.NodeID, said groupSaid) { count(rows, said) })
	return rows, next, failed, nil
}

// Groups lists what the table knows and counts the members with those who have them.
func (a api) Groups(ctx context.Context, q admin.GroupQuery) (page admin.GroupPage, err error) {
	page.Groups, page.Next, page.Errors, err = topicPage(ctx, a, q, wire.TopicGroup, opGroupCounts,
		func(t wire.Topic, nodes []string) admin.GroupRow {
			return admin.GroupRow{Group: t.Name, Tenant: t.Tenant, Nodes: nodes}
		},
		func(rows []admin.GroupRow, said groupSaid) {
			for i := range rows[:min(len(said.Counts), len(rows))] {
				rows[i].Members += uint32(said.Counts[i])
			}
		})
	return page, err
}

// holdersOf are the nodes of a group, all acknowledged joins included.
func (a api) holdersOf(ctx context.Context, t wire.Topic) (out []wire.NodeID, err error) {
	if err := a.fresh(ctx, "who is in "+t.Name); err != nil {
		return nil, err
	}
	for _, h := range a.n.fsm.Holders(t, nil) {
		out = append(out, h.Node)
	}
	return out, nil
}

// GroupMembers merges what the nodes say.
func (a api) GroupMembers(ctx context.Context, t wire.Topic, q admin.GroupQuery) (admin.GroupMembers, error) {
	out := admin.GroupMembers{Group: t.Name, Tenant: t.Tenant}
	nodes, err := a.holdersOf(ctx, t)
	if err != nil {
		return out, err
	}
	out.Errors = a.askHolders(ctx, nodes, opGroupMembers, groupAsk{Topic: t, After: q.Cursor, Limit: q.Limit + 1}, func(id wire.NodeID, said groupSaid) {
		out.Count += uint32(said.Count)
		for _, c := range said.Clients {
			out.Members = append(out.Members, admin.GroupMember{Client: c, Node: a.n.nameOf(id)})
		}
	})
	slices.SortFunc(out.Members, func(x, y admin.GroupMember) int {
		return cmp.Or(strings.Compare(x.Client, y.Client), strings.Compare(x.Node, y.Node))
	})
	if len(out.Members) > q.Limit {
		out.Members = out.Members[:q.Limit]
		out.Next = out.Members[q.Limit-1].Client
	}
	return out, nil
}

// CloseGroup has every node that has members remove them.
func (a api) CloseGroup(ctx context.Context, t wire.Topic, reason string) (admin.GroupClosed, error) {
	out := admin.GroupClosed{Group: t.Name, Tenant: t.Tenant}
	nodes, err := a.holdersOf(ctx, t)
	if err != nil {
		return out, err
	}
	out.Errors = a.askHolders(ctx, nodes, opGroupClose, groupAsk{Topic: t, Reason: reason}, func(_ wire.NodeID, said groupSaid) {
		out.Count += uint32(said.Count)
	})
	a.n.log.Info("audit", "event", "group-close", "group", t.String(), "members", out.Count, "reason", reason)
	return out, nil
}

// deviceRows describes a user's devices.
func (a api) deviceRows(devices []raftfsm.Device) (out []admin.RouteRow) {
	for _, d := range devices {
		if d.ID != "" {
			out = append(out, admin.RouteRow{
				Client: d.Client.ID, Tenant: d.Client.Tenant, Node: a.n.nameOf(d.Node), Incarnation: d.Incarnation, Session: d.Session.String(), Epoch: d.Epoch,
			})
		}
	}
	return out
}
