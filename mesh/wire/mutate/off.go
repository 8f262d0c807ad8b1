//go:build !mutations

package mutate

// Enabled tells whether this build has mutations.
const Enabled = false

// The switches; on.go says what each takes away.
const (
	NoLeaseCheckBefore  = false
	NoLeaseCheckAfter   = false
	LeaseFromAnswer     = false
	ExpireEarly         = false
	UnreachableIsFenced = false
	RevokeWithoutFence  = false
	RegisterOverLive    = false
	GrantUnconfirmed    = false
	ReadUnconfirmed     = false
	RoundJoinedLate     = false
	NoGrace             = false
	ExpireInAnyTerm     = false
	NackIsDelivered     = false
	NackIsOffline       = false
	NackIgnored         = false
	NoDedupe            = false
	NoOrderHold         = false
	LaneTakesTwice      = false
	OfflineFromTable    = false
	NoBarrier           = false
	UnregisterAnyEpoch  = false
	RevokedQueueDropped = false
	BootReused          = false
	DeliveredOnAccept   = false
)

// StallDisk does nothing in this build.
func StallDisk() {}
