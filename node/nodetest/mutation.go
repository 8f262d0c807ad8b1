package nodetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// A mutation is a rule of the program that is taken away (package mutate) and the trouble in which the checkers must notice.
type mutation struct {
	name    string
	rule    string // what no longer holds
	trouble trouble
	// standIn names the test that notices where processes cannot: "package TestName". why says why they cannot.
	standIn [2]string
	why     string
}

// trouble is what is done to a cluster under a certain load. One is shared by many mutations.
type trouble struct {
	name    string
	timings func(*Timings) // nil: FastTimings
	load    LoadOptions
	do      func(t testing.TB, c *Cluster, w *Workload)
	// peaceful: only clients move, no process and no packet is touched in a way that a message could not survive. Then more
	// can be asked, see checkPeaceful.
	peaceful bool
}

// verdict is how one run ended: by whom something was noticed, and what.
type verdict struct {
	check, text string // empty: nothing was noticed
	took        time.Duration
}

// byHarness is who noticed if it was no checker: a node that ended or never got ready, clients that nobody served.
const byHarness = "availability"

// try makes one run. What goes wrong in it is a finding, not a failure of t.
func (tr trouble) try(t testing.TB, binary, mutation string, seed uint64) verdict {
	t.Helper()
	began := time.Now()
	r := &trial{TB: t}
	var o Outcome
	r.run(func() {
		timings := FastTimings()
		if tr.timings != nil {
			tr.timings(&timings)
		}
		c := Start(r, Options{Timings: timings, Seed: seed, Binary: binary, Env: []string{"IMROUTE_MUTATION=" + mutation}})
		w := c.Load(r, tr.load)
		tr.do(r, c, w)
		w.settle(tr)
		o = w.Judge(r)
		if tr.peaceful {
			e, err := c.evidence()
			if err != nil {
				r.Fatal(err)
			}
			for _, text := range checkPeaceful(&e) {
				o.Violations = append(o.Violations, Violation{"peaceful", text})
			}
		}
	})
	v := verdict{took: time.Since(began)}
	switch {
	case len(o.Violations) > 0:
		v.text = o.Violations[0].Text
		var by []string
		for _, x := range o.Violations {
			if !slices.Contains(by, x.Check) {
				by = append(by, x.Check)
			}
		}
		v.check = strings.Join(by, ", ")
	case r.failed:
		v.check, v.text = byHarness, r.why
	}
	return v
}

// settle lets sends that are under way end, where nothing is left that could keep them from it.
func (w *Workload) settle(tr trouble) {
	if tr.peaceful {
		w.c.Wait(w.o.Timeout / 4)
	}
}

// trial is a test within a test: it keeps what went wrong to itself.
type trial struct {
	testing.TB

	mu       sync.Mutex
	failed   bool
	why      string
	cleanups []func()
}

// run calls f and then what it gave to Cleanup, and returns also if f ended by Fatal.
func (r *trial) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(r.cleanups) - 1; i >= 0; i-- {
				r.cleanups[i]()
			}
		}()
		f()
	}()
	<-done
}

func (r *trial) fail(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failed {
		r.failed, r.why = true, why
	}
}

func (r *trial) Helper()                   {}
func (r *trial) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *trial) Logf(string, ...any)       {}
func (r *trial) Log(...any)                {}
func (r *trial) Error(a ...any)            { r.fail(fmt.Sprint(a...)) }
func (r *trial) Errorf(f string, a ...any) { r.fail(fmt.Sprintf(f, a...)) }
func (r *trial) Fatal(a ...any)            { r.Error(a...); runtime.Goexit() }
func (r *trial) Fatalf(f string, a ...any) { r.Errorf(f, a...); runtime.Goexit() }
func (r *trial) FailNow()                  { r.fail("failed"); runtime.Goexit() }
func (r *trial) Fail()                     { r.fail("failed") }
func (r *trial) Failed() bool              { r.mu.Lock(); defer r.mu.Unlock(); return r.failed }

// checkPeaceful judges runs in which nothing but clients moved: who is connected somewhere all the time must be reached
// within the time-out, whatever way a message had to take, and what was sent later waits for what was sent earlier. The last
// is asked of messages without acknowledgement only: one with it may be refused as out of order, if a later one without was
// refused by the former owner a moment before it was.
func checkPeaceful(e *Evidence) []string {
	var out []string
	refused := map[wire.MessageID]wire.Code{}
	for _, r := range e.History.Refused {
		refused[r.ID] = r.Code
	}
	for _, s := range e.History.Sends {
		code, end := s.Code, s.Return
		if s.Ack == wire.AckNone {
			code, end = refused[s.ID], s.Call+s.Timeout
		}
		if s.GivenUp || lostSession(e, s.SDK, s.Call, end) {
			continue // its own session was in question
		}
		switch code {
		case wire.OutOfOrder:
			if s.Ack != wire.AckNone {
				continue
			}
			fallthrough
		case wire.Timeout, wire.Unavailable:
			out = append(out, fmt.Sprintf("%v from %s to %s, sent at %v, was answered %s at %v, although nothing but clients moved", s.ID, s.From, s.To, s.Call, code, end))
		}
	}
	return out
}

// stallFile makes this node's disk hang as long as it exists, in a binary with mutations.
func (n *Node) stallFile() string { return filepath.Join(n.c.dir, n.Name+".stall") }

// stall makes the next write of the node's Raft log hang until unstall.
func (n *Node) stall(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(n.stallFile(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) unstall() { _ = os.Remove(n.stallFile()) }

// awaitStalled waits until Raft's main loop on n hangs in a write.
func (n *Node) awaitStalled(t testing.TB) {
	t.Helper()
	n.c.Await(t, n.Name+"'s disk to hang", 5*time.Second, func(context.Context) error {
		_, err := os.Stat(n.stallFile() + ".hangs")
		return err
	})
}

var mutated struct {
	once sync.Once
	path string
	err  error
}

// mutatedBinary builds imctl with mutations, once, beside what Binary builds.
func mutatedBinary(t testing.TB) string {
	t.Helper()
	if !supported {
		t.Skip("real processes are started on Linux only")
	}
	mutated.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
		defer cancel()
		if mutated.path = os.Getenv("IMCTL_MUTATED"); mutated.path != "" {
			return
		}
		if mutated.err = madeDir(); mutated.err == nil {
			mutated.path = filepath.Join(built.dir, "imctl-mutated")
			mutated.err = buildTo(ctx, mutated.path, "-tags", "mutations")
		}
	})
	if mutated.err != nil {
		t.Fatal(mutated.err)
	}
	return mutated.path
}
