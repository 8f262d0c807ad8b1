package nodetest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/node"
)

// TestSimulation runs whole clusters (node.Node with its Raft, QUIC mesh, bbolt store, gateway and admin API, and the SDK) in
// this process, on a network in memory and in virtual time: leases, elections and time-outs take none of ours. A seed fixes
// what is done to the cluster, what the clients do and what the network loses and delays. It does not fix how goroutines are
// scheduled, nor what libraries draw at random, so a seed that failed may need some runs to fail again; and one that passed
// has shown one interleaving.
//
//	IMROUTE_SIM_SEED=7      that seed alone
//	IMROUTE_SIM_SEEDS=500   so many, from a random one on; default 4
//	IMROUTE_SIM_MINUTES=5   as many as the time allows (make sim)
//	IMROUTE_SIM_SECONDS=60  of virtual time under faults, for each seed; default 30, under the race detector 12
//
// Under the race detector it runs only if one of these says so: with virtual time the detector itself may crash
// (golang/go issue 78156). What it would find, the tests of package node find.
func TestSimulation(t *testing.T) {
	now := node.UseRuntimeClock()
	length, seeds := 30.0, 4.0
	if raceEnabled { // ten times as slow
		length = 12
		if os.Getenv("IMROUTE_SIM_SEED")+os.Getenv("IMROUTE_SIM_SEEDS")+os.Getenv("IMROUTE_SIM_MINUTES") == "" {
			t.Skip("the race detector may crash in virtual time: make test runs this once more without it")
		}
	}
	seconds, minutes := envFloat(t, "IMROUTE_SIM_SECONDS", length), envFloat(t, "IMROUTE_SIM_MINUTES", 0)
	seed, count := rand.Uint64N(1<<31), int(envFloat(t, "IMROUTE_SIM_SEEDS", seeds))
	if v := os.Getenv("IMROUTE_SIM_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("IMROUTE_SIM_SEED %q: %v", v, err)
		}
		count = int(envFloat(t, "IMROUTE_SIM_SEEDS", 1))
	}
	total := simOutcome{results: map[wire.Code]int{}}
	began := time.Now()
	ran := 0
	// A failing seed ends it: what it shows is looked at before more is collected.
	for ; minutes > 0 && time.Since(began) < time.Duration(minutes*float64(time.Minute)) || minutes == 0 && ran < count; ran++ {
		simulate(t, seed+uint64(ran), time.Duration(seconds*float64(time.Second)), now, &total)
		if t.Failed() {
			ran++
			break
		}
	}
	t.Logf("seeds %d to %d: %v of virtual time in %v, %d operations; acknowledged sends: %v; done to clusters: %v", seed, seed+uint64(max(ran, 1)-1),
		total.virtual.Round(time.Second), time.Since(began).Round(time.Millisecond), total.operations, total.results, total.done)
}

// simOutcome sums up what seeds showed.
type simOutcome struct {
	operations int
	virtual    time.Duration
	results    map[wire.Code]int
	done       int // faults, their ends, and what operators did
}

// simPatience is far more real time than one seed takes.
const simPatience = 90 * time.Second

// simulate runs one seed and judges it.
func simulate(t *testing.T, seed uint64, length time.Duration, now func() time.Duration, total *simOutcome) {
	var s *simulation
	var e Evidence
	// Virtual time stands still for good if somebody waits, with a mutex held that another one wants, for time to pass.
	stuck := time.AfterFunc(simPatience, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("seed %d: the simulation does not get on; look for a goroutine below that is in sync.Mutex.Lock", seed))
	})
	defer stuck.Stop()
	passed := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s = newSimulation(t, seed, now)
			defer s.end()
			s.begin()
			w := s.c.Load(t, LoadOptions{Pause: 150 * time.Millisecond, Clients: 8, Lookers: 3})
			s.torment(length)
			s.note("faults are over")
			s.awaitWhole()
			w.AwaitServed(t, now(), startWait)
			s.agree()
			w.stop()
			var err error
			if e, err = s.evidence(); err != nil {
				t.Error(err)
			}
			total.virtual += s.since()
		})
		// Outside of the bubble, whose time stands still while the checkers think.
		found := Check(&e)
		for _, v := range found {
			t.Errorf("violation: %s", v)
		}
		if len(found) > 0 {
			keepEvidence(t, seed, &e)
		}
		for _, v := range s.wrong {
			t.Error(v)
		}
	})
	total.operations += e.operations(total.results)
	total.done += len(s.story)
	if !passed {
		var logs strings.Builder
		for _, n := range s.nodes {
			fmt.Fprintf(&logs, "--- log of %s, its end ---\n%s", n.name, n.log.tail())
		}
		if os.Getenv("IMROUTE_SIM_LOG") == "" {
			logs.Reset()
			logs.WriteString("(IMROUTE_SIM_LOG=1 shows the nodes' logs)")
		}
		t.Errorf("seed %d failed; to run it again: IMROUTE_SIM_SEED=%d IMROUTE_SIM_SECONDS=%v go test -run TestSimulation ./node/nodetest\n%s\n%s",
			seed, seed, length.Seconds(), strings.Join(s.story, "\n"), logs.String())
	}
}

// keepEvidence writes down what the checkers judged by, into the folder that IMROUTE_SIM_KEEP names.
func keepEvidence(t *testing.T, seed uint64, e *Evidence) {
	dir := os.Getenv("IMROUTE_SIM_KEEP")
	if dir == "" {
		return
	}
	path := filepath.Join(dir, fmt.Sprintf("seed-%d.json", seed))
	b, err := json.Marshal(e)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	t.Logf("the evidence is in %s (%v)", path, err)
}

func envFloat(t *testing.T, name string, otherwise float64) float64 {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f <= 0 {
		t.Fatalf("%s is %q: want a positive number", name, v)
	}
	return f
}

// operations counts what was done, and adds how acknowledged sends ended to results.
func (e *Evidence) operations(results map[wire.Code]int) int {
	h := e.History
	count := len(h.Sends) + len(h.Lookups) + len(h.Kicks)
	for _, s := range h.SDKs {
		for _, st := range s.States {
			if st.Connected {
				count++
			}
		}
	}
	for _, s := range h.Sends {
		if s.Ack != wire.AckNone && !s.GivenUp {
			results[s.Code]++
		}
	}
	return count
}
