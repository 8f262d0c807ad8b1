package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// Feature levels. What a new version may write into the log is decided by the level that the cluster agreed on, so that a
// mixed cluster works while its nodes are upgraded one by one. Nodes say with every renewal what they know; an operator
// raises the level to what all of them know.

// levelPlan is what the members' knowledge allows.
type levelPlan struct {
	possible uint32   // that every member which is up knows; 0: nobody is up, or somebody has not said yet
	silent   []string // up, but their present incarnation has not said what it knows
	heldBack []string // know no more than possible, while others do
}

// planLevel compares what the members know. Those that are down are not asked: one that comes back and knows too little
// says so and stops.
func planLevel(nodes []raftfsm.Node, knows func(raftfsm.Node) (uint32, bool)) (p levelPlan) {
	highest := uint32(0)
	known := map[string]uint32{}
	for _, node := range nodes {
		if node.State == raftfsm.Down {
			continue
		}
		level, ok := knows(node)
		if !ok {
			p.silent = append(p.silent, node.Name)
			continue
		}
		level = max(level, raftfsm.BaseFeatureLevel)
		known[node.Name] = level
		highest = max(highest, level)
		if p.possible == 0 || level < p.possible {
			p.possible = level
		}
	}
	for _, node := range nodes {
		if level, ok := known[node.Name]; ok && level == p.possible && level < highest {
			p.heldBack = append(p.heldBack, node.Name)
		}
	}
	if len(p.silent) > 0 {
		p.possible = 0
	}
	return p
}

// levels is what the leader last spread.
func (n *Node) levels() levelPlan {
	loads := n.loads.Load()
	return planLevel(n.fsm.Nodes(), func(node raftfsm.Node) (uint32, bool) {
		if node.ID == n.id {
			return n.cfg.FeatureLevel, true
		}
		if loads == nil {
			return 0, false
		}
		v, ok := (*loads)[node.ID]
		return v.Features, ok && v.Incarnation == node.Incarnation
	})
}

// mayRaise is the leader's own look, before it proposes a level that somebody else asked for.
func (l *lead) mayRaise(level uint32) error {
	p := planLevel(l.n.fsm.Nodes(), func(node raftfsm.Node) (uint32, bool) {
		v, ok := l.heard(node.ID)
		return v.Features, ok && v.Incarnation == node.Incarnation
	})
	switch {
	case len(p.silent) > 0:
		return fmt.Errorf("%s did not say yet which feature level it knows: try again in a moment", strings.Join(p.silent, ", "))
	case level > p.possible:
		return fmt.Errorf("feature level %d is more than %s can do: upgrade it first", level, strings.Join(p.heldBack, ", "))
	}
	return nil
}

// RaiseFeatureLevel agrees on the highest level that all members which are up know.
func (a api) RaiseFeatureLevel(ctx context.Context) (admin.UpgradeResult, error) {
	n := a.n
	if err := n.refresh(ctx); err != nil {
		return admin.UpgradeResult{}, err
	}
	p := n.levels()
	for len(p.silent) > 0 { // a new leader hears from everybody within a renewal
		if !sleep(ctx, 50*time.Millisecond) {
			return admin.UpgradeResult{}, admin.Errorf(admin.StatusUnavailable, "nothing was heard of what %s can do", strings.Join(p.silent, ", ")).
				WithHint("`imctl node list` shows whether it is up")
		}
		p = n.levels()
	}
	out := admin.UpgradeResult{From: n.fsm.FeatureLevel(), Level: p.possible, HeldBackBy: append([]string{}, p.heldBack...)}
	if p.possible <= out.From {
		if out.Level = out.From; len(p.heldBack) > 0 {
			return out, admin.Errorf(admin.StatusConflict, "the feature level stays %d: %s can do no more", out.From, strings.Join(p.heldBack, ", ")).
				WithHint("upgrade these nodes, then repeat this")
		}
		return out, nil
	}
	_, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindFeatureLevel, Level: p.possible})
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Code == wire.Refused {
		return out, admin.Errorf(admin.StatusConflict, "%s", e.Text).WithHint("upgrade these nodes, then repeat this")
	}
	return out, err
}
