package store

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestHclogAdapter(t *testing.T) {
	var out bytes.Buffer
	a := hclogAdapter{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	l := a.Named("raft").With("peer", 7)
	if l.Name() != "raft" || len(l.ImpliedArgs()) != 2 || l.IsDebug() || !l.IsInfo() || l.GetLevel() != hclog.Info {
		t.Fatalf("name %q, implied %v, level %v", l.Name(), l.ImpliedArgs(), l.GetLevel())
	}
	l.Debug("hidden")
	l.Warn("seen", "got", hclog.Fmt("%d / %d", 1, 2))
	l.StandardLogger(nil).Print("line")
	for _, want := range []string{"level=WARN", "msg=seen", "peer=7", `got="1 / 2"`, "msg=line"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hidden") {
		t.Error("a message below the level was written")
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if q := h.read().Quantile(0.99); q != 0 {
		t.Fatalf("quantile of nothing: %v", q)
	}
	for range 98 {
		h.observe(60 * time.Microsecond)
	}
	h.observe(3 * time.Millisecond)
	h.observe(time.Hour)
	r := h.read()
	if r.Count != 100 || r.Max != time.Hour || len(r.Counts) != len(r.Bounds)+1 {
		t.Fatalf("%+v", r)
	}
	for q, want := range map[float64]time.Duration{0.5: 64 * time.Microsecond, 0.98: 64 * time.Microsecond, 0.99: 4096 * time.Microsecond, 1: time.Hour} {
		if got := r.Quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}
