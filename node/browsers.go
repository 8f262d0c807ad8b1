package node

import (
	"cmp"
	"slices"

	"imroute/node/web"
	"imroute/raftfsm"
)

// webNodes lists the nodes for the chat page of development mode.
func (n *Node) webNodes() []web.Node {
	var list []web.Node
	for _, node := range n.fsm.Nodes() {
		list = append(list, web.Node{Name: node.Name, Addr: node.Addrs.ClientWS, Up: node.State == raftfsm.Up, Here: node.ID == n.id})
	}
	slices.SortFunc(list, func(a, b web.Node) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
