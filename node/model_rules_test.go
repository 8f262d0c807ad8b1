package node

// rule is one that the model can be run without.
type modelRule uint8

const (
	modelAllRules modelRule = iota

	// of takeovers
	ruleRecordRefusal
	ruleKeepRefusal
	ruleBatchTold
	ruleAnswersInOrder
	ruleClosesLower
	ruleEndedClosesLower
	ruleWaitForClosing
	ruleFenceBeforeOpen
	ruleFenceBeforeAnswer
	ruleUnregisterUnwanted
	ruleUnregisterRevoked
	ruleUnregisterAfterFence
	ruleUnregisterComparesEpoch
	ruleFencedIsEqual
	ruleCloseBeforeBoot
	ruleExpireNamesIncarnation

	// of rows that are left to whoever takes over
	ruleLeaveRow
	ruleLeaveRowUnlearnt
	ruleVacate
	ruleVacateAfterFence
	ruleVacateKeepsHigher
	ruleVacateRaises

	// of nodes that go
	ruleDownAfterSessions
	ruleDownNamesIncarnation
	ruleLeaveCloses
	ruleRemoveOnlyDown

	// of the table, as the protocol needs them
	ruleAttempts
	ruleReject
	ruleGeneration

	// of leases and terms
	ruleHolderMargin
	ruleGrantorMargin
	ruleMargin
	ruleFromSendTime
	ruleLeaderLength
	ruleConfirm
	ruleNextRound
	ruleBarrier
	ruleBarrierRenews
	ruleTimersOfTerm
	ruleMarkExpiring
	ruleExpireNamesTerm
	ruleDropLease
	ruleDropLeaseLast
)

// Steps, as they are called in a trace.
const (
	actLogin uint8 = iota + 1
	actDisconnect
	actJoin
	actClosed
	actRevoke
	actRevokeLater
	actReask
	actRevokeDone
	actFenced
	actKick
	actTake
	actAnswer
	actTell
	actPropose
	actCopy
	actLate
	actEnd
	actOver
	actRestart
	actUp
	actCrash
	actExpireNow
	actServe
	actTick
	actSend
	actRound
	actDecide
	actReply
	actLose
	actMark
	actExpire
	actProposeUp
	actReplicate
	actElect
	actReceive
	actAsk
	actConfirm
	actGiveUp
	actDue
	actVacate
	actStop
	actDown
	actDownLate
	actGone
	actDrain
	actLeaveClose
	actLeave
	actRemove
	actRecover
)
