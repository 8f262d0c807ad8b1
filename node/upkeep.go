package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// caughtUp is how many entries a node may be behind the leader and still count as caught up: about what is applied in the
// time between two renewals under load.
const caughtUp = 1000

// plan is one change of the Raft configuration that brings it nearer to the table.
type plan struct {
	what plannedChange
	node wire.NodeID
}

type plannedChange uint8

const (
	planNothing plannedChange = iota
	planAdd                   // as a non-voter
	planPromote
	planDemote
	planRemove
	planForget
)

func (p plannedChange) String() string {
	return [...]string{"nothing", "add", "promote", "demote", "remove", "forget"}[p]
}

// planMembership compares the Raft configuration with the table and returns the next change, or planNothing. ready tells
// whether a node is up and has caught up. It is a pure function: the rules of membership stand here and nowhere else.
//
//   - A member of the table is in the configuration, first as a non-voter, and nobody else is.
//   - Non-voters that are ready are promoted while the voters are fewer than the target. Two voters are worse than one, since
//     both must be there to agree on anything: the second is promoted only when a third is ready as well.
//   - What an operator asked for (role) goes before the target.
//   - Who is to be removed is no voter any more when it leaves the table, so that those who stay do not need it to agree on
//     that it left; and leaves it once its incarnation has ended.
func planMembership(config []store.Member, nodes []raftfsm.Node, target int, ready func(wire.NodeID) bool) plan {
	inConfig := map[wire.NodeID]store.Member{}
	voters := 0
	for _, m := range config {
		inConfig[m.ID] = m
		if m.Voter {
			voters++
		}
	}
	var candidates []wire.NodeID
	inTable := map[wire.NodeID]bool{}
	for _, n := range nodes {
		inTable[n.ID] = true
		m, ok := inConfig[n.ID]
		switch {
		case n.Role == raftfsm.RoleRemoved && !m.Voter && n.State == raftfsm.Down:
			return plan{planForget, n.ID}
		case !ok:
			return plan{planAdd, n.ID}
		case (n.Role == raftfsm.RoleNonVoter || n.Role == raftfsm.RoleRemoved) && m.Voter && voters > 1:
			return plan{planDemote, n.ID}
		case n.Role == raftfsm.RoleVoter && !m.Voter && ready(n.ID):
			return plan{planPromote, n.ID}
		case n.Role == raftfsm.RoleAuto && !m.Voter && ready(n.ID):
			candidates = append(candidates, n.ID)
		}
	}
	for _, m := range config {
		if !inTable[m.ID] {
			return plan{planRemove, m.ID}
		}
	}
	if missing := target - voters; len(candidates) > 0 && missing > 0 {
		if voters%2 == 0 || len(candidates) >= 2 {
			return plan{planPromote, slices.Min(candidates)}
		}
	}
	return plan{}
}

// upkeep makes one change at a time, as the leader. The first leader of all also founds the table.
func (n *Node) upkeep(ctx context.Context) error {
	if n.fsm.ClusterID() == 0 {
		return n.foundTable(ctx)
	}
	if _, ok := n.fsm.Node(n.id); !ok && !n.leaving.Load() && !n.fsm.Removed(n.id) {
		return n.foundTable(ctx) // stopped between the two entries of the founding
	}
	config, _, err := n.store.Members()
	if err != nil {
		return err
	}
	applied := n.fsm.Applied()
	p := planMembership(config, n.fsm.Nodes(), int(n.fsm.Settings().Voters), func(id wire.NodeID) bool {
		v, ok := n.lead.heard(id)
		node, member := n.fsm.Node(id)
		return ok && member && node.State != raftfsm.Down && now()-v.at < n.cfg.Timings.Lease && v.Applied+caughtUp >= applied
	})
	if p.what == planNothing {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	switch p.what {
	case planAdd:
		err = n.store.AddNonvoter(ctx, p.node)
	case planPromote:
		err = n.store.Promote(ctx, p.node)
	case planDemote:
		if p.node == n.id { // a leader hands over first; its successor demotes it
			return n.store.TransferLeadership(ctx, 0)
		}
		err = n.store.Demote(ctx, p.node)
	case planRemove:
		err = n.store.Remove(ctx, p.node)
	case planForget:
		var r raftfsm.Result
		if r, err = n.lead.apply(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeRemove, Node: p.node, By: n.id}); err == nil {
			err = r.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", p.what, n.nameOf(p.node), err)
	}
	n.log.Info("membership changed", "change", p.what.String(), "node", n.nameOf(p.node), "id", p.node)
	return nil
}

// foundTable writes the first entries of a cluster. It is repeated until they are applied.
func (n *Node) foundTable(ctx context.Context) error {
	policy, err := raftfsm.ParseDuplicatePolicy(n.cfg.Duplicate)
	if err != nil {
		return err
	}
	for _, cmd := range []*raftfsm.Command{
		{Kind: raftfsm.KindInit, ClusterID: n.identity.Load().Cluster, CACert: n.identity.Load().CAPEM, Settings: raftfsm.Settings{Duplicate: policy, OnePerClass: n.cfg.OnePerClass, Voters: n.cfg.Voters}, Level: min(n.cfg.FeatureLevel, raftfsm.MaxFeatureLevel)},
		{Kind: raftfsm.KindNodeJoin, Node: n.id, Name: n.name, Addrs: n.Addrs(), Version: Version},
	} {
		r, err := n.lead.apply(ctx, cmd)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return fmt.Errorf("founding the cluster: %w", err)
		}
	}
	return nil
}
