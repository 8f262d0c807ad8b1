package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// A node's heap is collected no earlier than at twice the ballast, unless who runs it has said when.
func TestBallast(t *testing.T) {
	defer func() { ballast = nil }()
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(name, "100")
		if takeBallast(); ballast != nil {
			t.Fatalf("ballast is taken although %s is set", name)
		}
		t.Setenv(name, "")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	takeBallast()
	runtime.GC()
	m := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	if metrics.Read(m); m[0].Value.Uint64() < 2*ballastBytes {
		t.Errorf("the heap is collected at %d bytes, want %d at least", m[0].Value.Uint64(), 2*ballastBytes)
	}
}
