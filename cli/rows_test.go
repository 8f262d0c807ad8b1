package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRows: the stories and tests that ARCHITECTURE.md names for what users ask for are there, and each row has one.
func TestRows(t *testing.T) {
	doc, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range decl.FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(string(doc), "### What it is held to")
	rows, _, _ = strings.Cut(rows, "\n## ")
	row, name := regexp.MustCompile(`(?m)^\| ([SEDAU]\d) \| .* \| (.*) \|$`), regexp.MustCompile("`([^`]+)`")
	found := row.FindAllStringSubmatch(rows, -1)
	if len(found) < 37 {
		t.Fatalf("%d rows", len(found))
	}
	for _, r := range found {
		shown := 0
		for _, n := range name.FindAllStringSubmatch(r[2], -1) {
			switch {
			case strings.HasPrefix(n[1], "Test"):
				shown++
				if !tests[n[1]] {
					t.Errorf("%s: there is no test %s", r[1], n[1])
				}
			case !strings.Contains(n[1], " "):
				shown++
				if _, err := os.Stat(filepath.Join("../testdata/script", n[1]+".txtar")); err != nil {
					t.Errorf("%s: %v", r[1], err)
				}
			}
		}
		if shown == 0 {
			t.Errorf("%s is shown by nothing that runs by itself", r[1])
		}
	}
}
