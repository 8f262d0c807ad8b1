// Package node is one server of a cluster: it joins the state machine (raftfsm), the mesh, the client gateway and the admin
// API, and holds what none of them knows alone.
//
// What it promises (ARCHITECTURE.md, Guarantees):
//
//   - A client's session is delivered to only while this node's lease holds and the table says that this incarnation and
//     epoch own the client (lease.go, claims.go, router.go).
//   - A client id goes to another node only after its former session was fenced or its incarnation ended (takeover.go,
//     life.go).
//   - "offline" follows a linearizable read, "unavailable" the lack of a quorum (lead.go, confirm.go, flow.go).
//
// Where to begin: node.go wires everything in order and takes it down in reverse; life.go is one incarnation; router.go is a
// message's way; lead.go is what a leader does for the others; upkeep.go holds the rules of membership. What decides is
// free of I/O (lease.go, claims.go, confirm.go, planMembership) and is driven through every interleaving of small worlds by
// the model check in the tests.
//
// What it leaves to others: sockets and sessions to gateway, bytes between nodes to mesh, agreement to raftfsm and its
// store, the files to datadir, the API's form to admin.
package node
