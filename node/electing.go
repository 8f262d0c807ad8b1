package node

import "time"

// electionRounds is how many rounds of noticing and voting an election may take before the want of a leader is called a want of a
// quorum: the first one, and one more if the votes were split, with some room.
const electionRounds = 3

// electing says that there is no leader to be heard, but that there was one so short a while ago that the others may well be at
// electing the next. Nothing can be agreed on in either case; this one ends by itself. What proves that there was a quorum is this
// node's lease: it is granted only by a leader that a majority confirmed after it was asked for.
func (n *Node) electing() bool {
	t := n.cfg.Timings
	age := t.Lease - t.Margin - n.lease.left(now()) // of the last renewal that was granted; more if the leader grants shorter ones
	return age < electionTime(t)
}

// electionTime is how long the cluster takes to elect a leader, at most, while a majority of the voters can talk to each other.
func electionTime(t Timings) time.Duration { return electionRounds * (t.Heartbeat + t.Election) }
