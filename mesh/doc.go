// Package mesh is how bytes reach another node: who the nodes are (a cluster CA, node certificates, join tokens), the two
// QUIC connections that each pair of members keeps, and what runs over them: Raft's streams, control calls, lanes.
//
// One UDP socket carries everything, told apart by ALPN:
//
//	imroute-raft/1   Raft RPCs and the calls that must not wait behind data: confirm, renew, revoke, probe, hash
//	imroute-data/1   lanes and all other calls
//	imroute-join/1   one request of a node that has no certificate yet
//
// A connection between members begins with a hello on its first stream and is used only after the answer: a QUIC dial can
// succeed before the accepting side has looked at our certificate. Each later stream begins with one byte, its kind:
//
//	1 hello   uint16 length · CBOR hello, answered in kind       (the first stream of a connection, opened by the dialler)
//	2 raft    a raft.NetworkTransport connection                 (raft connection only)
//	3 call    kind byte · uint32 timeout ms · uint32 length · request → uint16 code · uint32 length · answer or text
//	4 lane    lane number byte · the lane's own protocol          (data connection only, opened by the dialler)
//
// All integers are big-endian.
//
// # Promises
//
// Both ends of an accepted connection hold a certificate of this cluster for the node they claim to be and were members, as
// Config.Members says, when it was made. Each pair settles on one connection per kind: of two that overlap the one dialled
// by the lower node id survives (calls on the other one are let finish), otherwise the newest replaces. A member's connections are remade for as long as it is a
// member, with jittered backoff, at its address of the moment. A dead peer is noticed within IdleTimeout plus a second, a
// restarted one at once. A stranger costs nothing but its own connection. Every wait is bounded by a context or a time-out
// of Config, every queue by a number of it; Close returns when every goroutine has ended.
//
// # Left to others
//
// Who is a member (Config.Members), what calls mean (Handle), who may join (Config.Join), the order and the loss of
// messages on lanes (package lane). The mesh stores nothing on disk.
package mesh
