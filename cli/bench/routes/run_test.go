package routes

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imroute/cli/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(t *testing.T) Options {
	return Options{Routes: 20_000, Duration: 20 * time.Millisecond, Dir: t.TempDir()}
}

func TestRun(t *testing.T) {
	o := options(t)
	var phases []string
	o.Profile = func(phase string) func() {
		phases = append(phases, phase)
		return func() {}
	}
	o.Progress = func(bench.Progress) {}
	r, err := Run(t.Context(), o)
	if err != nil || len(r.Problems) > 0 || r.Lost != 0 {
		t.Fatal(err, r.Problems)
	}
	v := r.Table
	if v.PageBytesPerRoute < 50 || v.PageBytesPerRoute > 100 || v.Lookups == 0 || v.LookupNS <= 0 || v.LookupHotNS <= 0 || v.MemoryReadNS <= 0 {
		t.Errorf("%+v", v)
	}
	if v.LookupAllocs > 0.01 {
		t.Errorf("%g allocations a look-up", v.LookupAllocs)
	}
	if v.SnapshotBytes < 20_000*50 || v.LongestApplyUS <= 0 || r.Received == 0 || r.Rate <= 0 || v.GCWith.CycleCPUMS <= 0 {
		t.Errorf("%+v %+v", r, v)
	}
	if got := strings.Join(phases, " "); got != "gc-without fill memory lookup gc-with snapshot restore" {
		t.Errorf("phases: %s", got)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("%v %v stay", left, err)
	}
}

// TestRunNotices: a table that is not what was written is a problem.
func TestRunNotices(t *testing.T) {
	o := options(t)
	r := &run{Options: o}
	r.res.Table = &r.out
	r.Profile = func(phase string) func() {
		if phase == "restore" {
			r.hash++
		}
		if phase == "lookup" {
			r.Routes *= 2 // half of the look-ups are of clients that are not there
		}
		if phase == "gc-with" {
			r.Routes /= 2
		}
		return func() {}
	}
	if err := r.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.res.Problems) < 2 || !strings.Contains(r.res.Problems[0], "found nothing") || !strings.Contains(r.res.Problems[len(r.res.Problems)-1], "another hash") || r.res.Lost == 0 {
		t.Errorf("%q, %d lost", r.res.Problems, r.res.Lost)
	}
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	o := options(t)
	o.Profile = func(phase string) func() {
		if phase == "snapshot" {
			cancel(why)
		}
		return func() {}
	}
	r, err := Run(ctx, o)
	if !errors.Is(err, why) || r.Table.Lookups == 0 {
		t.Errorf("%v %+v", err, r.Table)
	}
}

func TestValidate(t *testing.T) {
	for word, change := range map[string]func(*Options){
		"routes":   func(o *Options) { o.Routes = 5 },
		"duration": func(o *Options) { o.Duration = 0 },
		"rate":     func(o *Options) { o.Rate = -1 },
	} {
		o := options(t)
		change(&o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
	if memory, disk := Needs(10_000_000); memory < 1<<30 || disk < 1<<29 {
		t.Errorf("%d %d", memory, disk)
	}
}
