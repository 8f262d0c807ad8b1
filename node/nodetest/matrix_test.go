package nodetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// matrixLine is one fault's line of the table.
type matrixLine struct {
	name       string
	runs       int
	operations int
	violations int
	late       int // recoveries that took longer than promised
	recoveries []time.Duration
	bound      time.Duration
	skipped    string // why it cannot be done here
}

// TestFaultMatrix makes every fault happen again and again, each time in a new cluster with a seed of its own, and prints
// the table of ARCHITECTURE.md's Guarantees:
//
//	IMROUTE_FAULTS=1 go test -race -timeout 30m -run TestFaultMatrix -v ./node/nodetest
//
// IMROUTE_FAULTS_MINUTES bounds it (default 20; no run starts later), IMROUTE_FAULTS_ONLY names a part of the faults to
// run, IMROUTE_SEED seeds the first run. In a run the fault happens again and again for some seconds, fewer if the time would
// not be enough for every fault.
func TestFaultMatrix(t *testing.T) {
	if os.Getenv("IMROUTE_FAULTS") == "" {
		t.Skip("set IMROUTE_FAULTS=1: it takes about 20 minutes")
	}
	minutes := 20.0
	if v := os.Getenv("IMROUTE_FAULTS_MINUTES"); v != "" {
		var err error
		if minutes, err = strconv.ParseFloat(v, 64); err != nil {
			t.Fatalf("IMROUTE_FAULTS_MINUTES %q: %v", v, err)
		}
	}
	until := Now() + time.Duration(minutes*float64(time.Minute))
	seeds := rand.New(rand.NewPCG(seedOf(t), 3))
	only := os.Getenv("IMROUTE_FAULTS_ONLY")
	var lines []*matrixLine
	var faults []Fault
	for _, f := range Faults() {
		if strings.Contains(f.Name, only) {
			faults = append(faults, f)
			lines = append(lines, &matrixLine{name: f.Name})
		}
	}
	for round := 1; Now() < until && len(faults) > 0; round++ {
		began := Now()
		for i, f := range faults {
			if Now() >= until {
				break
			}
			// What is left is shared by the runs that are to come in this round, so that the first one reaches every fault.
			share := min((until-Now())/time.Duration(len(faults)-i)-overhead, repeatFor)
			seed := seeds.Uint64()>>32 + 1
			t.Run(fmt.Sprintf("%d/%s", round, f.Name), func(t *testing.T) { lines[i].run(t, f, seed, share) })
		}
		t.Logf("round %d took %v", round, (Now() - began).Round(time.Second))
	}
	table := &strings.Builder{}
	w := tabwriter.NewWriter(table, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "fault\truns\toperations\tviolations\trecovery, median\tworst\tpromised")
	for _, l := range lines {
		switch {
		case l.skipped != "":
			fmt.Fprintf(w, "%s\tskipped: %s\n", l.name, l.skipped)
		case l.runs > 0:
			fmt.Fprintln(w, l)
		}
	}
	_ = w.Flush() // into memory
	t.Log("\n" + table.String())
}

const (
	// repeatFor is how long a fault happens again and again in one run, at most.
	repeatFor = 7 * time.Second
	// overhead is about what a run takes beside that: to start a cluster, judge it and end it.
	overhead = 6 * time.Second
)

// run has a fault happen, and again if share is not over.
func (l *matrixLine) run(t *testing.T, f Fault, seed uint64, share time.Duration) {
	if f.Skip != nil {
		if why := f.Skip(); why != "" {
			l.skipped = why
			t.Skip(why)
		}
	}
	// Counted in any case, also when the test ends in between.
	l.runs++
	before := l.violations
	defer func() {
		if t.Failed() && l.violations == before {
			l.violations++
		}
	}()
	o := f.Options
	o.Seed = seed
	c := Start(t, o)
	if f.Bound != nil {
		l.bound = f.Bound(c.Timings)
	}
	w := c.Load(t, f.Load)
	for began := Now(); ; {
		took := w.Inject(t, f)
		l.recoveries = append(l.recoveries, took)
		if l.bound != 0 && took > l.bound {
			l.late++
			t.Logf("recovered after %v, promised within %v", took, l.bound)
		}
		if Now()-began > share {
			break
		}
	}
	found := w.Finish(t)
	l.operations += found.Operations
	l.violations += len(found.Violations)
	c.AwaitAgreement(t, startWait)
}

func (l *matrixLine) String() string {
	median, worst, promised := "-", "-", "-"
	if n := len(l.recoveries); n > 0 {
		slices.Sort(l.recoveries)
		median, worst = seconds(l.recoveries[n/2]), seconds(l.recoveries[n-1])
	}
	if l.bound != 0 {
		promised = seconds(l.bound)
		if l.late > 0 {
			promised += fmt.Sprintf(" (missed %d of %d)", l.late, len(l.recoveries))
		}
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%s\t%s\t%s", l.name, l.runs, l.operations, l.violations, median, worst, promised)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
