package store

import "errors"

// Errors of the Store's methods; compare with errors.Is.
var (
	// ErrNotLeader: this member does not lead, or is handing leadership over; nothing happened. Ask the leader.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnknown: the outcome is not known, it may yet take effect: leadership was lost, the context ended or the member was
	// closed after the command was handed to Raft.
	ErrUnknown = errors.New("outcome unknown: it may yet take effect")
	// ErrOverloaded: Raft did not take the command within the time; nothing happened. Try again later.
	ErrOverloaded = errors.New("overloaded: nothing was proposed")
	// ErrClosed: the Store is closed; nothing happened.
	ErrClosed = errors.New("store is closed")
	// ErrHasState: the folder already belongs to a cluster, so it cannot found one.
	ErrHasState = errors.New("this node already belongs to a cluster")
	// ErrNotMember: the node named is not in the Raft configuration.
	ErrNotMember = errors.New("not a member")
	// ErrLastVoter: the change would leave the cluster without a voter.
	ErrLastVoter = errors.New("the last voter can be neither demoted nor removed")
	// ErrNoTarget: there is no voter to hand leadership to.
	ErrNoTarget = errors.New("no voter to hand leadership to")
	// ErrDamaged: something on the disk is not what was written, or is missing.
	ErrDamaged = errors.New("damaged")
)

// wipe is what a person can do about damage.
const wipe = "remove this node from the cluster, empty its data folder and let it join again as a new member"
