package node

import (
	"context"
	"net/http"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/assign"
	"imroute/node/gateway"
	"imroute/node/web"
	"imroute/raftfsm"
)

// closedToClients tells whether this node should be named to nobody, whatever its lease says.
func (n *Node) closedToClients() bool {
	if n.drainIntent.Load() || n.leaving.Load() || n.stopping.Load() || n.gateway.Count() >= n.cfg.MaxSessions {
		return true
	}
	free, err := n.dir.Free()
	return err != nil || free < n.cfg.MinFreeDisk
}

// takers are the nodes that take clients by a transport, as this node knows: up and not draining in the table, not closed by
// their own word, and with a lease, which for others means that the leader heard their renewal less than a lease ago. A node that hears of no leader names nobody but itself, and soon not even that.
func (n *Node) takers(transport string) (nodes []assign.Node) {
	at := now()
	heard := n.loadsAt.Load()
	loads := n.loads.Load()
	for _, node := range n.fsm.Nodes() {
		addr := node.Addrs.ClientTCP
		if transport == gateway.TransportWS {
			addr = node.Addrs.ClientWS
		}
		if node.State != raftfsm.Up || addr == "" {
			continue
		}
		taker := assign.Node{ID: node.ID, Name: node.Name, Addr: addr}
		var v wire.NodeLoad
		heardOf := false
		if loads != nil {
			v, heardOf = (*loads)[node.ID]
		}
		age := time.Duration(v.AgeMS)*time.Millisecond + at - time.Duration(heard)
		taker.Clients, taker.At = int(v.Clients), at-age
		if node.ID == n.id {
			if n.present.Load() == nil || !n.lease.holds(at) || n.closedToClients() {
				continue
			}
			if !heardOf || v.Incarnation != node.Incarnation {
				taker.Clients, taker.At = n.gateway.Count(), at
			} // otherwise its figure is as old as the others': a newer one would count those twice who were sent here meanwhile
		} else if !heardOf || v.Closed || v.Incarnation != node.Incarnation || age >= n.cfg.Timings.Lease-n.cfg.Timings.Margin {
			continue
		}
		nodes = append(nodes, taker)
	}
	return nodes
}

// Assign names the node that a client should connect to.
func (a api) Assign(_ context.Context, q admin.AssignQuery) (admin.Assignment, error) {
	n := a.n
	if err := n.known(); err != nil {
		return admin.Assignment{}, err
	}
	to, ok := n.picker.Pick(q.Client, now(), n.takers(q.Transport))
	if !ok {
		return admin.Assignment{}, admin.Errorf(admin.StatusUnavailable, "no node is known that takes clients by %s: each is down, draining, full or without a lease", q.Transport).
			WithHint("try again in a moment; `imctl cluster health` says what is wrong")
	}
	scheme, path := "tcp://", ""
	if n.cfg.ClientTLS != (ClientTLS{}) {
		scheme = "tls://"
	}
	if q.Transport == gateway.TransportWS {
		scheme, path = map[string]string{"tcp://": "ws://", "tls://": "wss://"}[scheme], gateway.PathWS
	}
	return admin.Assignment{
		Client: q.Client.ID, Tenant: q.Client.Tenant, Node: to.Name, Transport: q.Transport, Addr: to.Addr, URL: scheme + to.Addr + path,
		Policy: n.picker.Policy().String(), Clients: uint32(to.Clients),
	}, nil
}

// clientMux answers what is not WebSocket on that port. overTLS: the port speaks TLS.
func (n *Node) clientMux(overTLS bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web.Handler(web.Config{Demo: n.cfg.Dev, Nodes: n.webNodes, TLS: overTLS}))
	mux.Handle(admin.AssignPath, admin.AssignHandler(api{n}.Assign, n.cfg.AnyOrigin))
	return mux
}

// presenceWait is how long a quorum is waited for.
const presenceWait = 5 * time.Second

// Presence says who is online. The reads share rounds to the leader.
func (a api) Presence(ctx context.Context, clients []wire.ClientID) ([]admin.Presence, error) {
	n := a.n
	ctx, cancel := context.WithTimeout(ctx, presenceWait)
	defer cancel()
	at, err := n.readMany(ctx, clients)
	if err != nil {
		return nil, withoutQuorum(err)
	}
	out := make([]admin.Presence, len(clients))
	for i, client := range clients {
		p := admin.Presence{Client: client.ID, Tenant: client.Tenant}
		if at[i].found {
			p.Online, p.Node, p.Epoch = true, n.nameOf(at[i].route.Node), at[i].route.Epoch
		}
		if client.User() == client.ID {
			if err := n.fsm.WaitApplied(ctx, at[i].index); err != nil {
				return nil, err
			}
			for _, d := range n.fsm.Devices(client, nil) {
				if d.ID != "" {
					p.Online = true
					p.Devices = append(p.Devices, admin.PresenceDevice{Client: d.Client.ID, Node: n.nameOf(d.Node), Epoch: d.Epoch})
				}
			}
		}
		out[i] = p
	}
	return out, nil
}

func withoutQuorum(err error) error {
	return &admin.Error{Code: wire.Unavailable, Status: admin.StatusUnavailable, Text: "without a quorum nobody can say who is online", Err: err}
}

// readMany is linearizable reads of several clients, in order.
func (n *Node) readMany(ctx context.Context, clients []wire.ClientID) (out []located, err error) {
	for len(clients) > 0 {
		some := clients[:min(len(clients), wire.MaxRead)]
		at, err := n.leaderCall.read(ctx, some)
		if err != nil {
			return nil, err
		}
		out, clients = append(out, at...), clients[len(some):]
	}
	return out, nil
}
