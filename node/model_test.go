package node

import (
	"os"
	"testing"
	"time"
)

// IMROUTE_MODEL=large explores further: some minutes instead of some seconds.
var modelLarge = os.Getenv("IMROUTE_MODEL") == "large"

const (
	modelNodeA = 0
	modelNodeB = 1
	modelNodeC = 2

	modelNobody = 1 // a set of sessions with none of them
)

var modelWorlds = []modelConfig{
	{
		name: "takeover", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, leader: modelNodeC,
		budget: modelBudget{disconnects: 1},
	},
	{
		name: "three nodes", place: [3]uint8{modelNodeA, modelNodeB, modelNodeC}, registered: true, leader: modelNodeC,
		budget: modelBudget{reasks: 1, lateRevokes: 1},
	},
	{
		name: "crash", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, leader: modelNodeC,
		budget: modelBudget{crashes: 1, expiries: 1},
		only:   0,
	},
	{
		name: "copies", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC,
		budget: modelBudget{lates: 1, kicks: 1, expiries: 1},
	},
	{
		name: "moves", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, leader: modelNodeC, moves: true,
		budget: modelBudget{lateRevokes: 1, reasks: 1},
	},
	{
		name: "moves on", place: [3]uint8{modelNodeA, modelNodeB, modelNodeC}, registered: true, leader: modelNodeC, moves: true,
		budget: modelBudget{lateRevokes: 1},
	},
	{
		name: "vacancies", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC, slow: true,
		budget: modelBudget{disconnects: 2, lateRevokes: 1},
	},
	{
		name: "woken together", place: [3]uint8{modelNodeA, modelNodeB, modelNodeC}, registered: true, leader: modelNodeC, deaf: 1 << modelNodeA,
		budget: modelBudget{expiries: 1, disconnects: 1},
	},
	{
		name: "stopped in order", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC,
		budget: modelBudget{stops: 1, lates: 1, expiries: 1},
	},
	{
		name: "leaving", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, leader: modelNodeC,
		budget: modelBudget{leaves: 1, removes: 1, expiries: 1},
	},
	{
		name: "second logins are rejected", place: [3]uint8{modelNodeA, modelNodeB, modelNodeC}, leader: modelNodeC, reject: true,
		budget: modelBudget{disconnects: 2, expiries: 1},
	},
	{
		name: "recovery", place: [3]uint8{modelNodeA, modelNodeB, modelNodeC}, leader: modelNodeC,
		budget: modelBudget{recovers: 1, disconnects: 1},
	},
	{
		name: "leases of different lengths", leader: modelNodeC, only: modelNobody, timed: true, raft: true, renews: 1 << modelNodeA, length: 1, longer: 2,
		budget: modelBudget{elections: 1, renewals: 2, losses: 1},
		elect:  [][2]uint8{{modelNodeC, modelNodeB}},
	},
	{
		name: "leader stopped in order", place: [3]uint8{modelNodeA, modelNodeB, modelNodeB}, registered: true, only: modelSetOf(1) | modelSetOf(3), leader: modelNodeA,
		raft: true, budget: modelBudget{stops: 1, lates: 1, elections: 1},
	},
	{
		name: "leader leaves", place: [3]uint8{modelNodeA, modelNodeB, modelNodeA}, registered: true, only: modelSetOf(1) | modelSetOf(2), leader: modelNodeC,
		raft: true, budget: modelBudget{leaves: 1, elections: 1},
	},
	{
		name: "lease", leader: modelNodeC, only: modelNobody, timed: true, raft: true, renews: 1 << modelNodeA, length: 1,
		budget: modelBudget{elections: 2, renewals: 2, losses: 1, ends: 1},
	},
	{
		name: "lease and crash", leader: modelNodeC, only: modelNobody, timed: true, raft: true, renews: 1 << modelNodeA, length: 1,
		budget: modelBudget{elections: 1, renewals: 2, losses: 1, crashes: 1},
	},
	{
		name: "drift", leader: modelNodeC, only: modelNobody, timed: true, raft: true, renews: 1 << modelNodeA, length: 2, margin: 1, spread: 1,
		budget: modelBudget{elections: 1, renewals: 2, losses: 1},
	},
	{
		name: "expiry of an owner", place: [3]uint8{modelNodeA, modelNodeB, modelNodeB}, registered: true, only: modelSetOf(1) | modelSetOf(3), leader: modelNodeC,
		timed: true, raft: true, deaf: modelEverybody, renews: 1 << modelNodeA, length: 1, budget: modelBudget{renewals: 1, elections: 1},
	},
}

// modelLimit is how many states of a world are looked at. The race detector has nothing to find in a single goroutine and
// makes it five times slower.
func modelLimit() int {
	switch {
	case modelLarge:
		return 3_000_000
	case modelRaceDetector:
		return 4_000
	}
	return 150_000
}

func TestModel(t *testing.T) {
	for _, cfg := range modelWorlds {
		cfg.limit = modelLimit()
		t.Run(cfg.name, func(t *testing.T) {
			began := time.Now()
			f := modelExplore(cfg, modelAllRules)
			t.Logf("%d states, depth %d, complete: %v, %v", f.states, f.depth, f.complete, time.Since(began).Round(time.Millisecond))
			if f.violation != "" {
				t.Fatalf("%s, by%s", f.violation, f.story())
			}
		})
	}
}

// TestModelWalks follows random ways far beyond the depth that TestModel reaches.
func TestModelWalks(t *testing.T) {
	for _, cfg := range modelWorlds {
		t.Run(cfg.name, func(t *testing.T) {
			steps, m := 0, newModel(cfg, modelAllRules) // it remembers what it called
			for seed := range uint64(modelLimit() / 100) {
				f := m.walk(seed, 120)
				steps += f.depth
				if f.violation != "" {
					t.Fatalf("seed %d: %s, by%s", seed, f.violation, f.story())
				}
			}
			t.Logf("%d steps", steps)
		})
	}
}
