//go:build mutations

package mutate

import (
	"fmt"
	"os"
	"time"
)

// Enabled tells whether this build has mutations.
const Enabled = true

var (
	known  = map[string]bool{}
	chosen = os.Getenv("IMROUTE_MUTATION")
)

// The switches, by the names that IMROUTE_MUTATION takes.
var (
	NoLeaseCheckBefore  = on("no-lease-check-before") // messages are written whatever the lease
	NoLeaseCheckAfter   = on("no-lease-check-after")  // Delivered is answered without a second look at the lease
	LeaseFromAnswer     = on("lease-from-answer")     // a lease counts from its answer, not from when it was asked for
	ExpireEarly         = on("expire-early")          // the leader ends an incarnation after a third of its lease
	UnreachableIsFenced = on("unreachable-is-fenced") // a holder that cannot be reached counts as fenced
	RevokeWithoutFence  = on("revoke-without-fence")  // a Revoke is answered at once, its session stays
	RegisterOverLive    = on("register-over-live")    // a registration replaces another node's live row
	GrantUnconfirmed    = on("grant-unconfirmed")     // a lease is granted without ConfirmTerm
	ReadUnconfirmed     = on("read-unconfirmed")      // a linearizable read is answered without ConfirmTerm
	RoundJoinedLate     = on("round-joined-late")     // who asks joins the ConfirmTerm round that is under way
	NoGrace             = on("no-grace")              // a new leader takes every node for expired
	ExpireInAnyTerm     = on("expire-in-any-term")    // NodeExpire takes effect in a term that it was not decided in
	NackIsDelivered     = on("nack-is-delivered")     // an owner's refusal is answered as delivered
	NackIsOffline       = on("nack-is-offline")       // and as offline
	NackIgnored         = on("nack-ignored")          // and not at all: the message is forgotten
	NoDedupe            = on("no-dedupe")             // a session takes every message for a new one
	NoOrderHold         = on("no-order-hold")         // a later message does not wait for an earlier one on another way
	LaneTakesTwice      = on("lane-takes-twice")      // a lane hands on what was sent again after a new stream
	OfflineFromTable    = on("offline-from-table")    // a miss in the local table is answered as offline
	NoBarrier           = on("no-barrier")            // a new leader serves before its own command was applied
	UnregisterAnyEpoch  = on("unregister-any-epoch")  // Unregister removes the row whatever its epoch
	RevokedQueueDropped = on("revoked-queue-dropped") // what a closing session has not written is not refused
	BootReused          = on("boot-reused")           // a node comes up under the boot number that it had
	DeliveredOnAccept   = on("delivered-on-accept")   // an answer does not wait for the write
)

func init() {
	if chosen != "" && !known[chosen] {
		panic(fmt.Sprintf("IMROUTE_MUTATION names %q, which is no mutation", chosen))
	}
}

func on(name string) bool {
	known[name] = true
	return name == chosen
}

// StallDisk returns when the file that IMROUTE_STALL names is not there: a test makes it to have this node's disk hang. While
// it hangs there is a file of that name with ".hangs" behind it.
func StallDisk() {
	path := os.Getenv("IMROUTE_STALL")
	if path == "" {
		return
	}
	for told := false; ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(path); err != nil {
			if told {
				_ = os.Remove(path + ".hangs")
			}
			return
		}
		if !told {
			told = true
			_ = os.WriteFile(path+".hangs", nil, 0o600)
		}
	}
}
