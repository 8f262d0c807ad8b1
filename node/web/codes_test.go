package web

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

var update = flag.Bool("update", false, "write the table of codes into the JavaScript client and its types")

// TestCodes compares the JavaScript client's table of codes with the one of mesh/wire.
func TestCodes(t *testing.T) {
	type entry struct {
		code  wire.Code
		name  string
		class wire.Class
	}
	var all []entry
	wire.Known(func(code wire.Code, name string, class wire.Class) bool {
		all = append(all, entry{code, name, class})
		return true
	})
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.code, b.code) })
	js, ts := "const table = [\n", "export type Reason =\n"
	for _, e := range all {
		js += fmt.Sprintf("  [%d, %q, %q],\n", uint16(e.code), e.name, e.class.String())
		ts += fmt.Sprintf("  | %q\n", e.name)
	}
	js += "];\n"
	ts += "  | `code_${number}`;\n"
	for file, want := range map[string]string{"imroute.js": js, "imroute.d.ts": ts} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(b), "// codes begin")
		intro, rest, ok2 := strings.Cut(rest, "\n")
		got, tail, ok3 := strings.Cut(rest, "// codes end")
		if !ok || !ok2 || !ok3 {
			t.Fatalf("%s: the marks \"codes begin\" and \"codes end\" are missing", file)
		}
		if got == want {
			continue
		}
		if !*update {
			t.Errorf("%s has another table of codes than mesh/wire/code.go: run `go test ./node/web -run TestCodes -update`", file)
			continue
		}
		if err := os.WriteFile(file, []byte(head+"// codes begin"+intro+"\n"+want+"// codes end"+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNames looks for what else the two languages have in common.
func TestNames(t *testing.T) {
	js, err := files.ReadFile("imroute.js")
	if err != nil {
		t.Fatal(err)
	}
	ts, err := files.ReadFile("imroute.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	for k := wire.Kind(0); k.Known(); k++ {
		if quoted := fmt.Sprintf("%q", k.String()); !strings.Contains(string(js), quoted) || !strings.Contains(string(ts), quoted) {
			t.Errorf("the JavaScript client does not know kind %s", quoted)
		}
	}
	for _, ack := range []wire.AckMode{wire.AckNone, wire.AckOwner, wire.AckClient} {
		if quoted := fmt.Sprintf("%q", ack.String()); !strings.Contains(string(js), quoted) || !strings.Contains(string(ts), quoted) {
			t.Errorf("the JavaScript client does not know ack %s", quoted)
		}
	}
	for name, v := range map[string]int{"MAX_GROUPS": wire.MaxGroups, "LOGIN_GROUPS": wire.MaxLoginGroups, "PROTOCOL_VERSION": wire.ProtocolVersion} {
		if !strings.Contains(string(js), fmt.Sprintf("const %s = %d;", name, v)) {
			t.Errorf("the JavaScript client's %s is not %d", name, v)
		}
	}
}
