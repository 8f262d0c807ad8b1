package mesh

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// A copy of a node's data folder is started while the original runs: the copy is turned away by every peer, and told so; the
// original goes on.
func TestCopyOfRunningNodeIsTurnedAway(t *testing.T) {
	c := newCluster(t)
	told := map[string]chan error{"original": make(chan error, 1000), "copy": make(chan error, 1000)}
	ident := c.identity(2)
	twin := func(name string) func(*Config, *Mesh) {
		return configure(func(cfg *Config) {
			cfg.Identity, cfg.Twin = ident, func(err error) { told[name] <- err }
		})
	}
	a, b := c.start(1), c.start(3)
	original := c.start(2, twin("original"))
	for _, m := range []*Mesh{a, b} {
		mustCall(t, original, m.self, wire.CallAdmin, "I am 2")
		mustCall(t, original, m.self, wire.CallRenew, "I am 2")
	}
	addr, _ := c.dir.lookup(2)
	twice := c.start(2, twin("copy"))
	c.dir.set(2, addr)
	for _, m := range []*Mesh{original, twice} {
		m.Connect(1)
		m.Connect(3)
	}
	for range 2 {
		select {
		case err := <-told["copy"]:
			if !errors.Is(err, ErrTwin) {
				t.Fatalf("the copy was told %v", err)
			}
		case err := <-told["original"]:
			t.Fatalf("the original was turned away: %v", err)
		case <-testContext(t).Done():
			t.Fatal("nobody was turned away")
		}
	}
	closeMesh(t, twice)
	for _, m := range []*Mesh{a, b} {
		waitFor(t, "the original connected", func() bool { return m.Connected(2) && original.Connected(m.self) })
		mustCall(t, m, 2, wire.CallAdmin, "still there")
	}
	if len(told["original"]) > 0 {
		t.Errorf("the original was turned away: %v", <-told["original"])
	}
}

func TestTwins(t *testing.T) {
	for _, x := range []struct {
		name    string
		took    []uint64
		refuses uint64 // 0: nobody
	}{
		{"one process", []uint64{1, 1, 1, 1, 1, 1}, 0},
		{"restarts", []uint64{1, 2, 3, 4, 5, 6}, 0},
		{"a late hello of a dead process", []uint64{1, 2, 1, 2, 2, 2}, 0},
		{"then it restarts", []uint64{1, 2, 1, 2, 3, 4, 3}, 0},
		{"a copy", []uint64{1, 2, 1, 2, 1}, 2},
		{"a copy of a restarted node", []uint64{7, 1, 1, 2, 1, 2, 2, 1}, 2},
		{"a copy that was ended and started again", []uint64{1, 2, 1, 2, 1, 3}, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			var tw twins
			for _, p := range x.took {
				tw.took(p)
			}
			for p := uint64(1); p < 10; p++ {
				if got, want := tw.refuses(p), p == x.refuses; got != want {
					t.Errorf("refuses %d: %v, want %v", p, got, want)
				}
			}
		})
	}
}

func TestTellOnce(t *testing.T) {
	var o tellOnce
	begun := time.Now()
	for i, x := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"a", 0, true},
		{"a", 0, false},
		{"b", time.Second, true},
		{"a", tellAgain - 1, false},
		{"a", tellAgain, true},
		{"a", tellAgain + time.Second, false},
		{"b", tellAgain + time.Second, true},
	} {
		if got := o.first(x.text, begun.Add(x.after)); got != x.want {
			t.Errorf("%d: %s after %v: %v", i, x.text, x.after, got)
		}
	}
	for i := range 10 * toldMax {
		o.first(strconv.Itoa(i), begun)
		if len(o.last) > toldMax {
			t.Fatalf("%d remembered", len(o.last))
		}
	}
}
