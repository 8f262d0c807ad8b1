package node

import (
	"context"
	"errors"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// A node that was removed is not in the Raft configuration any more, and the others cut it off: the entry that says so often
// never reaches it. It finds out by asking.

// refusedBy: a member does not count this node among the members.
func (n *Node) refusedBy(wire.NodeID) {
	select {
	case n.refused <- struct{}{}:
	default:
	}
}

// removalTries is how often the others are asked after one of them refused this node, removalPause apart: they apply its
// removal within some hundred milliseconds of each other.
const (
	removalTries = 20
	removalPause = 100 * time.Millisecond
)

// watchRemoval ends the node as soon as it may believe that it was removed: somebody refuses it, its own table says that it is to
// be removed, and more than half of the others say that it is. Without that entry in its table a refusal may come from members
// that are behind: lookForPeers is slower to believe them.
func (n *Node) watchRemoval(ctx context.Context) error {
	for {
		select {
		case <-n.refused:
		case <-ctx.Done():
			return nil
		}
		for range removalTries {
			if me, ok := n.fsm.Node(n.id); (!ok || me.Role != raftfsm.RoleRemoved) && !n.fsm.Removed(n.id) {
				break
			}
			if n.isDisowned(ctx) {
				return n.endWith(errRemoved)
			}
			if !sleep(ctx, removalPause) {
				return nil
			}
		}
	}
}

// isOut is the answer of a node that knows that it is a member no more, until its process has ended: what its table says is of
// the past. nil: it is a member as far as it knows.
func (n *Node) isOut() error {
	why := context.Cause(n.ctx)
	if !errors.Is(why, errRemoved) && !errors.Is(why, errLeft) && !n.fsm.Removed(n.id) {
		return nil
	}
	return &admin.Error{Code: wire.NotMember, Status: admin.StatusUnavailable, Text: "this node was removed from the cluster, or has left it, and is about to end", Hint: "ask another node: --addr ADDR"}
}
