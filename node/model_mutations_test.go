package node

import (
	"slices"
	"testing"
	"time"
)

// worlds of the mutations: as small as the rule allows, so that the counterexample is found at once.
var (
	modelSameNode = modelConfig{place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, only: modelSetOf(1) | modelSetOf(3), leader: modelNodeC, budget: modelBudget{disconnects: 1}}
	modelTwoNodes = modelConfig{place: [3]uint8{modelNodeA, modelNodeC, modelNodeB}, only: modelSetOf(1) | modelSetOf(3), leader: modelNodeC}
	modelAllThree = modelConfig{place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC}
	modelAsked    = modelConfig{place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC, budget: modelBudget{kicks: 1, reasks: 1}}
	modelExpiring = modelConfig{place: [3]uint8{modelNodeA, modelNodeC, modelNodeB}, registered: true, only: modelSetOf(1) | modelSetOf(3), leader: modelNodeC, budget: modelBudget{expiries: 1}}

	modelMoving   = modelConfig{place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, only: modelSetOf(1) | modelSetOf(2), leader: modelNodeC}
	modelVacating = modelConfig{place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC, slow: true, budget: modelBudget{disconnects: 1}, begin: modelTwiceHeld}

	modelRevokedLate = modelConfig{
		place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC,
		begin: append(slices.Clip(modelTwiceHeld), modelThenHeldAgain...),
	}
	modelAllAtA  = modelConfig{leader: modelNodeC}
	modelJustOne = modelConfig{only: modelSetOf(1), leader: modelNodeC}

	modelOneLease = modelConfig{
		leader: modelNodeC, only: modelNobody, timed: true, raft: true, renews: 1 << modelNodeA, length: 1, budget: modelBudget{renewals: 1},
	}
)

// elections: B may become the leader by A's vote, and after it C again.
func modelElections(c modelConfig, n uint8) modelConfig {
	c.budget.elections = n
	c.elect = [][2]uint8{{modelNodeB, modelNodeA}, {modelNodeC, modelNodeA}, {modelNodeC, modelNodeB}}
	return c
}

func modelApart(c modelConfig, x, y uint8) modelConfig { c.cut = 1<<x | 1<<y; return c }

func modelRenewals(c modelConfig, n uint8) modelConfig {
	c.budget.renewals, c.budget.losses = n, n-1
	return c
}

func modelEnds(c modelConfig) modelConfig { c.budget.ends = 1; return c }

func modelCrashes(c modelConfig) modelConfig { c.budget.crashes = 1; return c }

func modelDrift(c modelConfig, margin, spread uint8) modelConfig {
	c.length, c.margin, c.spread = margin+1, margin, spread
	return c
}

// modelTwiceHeld: session 2 at B is told that session 1 at A holds the client, when session 3 at A has replaced that already.
var modelTwiceHeld = []action{
	{actLogin, 2, modelNodeB, 0},
	{actLogin, 3, modelNodeA, 0},
	{actTake, modelNodeA, 0, 0},
	{actTake, modelNodeB, 0, 0},
	{actPropose, modelNodeB, modelNodeC, 0},
	{actPropose, modelNodeA, modelNodeC, 0},
	{actAnswer, modelNodeA, 0, 0},
	{actTell, modelNodeA, 0, 0},
	{actJoin, 1, modelNodeA, 0},
	{actClosed, 1, modelNodeA, 0},
	{actTell, modelNodeA, 0, 0},
	{actAnswer, modelNodeB, 0, 0},
	{actTell, modelNodeB, 0, 0},
	{actTell, modelNodeB, 0, 0},
}

// modelThenHeldAgain: its Revoke of session 1 is answered while a copy is still on its way, and it is told of session 3.
var modelThenHeldAgain = []action{
	{actRevokeLater, 2, modelNodeA, 1},
	{actRevokeDone, 2, modelNodeA, 1},
	{actFenced, 2, modelNodeA, 1},
	{actTake, modelNodeB, 0, 0},
	{actPropose, modelNodeB, modelNodeC, 0},
	{actAnswer, modelNodeB, 0, 0},
	{actTell, modelNodeB, 0, 0},
	{actTell, modelNodeB, 0, 0},
}

func modelBudgeted(c modelConfig, b modelBudget) modelConfig { c.budget = b; return c }

func modelLoggingIn(c modelConfig) modelConfig { c.registered = false; return c }

func modelAlwaysOwned(c modelConfig) modelConfig { c.moves = true; return c }

func modelRejecting(c modelConfig) modelConfig { c.reject = true; return c }

func modelLonger(c modelConfig) modelConfig { c.longer = 2; return c }

