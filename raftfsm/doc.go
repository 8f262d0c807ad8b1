// Package raftfsm is what the cluster agrees on: who its members are, which of their incarnations is alive, and which of
// them owns each client, and which of them have members of each group and service.
//
// [Table] is the pure core. It has no lock, no clock, no I/O and no randomness: fed the same log it gives the same answers
// and the same logical hash on every node, also where one of them started from a snapshot. [FSM] is the thin adapter that
// makes it a raft.BatchingFSM: it adds the locks, the applied index others wait for, the event stream and the snapshot.
//
// # What it promises
//
//   - Ownership passes only over a row that is absent, void, the proposing node's own, or whose epoch the proposer has
//     fenced. Epochs only rise.
//   - A row is void, that is absent to every reader, as soon as its node's incarnation ended. Ending an incarnation costs the
//     same whatever it owned; the rows' memory is taken back later, a little with each entry applied.
//   - A batch applied once is answered the same way however often it is proposed again.
//   - An entry that cannot be read is never skipped: the adapter reports it through Config.Fatal and applies nothing more.
//
// # How routes are kept
//
// Ten million routes are the design size, so rows hold no pointers: they lie in pages of at most 4 KiB, small self-contained hash
// tables with the ids inline. A directory per stripe (extendible hashing over the top bits of the client's hash) leads to the
// page. All devices of one user have the same hash; a user with more of them than a page should hold gets a directory of his
// own, hashed by the whole id. A row names its owner by an ordinal into a side table of (node, incarnation, live), which is
// why an incarnation ends in O(1).
//
// Topics (groups and services) lie in pages of their own. A row is a topic and a set of bits, one for each owner's ordinal, so that
// a topic costs the same whether one node holds it or two hundred do.
//
// [Table.Grab] copies the directories and leaves the pages shared; from then on whoever writes a shared page copies it first.
// Snapshots, listings and the logical hash all read such a grab, without a lock.
//
// # What it leaves to others
//
// Leases and the decision to expire a node, fencing (Revoke), Raft's own configuration and the stores are not here. The table
// checks what a command claims, for instance that an expiry is applied in the term it was decided in.
package raftfsm
