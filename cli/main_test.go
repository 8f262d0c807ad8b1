package cli

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"imroute/testdata/d1http"
)

// fakeNodeEnv makes this test binary a fake node process, for "imctl dev" to start.
const fakeNodeEnv = "IMCTL_TEST_FAKE_NODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeNodeEnv); mode != "" && len(os.Args) > 2 && os.Args[1] == "node" {
		os.Exit(fakeNodeMain(mode))
	}
	testscript.Main(leakChecked{m}, map[string]func(){
		"imctl":  func() { os.Exit(Main(os.Args[1:], System())) },
		"page":   pageMain,
		"device": deviceMain,
		"cert":   certMain,
		"d1http": func() { os.Exit(d1http.Main(os.Args[1:])) }, // the example of that name
	})
}

type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "leaked:", err)
			return 1
		}
	}
	return code
}
