package metrics

import (
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"imroute/mesh/wire"
)

func scrape(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(r, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %v", w.Code, err)
	}
	return string(b)
}

func TestScrape(t *testing.T) {
	var sends Codes
	sends.Add(wire.Delivered)
	sends.Add(wire.Delivered)
	sends.Add(wire.Offline)
	sends.Add(9999) // a newer peer's code
	term := 7.0
	r := prometheus.NewRegistry()
	_, err := NewMetrics(r, Sources{
		Fsync: func() Histogram {
			return Histogram{Count: 2, Sum: 0.103, Buckets: map[float64]uint64{0.001: 0, 0.01: 1, 1: 2}}
		},
		Sessions:       func() float64 { return 12 },
		Sends:          sends.Counts,
		LaneQueueBytes: func() map[string]float64 { return map[string]float64{"n2": 5, "n\"3\n": 6} },
		RaftState:      func() string { return "leader" },
		Term:           func() float64 { return term },
		LeaseLeft:      func() float64 { return -1.5 },
		FreeDisk:       func() float64 { return math.NaN() },
	})
	if err != nil {
		t.Fatal(err)
	}
	term = 8 // read when asked, not when registered
	got := scrape(t, r)
	for _, want := range []string{
		"imroute_sessions 12\n",
		`imroute_sends_total{result="delivered"} 2` + "\n",
		`imroute_sends_total{result="offline"} 1` + "\n",
		`imroute_sends_total{result="unknown"} 1` + "\n",
		`imroute_lane_queue_bytes{peer="n2"} 5` + "\n",
		`imroute_lane_queue_bytes{peer="n\"3\n"} 6` + "\n",
		`imroute_raft_state{state="leader"} 1` + "\n",
		`imroute_raft_state{state="follower"} 0` + "\n",
		"imroute_raft_term 8\n",
		"imroute_lease_left_seconds -1.5\n",
		"imroute_fsync_seconds_count 2\n",
		`imroute_fsync_seconds_bucket{le="0.01"} 1` + "\n",
		"# TYPE imroute_sends_total counter\n",
		"# TYPE imroute_sessions gauge\n",
		"go_goroutines ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, absent := range []string{"imroute_routes", "imroute_free_disk_bytes "} {
		if strings.Contains(got, "\n"+absent) {
			t.Errorf("%q has no source", absent)
		}
	}
}

// TestTwoNodes: nodes of one process do not meet in a registry, and one registry cannot serve two.
func TestTwoNodes(t *testing.T) {
	a, b := prometheus.NewRegistry(), prometheus.NewRegistry()
	for i, r := range []*prometheus.Registry{a, b} {
		if _, err := NewMetrics(r, Sources{Routes: func() float64 { return float64(i) }}); err != nil {
			t.Fatal(err)
		}
	}
	if got := scrape(t, b); !strings.Contains(got, "imroute_routes 1\n") {
		t.Error(got)
	}
	if _, err := NewMetrics(a, Sources{Routes: func() float64 { return 0 }}); err == nil {
		t.Error("a registry took two nodes")
	}
}

// TestEverySource: each source has a metric, and each metric passes Prometheus' own checks.
func TestEverySource(t *testing.T) {
	v, codes := func() float64 { return 1 }, func() map[wire.Code]uint64 { return map[wire.Code]uint64{wire.OK: 1} }
	r := prometheus.NewPedanticRegistry()
	_, err := NewMetrics(r, Sources{
		Sessions: v, Watches: v, Routes: v, Void: v, TableRAM: v, Sends: codes, Registrations: codes, Logins: codes, Closes: codes,
		Nacks: codes, HeldUp: v, Paced: v, Drops: func() map[string]float64 { return map[string]float64{"queue_full": 1} }, LaneQueueBytes: func() map[string]float64 { return map[string]float64{"n2": 1} }, PeersUp: v,
		MeshSent: func() map[string]float64 { return map[string]float64{"n2": 1} }, MeshReceived: func() map[string]float64 { return map[string]float64{"n2": 1} },
		Topics: v, Memberships: v, FanoutBytes: v, FanoutArrived: v, FanoutReached: v, FanoutRefused: v,
		RequestsTaken: v, RequestsRefused: v, Watched: v, PresenceTold: v, PresenceLate: v,
		RaftState: func() string { return "follower" }, Term: v, CommitIndex: v, Applied: v, ApplyLag: v, Takeovers: v, LeaseLeft: v,
		Quiet: v, RefusedGrants: v, Expiries: v, FreeDisk: v, StoreBytes: v, Fsync: func() Histogram { return Histogram{} },
		WebhookQueued: v, WebhookDelivered: v, WebhookFailures: v, LoginAsksFailed: v, WebhookDropped: func() map[string]float64 { return map[string]float64{"overflow": 1} },
	})
	if err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "imroute_") {
			n++
		}
	}
	if want := 46 + 2; n != want {
		t.Errorf("%d metrics, want %d", n, want)
	}
}

func TestCodesCountFromManyGoroutines(t *testing.T) {
	var c Codes
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				c.Add(wire.Kicked)
			}
		})
	}
	wg.Wait()
	if got := c.Counts(); len(got) != 1 || got[wire.Kicked] != 8000 {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { c.Add(wire.OK) }); n != 0 {
		t.Errorf("%v allocations a count", n)
	}
}