// TestModelMutations takes the rules away one by one: without it the model must find a state that must not be, or the model
// is blind there.
func TestModelMutations(t *testing.T) {
	for _, c := range []struct {
		name    string
		without modelRule
		world   modelConfig
	}{
		{"a Revoke records which epochs are refused", ruleRecordRefusal, modelTwoNodes},
		{"a refusal is kept until the batch in flight is answered", ruleKeepRefusal, modelTwoNodes},
		{"a batch counts as answered when its sessions were told", ruleBatchTold, modelTwoNodes},
		{"answers are handed out in op order, or the lower epoch closes", ruleAnswersInOrder, modelSameNode},
		{"a session that learns its epoch closes those with a lower one", ruleClosesLower, modelSameNode},
		{"one that ended before it learnt its epoch does so as well", ruleEndedClosesLower, modelSameNode},
		{"a takeover waits for whoever is closing already", ruleWaitForClosing, modelAsked},
		{"lower sessions are fenced before the new one opens", ruleFenceBeforeOpen, modelSameNode},
		{"a Revoke is answered once its session is fenced", ruleFenceBeforeAnswer, modelTwoNodes},
		{"what is closed when its epoch becomes known is unregistered", ruleUnregisterUnwanted, modelSameNode},
		{"what a Revoke closed is unregistered even if nobody waits for it", ruleUnregisterRevoked, modelAsked},
		{"Unregister is proposed after delivery stopped", ruleUnregisterAfterFence, modelSameNode},
		{"Unregister compares the epoch", ruleUnregisterComparesEpoch, modelSameNode},
		{"fenced is compared for equality", ruleFencedIsEqual, modelAllThree},
		{"all sessions are closed before boot is raised", ruleCloseBeforeBoot, modelExpiring},
		{"NodeExpire names the incarnation", ruleExpireNamesIncarnation, modelApart(modelCrashes(modelOneLease), modelNodeB, modelNodeC)},

		{"a row that was given up stays for whoever takes over", ruleLeaveRow, modelAlwaysOwned(modelMoving)},
		{"also if its epoch is learnt after the Revoke", ruleLeaveRowUnlearnt, modelAlwaysOwned(modelLoggingIn(modelMoving))},
		{"a row that nobody took over goes in the end", ruleVacate, modelBudgeted(modelMoving, modelBudget{disconnects: 1})},
		{"and not before its session is fenced", ruleVacateAfterFence, modelMoving},
		{"a vacancy is kept if a higher epoch was given up meanwhile", ruleVacateKeepsHigher, modelVacating},
		{"a late Revoke of a lower epoch takes nothing back", ruleVacateRaises, modelBudgeted(modelRevokedLate, modelBudget{disconnects: 1, lateRevokes: 1})},
		{"a node that stops says so once its sessions are closed", ruleDownAfterSessions, modelBudgeted(modelMoving, modelBudget{stops: 1})},
		{"NodeDown names the incarnation", ruleDownNamesIncarnation, modelBudgeted(modelJustOne, modelBudget{stops: 1, lates: 1})},
		{"a node that leaves closes who logged in meanwhile", ruleLeaveCloses, modelBudgeted(modelLoggingIn(modelMoving), modelBudget{leaves: 1})},
		{"others remove a node only when it is down", ruleRemoveOnlyDown, modelBudgeted(modelMoving, modelBudget{removes: 1})},
		{"an older attempt of a client does not replace a later one", ruleAttempts, modelLoggingIn(modelMoving)},
		{"a second login is rejected if the cluster says so", ruleReject, modelRejecting(modelAllThree)},
		{"a recovery begins a generation of epochs", ruleGeneration, modelBudgeted(modelAllAtA, modelBudget{recovers: 1})},

		{"a holder counts no longer than the leader that granted", ruleLeaderLength, modelLonger(modelOneLease)},
		{"margins", ruleMargin, modelDrift(modelOneLease, 1, 1)},
		{"the holder's margin", ruleHolderMargin, modelDrift(modelOneLease, 2, 2)},
		{"the leader's margin", ruleGrantorMargin, modelDrift(modelOneLease, 2, 2)},
		{"a lease counts from the time its renewal was sent", ruleFromSendTime, modelOneLease},
		{"a grant needs ConfirmTerm", ruleConfirm, modelElections(modelOneLease, 1)},
		{"a renewal joins the next round only", ruleNextRound, modelRenewals(modelElections(modelOneLease, 1), 2)},
		{"a new leader serves once its barrier was applied", ruleBarrier, modelElections(modelOneLease, 1)},
		{"a new leader treats every node as renewed", ruleBarrierRenews, modelElections(modelOneLease, 1)},
		{"timers are of one term", ruleTimersOfTerm, modelApart(modelElections(modelOneLease, 2), modelNodeA, modelNodeC)},
		{"an incarnation is marked as expiring before that is proposed", ruleMarkExpiring, modelOneLease},
		{"NodeExpire is refused in another term", ruleExpireNamesTerm, modelApart(modelElections(modelOneLease, 2), modelNodeB, modelNodeC)},
		{"the lease is dropped with the incarnation", ruleDropLease, modelEnds(modelOneLease)},
		{"and again once its renewals have ended", ruleDropLeaseLast, modelEnds(modelOneLease)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := c.world
			cfg.limit = 2_000_000
			began := time.Now()
			f := modelExplore(cfg, c.without)
			t.Logf("%d states, depth %d, complete %v, %v", f.states, f.depth, f.complete, time.Since(began).Round(time.Millisecond))
			if f.violation == "" {
				t.Fatal("not noticed")
			}
			t.Logf("%d steps to: %s%s", len(f.trace), f.violation, f.story())
		})
	}
}
