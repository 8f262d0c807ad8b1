package node

import (
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
