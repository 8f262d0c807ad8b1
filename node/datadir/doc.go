// Package datadir is a node's data folder: who the node is and what it must not forget, apart from the Raft log.
//
// It promises
//   - One process at a time: Open takes an exclusive lock that the system gives back when the process ends, however it ends.
//     Holding it proves that the predecessor in this folder is gone.
//   - What was written survives a power loss, in the order in which it was written: each file is written beside its place,
//     synced, renamed, and the folder is synced (WriteFileAtomic).
//   - A file that is damaged is an error that names it and says what to do, never taken for one that is missing. Nothing is
//     made up: without an identity, a folder that has anything else in it is refused.
//   - Nobody but the owner may read it: 0700 and 0600.
//
// It leaves to others: what the Raft folder holds (package raftfsm/store), what certificates and tokens mean.
//
// # Files of the folder
//
//	lock              pid of the process that holds it; the lock itself is the system's
//	node.json         the node's id and reset key; written once, its presence marks a complete folder
//	boot.json         how often the node was started
//	members.json      the peers as last seen
//	recovered.json    from which recovery of the cluster the Raft folder descends; missing: from none
//	raft/             see package raftfsm/store
//	identity/         node.crt, node.key, ca.crt, and on voters ca.key (PEM)
//	secrets/          admin.token, client.key
package datadir
