// Package gateway holds the clients' long connections: the TCP and WebSocket listeners, the handshake and its checks, and
// one Session per connection with its bounded queues, its dedupe memory and its fence.
//
// What it promises:
//   - Every queue has a bound in bytes or entries. What does not fit is refused with a code and counted; a client that does
//     not read loses its connection and slows nobody else.
//   - Deliver frames leave in the order in which Session.Deliver accepted them, each one after a look at the node's lease;
//     `delivered` is reported only if the lease still held after the write.
//   - Once Session.Fenced is closed not one more byte of a deliver frame leaves for that client, and everything that was
//     accepted before has been reported to whoever asked for it. A client that does not read cannot hold that up.
//   - A message id reaches a session at most once within the dedupe window, and no message of a sender overtakes a later one.
//   - Whatever a stranger sends costs that stranger's connection at most.
//
// What it leaves to others: who owns a client, where messages go and whether the lease holds. All of that is behind
// Backend, which the node implements.
//
// One goroutine per connection reads; it owns the parsing state. A writer goroutine exists only while there is something to
// write. All deadlines of all sessions sit in one timing wheel. An idle session holds neither buffers nor a writer.
//
// Lock order: Session.mu before wheel.mu; Gateway.mu and Gateway.parkMu are never held together with another lock.
// No Backend or Receipt method is called with any lock held.
package gateway
