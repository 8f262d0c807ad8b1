package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"imroute/mesh/wire"
)

// TestMutations takes the rules of the program away one by one and fails for each that nobody misses. It prints the table
// of ARCHITECTURE.md:
//
//	IMROUTE_MUTATIONS=1 go test -timeout 30m -run TestMutations -v ./node/nodetest
//
// A mutation is tried until it is caught, IMROUTE_MUTATIONS_RUNS times at most (default 5), each time in a new cluster with
// a seed of its own. IMROUTE_MUTATIONS_ONLY names a part of them, IMROUTE_SEED seeds the first run. Every trouble is also
// run without a mutation, IMROUTE_MUTATIONS_CONTROLS times (default 1), when nothing may be found.
func TestMutations(t *testing.T) {
	if os.Getenv("IMROUTE_MUTATIONS") == "" {
		t.Skip("set IMROUTE_MUTATIONS=1: it takes some minutes")
	}
	runs, controls := countOf(t, "IMROUTE_MUTATIONS_RUNS", 5), countOf(t, "IMROUTE_MUTATIONS_CONTROLS", 1)
	binary := mutatedBinary(t)
	only := os.Getenv("IMROUTE_MUTATIONS_ONLY")
	seeds := rand.New(rand.NewPCG(seedOf(t), 4))
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "mutation\ttrouble\tseed\tcaught by\tafter runs")
	clean := map[string]bool{} // by trouble: nothing was found without a mutation
	for _, m := range mutations() {
		if !strings.Contains(m.name, only) {
			continue
		}
		if m.standIn[0] != "" {
			t.Run(m.name, func(t *testing.T) {
				testStandIn(t, m)
				fmt.Fprintf(w, "%s\t-\t-\t%s of %s\t1\n", m.name, m.standIn[1], m.standIn[0])
			})
			continue
		}
		tr := m.trouble
		if _, known := clean[tr.name]; !known {
			clean[tr.name] = t.Run("none/"+tr.name, func(t *testing.T) {
				for range controls {
					seed := seeds.Uint64()>>32 + 1
					if v := tr.try(t, binary, "", seed); v.check != "" {
						t.Errorf("without a mutation, seed %d: %s: %s", seed, v.check, v.text)
					}
				}
			})
		}
		if !clean[tr.name] {
			fmt.Fprintf(w, "%s\t%s\t-\tnot known: it is not clean without\t0\n", m.name, tr.name)
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			for n := 1; n <= runs; n++ {
				seed := seeds.Uint64()>>32 + 1
				v := tr.try(t, binary, m.name, seed)
				t.Logf("seed %d, %v: %s: %.600s", seed, v.took.Round(time.Second), v.check, v.text)
				if v.check != "" {
					fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", m.name, tr.name, seed, v.check, n)
					return
				}
			}
			fmt.Fprintf(w, "%s\t%s\t-\tNOBODY\t%d\n", m.name, tr.name, runs)
			t.Errorf("nobody misses the rule that %s", m.rule)
		})
	}
	_ = w.Flush() // into memory
	t.Log("\n" + table.String())
}

// countOf reads a number of runs from the environment.
func countOf(t *testing.T, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q: a number", name, v)
	}
	return n
}

// testStandIn: the test passes, and fails under the mutation.
func testStandIn(t *testing.T, m mutation) {
	for _, with := range []string{"", m.name} {
		ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-tags", "mutations", "-run", "^("+m.standIn[1]+")$", strings.Replace(m.standIn[0], ".", "imroute", 1))
		cmd.Env = append(os.Environ(), "IMROUTE_MUTATION="+with)
		out, err := cmd.CombinedOutput()
		switch failed := bytes.Contains(out, []byte("--- FAIL")); {
		case with == "" && err != nil:
			t.Errorf("without a mutation: %v\n%s", err, out)
		case with != "" && err == nil:
			t.Errorf("nobody misses the rule that %s", m.rule)
		case with != "" && !failed:
			t.Errorf("no test failed, but: %v\n%s", err, out)
		}
	}
}

// One mutation that shows at once, so that more than make mutations sees the checkers complain about a real cluster.
func TestMutationIsCaught(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("builds a second binary and starts real processes; make mutations runs all of them")
	}
	binary := mutatedBinary(t)
	for _, m := range mutations() {
		if m.name != "nack-is-offline" {
			continue
		}
		if v := m.trouble.try(t, binary, m.name, seedOf(t)); v.check == "" {
			t.Errorf("nobody misses the rule that %s", m.rule)
		}
	}
}

// Every switch has a line in the list, and the list names no others: a binary refuses names that it does not know.
func TestMutationsAreComplete(t *testing.T) {
	source, err := os.ReadFile("../../mesh/wire/mutate/on.go")
	if err != nil {
		t.Fatal(err)
	}
	var switches, listed []string
	for _, found := range regexp.MustCompile(`= on\("([^"]+)"\)`).FindAllSubmatch(source, -1) {
		switches = append(switches, string(found[1]))
	}
	for _, m := range mutations() {
		listed = append(listed, m.name)
		if m.rule == "" || (m.trouble.do == nil) == (m.standIn[0] == "") || (m.standIn[0] == "") != (m.why == "") {
			t.Errorf("%s: wants a rule, and either a trouble or a test with a reason", m.name)
		}
	}
	slices.Sort(switches)
	slices.Sort(listed)
	if !slices.Equal(switches, listed) {
		t.Errorf("package mutate has %v,\nthe list %v", switches, listed)
	}
}

// The normal binary knows nothing of mutations.
func TestNormalBinaryHasNoMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a binary")
	}
	b, err := os.ReadFile(Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range []string{"IMROUTE_MUTATION", "IMROUTE_STALL", "revoke-without-fence"} {
		if bytes.Contains(b, []byte(trace)) {
			t.Errorf("it contains %q", trace)
		}
	}
}

func TestCheckPeaceful(t *testing.T) {
	if found := checkPeaceful(good()); len(found) > 0 {
		t.Fatal(found)
	}
	bad := map[string]func(e *Evidence){
		"time-out": func(e *Evidence) { e.History.Sends[2].Code = wire.Timeout },
		"nobody could say where the recipient is": func(e *Evidence) { e.History.Sends[2].Code = wire.Unavailable },
		"overtaken, without acknowledgement": func(e *Evidence) {
			e.History.Sends[2].Ack, e.History.Sends[2].Return = wire.AckNone, 0
			e.History.Refused = []Refusal{{ID: id(3), At: at(700), Code: wire.OutOfOrder}}
		},
	}
	for name, spoil := range bad {
		e := good()
		spoil(e)
		if len(checkPeaceful(e)) != 1 {
			t.Errorf("%s: %v", name, checkPeaceful(e))
		}
		e.History.SDKs[0].States = append(e.History.SDKs[0].States, SDKState{At: at(505)})
		if found := checkPeaceful(e); len(found) > 0 {
			t.Errorf("%s, but its sender lost its own session: %v", name, found)
		}
	}
}
