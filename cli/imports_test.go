package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// TestImportRules holds the arrows between packages that ARCHITECTURE.md draws: who may import whom.
func TestImportRules(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "imroute/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	type pkg struct {
		ImportPath                         string
		Imports, TestImports, XTestImports []string
	}
	// What a package (or whatever is below it) may import of imroute. The longest prefix that fits counts.
	allowed := map[string][]string{
		"imroute/mesh/wire":        {},
		"imroute/mesh/lane":        {"imroute/mesh/wire"},
		"imroute/mesh":             {"imroute/mesh/wire", "imroute/mesh/lane"},
		"imroute/raftfsm":          {"imroute/mesh/wire"},
		"imroute/raftfsm/store":    {"imroute/mesh/wire"},
		"imroute/node/gateway":     {"imroute/mesh/wire", "imroute/node/pace"},
		"imroute/node/client":      {"imroute/mesh/wire"},
		"imroute/node/admin":       {"imroute/mesh/wire", "imroute/node/admin"},
		"imroute/node/datadir":     {"imroute/mesh/wire"},
		"imroute/node/discover":    {"imroute/mesh/wire"},
		"imroute/node/assign":      {"imroute/mesh/wire"},
		"imroute/node/webhook":     {"imroute/mesh/wire"},
		"imroute/node/web":         {"imroute/mesh/wire"},
		"imroute/node/nodetest":    {"imroute/"},
		"imroute/node":             {"imroute/mesh", "imroute/raftfsm", "imroute/node/gateway", "imroute/node/admin", "imroute/node/datadir", "imroute/node/discover", "imroute/node/assign", "imroute/node/webhook", "imroute/node/web", "imroute/node/pace"},
		"imroute/node/pace":        {},
		"imroute/cli":              {"imroute/node", "imroute/mesh/wire", "imroute/cli", "imroute/testdata/d1http"},
		"imroute/cli/bench/routes": {"imroute/cli/bench", "imroute/raftfsm", "imroute/mesh/wire"}, // measures the table itself
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		rule := ""
		for prefix := range allowed {
			if (p.ImportPath == prefix || strings.HasPrefix(p.ImportPath, prefix+"/")) && len(prefix) > len(rule) {
				rule = prefix
			}
		}
		if rule == "" {
			t.Errorf("%s: no rule for this package: give it one here and in ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "imroute/") && !allows(allowed[rule], imp) {
				t.Errorf("%s imports %s, which the rules forbid", p.ImportPath, imp)
			}
			if strings.HasPrefix(imp, "imroute/node/nodetest") && p.ImportPath != "imroute/node/nodetest" {
				t.Errorf("%s imports test code: %s", p.ImportPath, imp)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were seen", seen)
	}
}

func allows(rules []string, imp string) bool {
	for _, r := range rules {
		if imp == r || strings.HasPrefix(imp, strings.TrimSuffix(r, "/")+"/") {
			return true
		}
	}
	return false
}
