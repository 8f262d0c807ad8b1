package nodetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// built is the one imctl of a test binary: made at first use, removed by Main.
var built struct {
	once sync.Once
	mu   sync.Mutex // of dir
	dir  string
	path string
	err  error
}

const buildTimeout = 5 * time.Minute

// Binary builds imctl, once per test binary and with the race detector if the test has it, and returns its path. IMCTL
// names one to use instead.
func Binary(t testing.TB) string {
	t.Helper()
	if !supported {
		t.Skip("real processes are started on Linux only")
	}
	built.once.Do(build)
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func build() {
	if built.path = os.Getenv("IMCTL"); built.path != "" {
		return
	}
	if built.err = madeDir(); built.err != nil {
		return
	}
	built.path = filepath.Join(built.dir, "imctl")
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	built.err = buildTo(ctx, built.path)
}

// madeDir makes the folder for what is built, which Main removes.
func madeDir() (err error) {
	built.mu.Lock()
	defer built.mu.Unlock()
	if built.dir == "" {
		built.dir, err = os.MkdirTemp("", "imroute-nodetest-")
	}
	return err
}

// buildTo builds imctl with more flags of "go build".
func buildTo(ctx context.Context, path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "imroute/cli/imctl")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building imctl: %w\n%s", err, out)
	}
	return nil
}

// Main is for TestMain: it removes what Binary built. It returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // a leftover in the temporary folder is no reason to fail
	}
	return code
}
