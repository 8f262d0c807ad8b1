package node

import (
	"testing"
	"time"
)

// worlds of the mutations: as small as the rule allows, so that the counterexample is found at once.
var (
	sameNode = modelConfig{place: [3]uint8{nodeA, nodeB, nodeA}, only: setOf(1) | setOf(3), leader: nodeC, budget: budget{disconnects: 1}}
	twoNodes = modelConfig{place: [3]uint8{nodeA, nodeC, nodeB}, only: setOf(1) | setOf(3), leader: nodeC}
	allThree = modelConfig{place: [3]uint8{nodeA, nodeB, nodeA}, registered: true, leader: nodeC}
	asked    = modelConfig{place: [3]uint8{nodeA, nodeB, nodeA}, registered: true, leader: nodeC, budget: budget{kicks: 1, reasks: 1}}
	expiring = modelConfig{place: [3]uint8{nodeA, nodeC, nodeB}, registered: true, only: setOf(1) | setOf(3), leader: nodeC, budget: budget{expiries: 1}}

	oneLease = modelConfig{
		leader: nodeC, only: nobody, timed: true, raft: true, renews: 1 << nodeA, length: 1, budget: budget{renewals: 1},
	}
)

// elections: B may become the leader by A's vote, and after it C again.
func elections(c modelConfig, n uint8) modelConfig {
	c.budget.elections = n
	c.elect = [][2]uint8{{nodeB, nodeA}, {nodeC, nodeA}, {nodeC, nodeB}}
	return c
}

func apart(c modelConfig, x, y uint8) modelConfig { c.cut = 1<<x | 1<<y; return c }

func renewals(c modelConfig, n uint8) modelConfig {
	c.budget.renewals, c.budget.losses = n, n-1
	return c
}

func ends(c modelConfig) modelConfig { c.budget.ends = 1; return c }

func crashes(c modelConfig) modelConfig { c.budget.crashes = 1; return c }

func drift(c modelConfig, margin, spread uint8) modelConfig {
	c.length, c.margin, c.spread = margin+1, margin, spread
	return c
}

// TestModelMutations takes the rules away one by one: without it the model must find a state that must not be, or the model
// is blind there.
func TestModelMutations(t *testing.T) {
	for _, c := range []struct {
		name    string
		without rule
		world   modelConfig
	}{
		{"a Revoke records which epochs are refused", ruleRecordRefusal, twoNodes},
		{"a refusal is kept until the batch in flight is answered", ruleKeepRefusal, twoNodes},
		{"a batch counts as answered when its sessions were told", ruleBatchTold, twoNodes},
		{"answers are handed out in op order, or the lower epoch closes", ruleAnswersInOrder, sameNode},
		{"a session that learns its epoch closes those with a lower one", ruleClosesLower, sameNode},
		{"one that ended before it learnt its epoch does so as well", ruleEndedClosesLower, sameNode},
		{"a takeover waits for whoever is closing already", ruleWaitForClosing, asked},
		{"lower sessions are fenced before the new one opens", ruleFenceBeforeOpen, sameNode},
		{"a Revoke is answered once its session is fenced", ruleFenceBeforeAnswer, twoNodes},
		{"what is closed when its epoch becomes known is unregistered", ruleUnregisterUnwanted, sameNode},
		{"Unregister is proposed after delivery stopped", ruleUnregisterAfterFence, sameNode},
		{"Unregister compares the epoch", ruleUnregisterComparesEpoch, sameNode},
		{"fenced is compared for equality", ruleFencedIsEqual, allThree},
		{"all sessions are closed before boot is raised", ruleCloseBeforeBoot, expiring},
		{"NodeExpire names the incarnation", ruleExpireNamesIncarnation, apart(crashes(oneLease), nodeB, nodeC)},

		{"margins", ruleMargin, drift(oneLease, 1, 1)},
		{"the holder's margin", ruleHolderMargin, drift(oneLease, 2, 2)},
		{"the leader's margin", ruleGrantorMargin, drift(oneLease, 2, 2)},
		{"a lease counts from the time its renewal was sent", ruleFromSendTime, oneLease},
		{"a grant needs ConfirmTerm", ruleConfirm, elections(oneLease, 1)},
		{"a renewal joins the next round only", ruleNextRound, renewals(elections(oneLease, 1), 2)},
		{"a new leader serves once its barrier was applied", ruleBarrier, elections(oneLease, 1)},
		{"a new leader treats every node as renewed", ruleBarrierRenews, elections(oneLease, 1)},
		{"timers are of one term", ruleTimersOfTerm, apart(elections(oneLease, 2), nodeA, nodeC)},
		{"an incarnation is marked as expiring before that is proposed", ruleMarkExpiring, oneLease},
		{"NodeExpire is refused in another term", ruleExpireNamesTerm, apart(elections(oneLease, 2), nodeB, nodeC)},
		{"the lease is dropped with the incarnation", ruleDropLease, ends(oneLease)},
		{"and again once its renewals have ended", ruleDropLeaseLast, ends(oneLease)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := c.world
			cfg.limit = 2_000_000
			began := time.Now()
			f := explore(cfg, c.without)
			t.Logf("%d states, depth %d, complete %v, %v", f.states, f.depth, f.complete, time.Since(began).Round(time.Millisecond))
			if f.violation == "" {
				t.Fatal("not noticed")
			}
			t.Logf("%d steps to: %s%s", len(f.trace), f.violation, f.story())
		})
	}
}
