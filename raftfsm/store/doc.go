// Package store runs one member of the cluster's Raft group on hashicorp/raft: it opens the log, the votes and the snapshots
// of a folder, connects them with a state machine and a stream layer that others provide, and offers proposals, leadership
// and membership in terms of wire.NodeID.
//
// It promises
//   - Fail-stop: after the first write or fsync that failed or took longer than StoreDeadline, after the first damaged log
//     entry or vote that was read, and after a state machine that could not restore a snapshot, Config.Fatal is called once
//     and nothing is stored, voted for or acknowledged any more. Nothing is ever retried: what an fsync that failed has left
//     on the disk is not known.
//   - Damage is noticed: log entries, terms, votes and snapshots carry checksums, and the pages of the log's file are walked
//     before it is mapped. A folder from which something is missing is refused; it never starts as if it were new.
//   - A vote is one write, so a crash cannot leave half of one.
//   - Errors are typed: ErrNotLeader and ErrOverloaded mean that nothing happened, ErrUnknown that it may yet take effect.
//
// It leaves to others: the state machine and the checksum inside its commands; the stream layer, which is dialled with a
// node id's sixteen hex digits, so nodes may change their network address; the barrier on gaining leadership, linearizable
// reads and leases (package node); the lock of the data folder; ending the process in Fatal.
//
// # Files of the folder
//
//	raft.db        bbolt: log entries, current term, last vote, index of the newest snapshot
//	snapshots/     one file a snapshot, the newest two are kept
//
// Damage has one remedy, since what a voter forgot cannot be guessed: remove the node from the cluster, empty its data
// folder, and let it join as a new member.
package store
