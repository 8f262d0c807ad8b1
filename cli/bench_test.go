package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imroute/cli/bench"
	"imroute/mesh/wire"
)

// TestBenchUsage: what cannot work is refused before a cluster is started.
func TestBenchUsage(t *testing.T) {
	for args, word := range map[string]string{
		"bench send --pairs 0":                                       "pairs is 0",
		"bench send --size 3":                                        "size is 3",
		"bench send --ack maybe":                                     "--ack",
		"bench send --transport smoke":                               "--transport",
		"bench send --nodes 1":                                       "needs 2",
		"bench send --local --mix":                                   "local mix",
		"bench send --duration 0s":                                   "--duration",
		"bench send --warm=-1s":                                      "--warm",
		"bench send --rate=-5":                                       "rate is -5",
		"bench send --pids 1":                                        "--pids belongs to --addr",
		"bench send --tokens":                                        "--tokens belongs to --addr",
		"bench send --addr 127.0.0.1:1":                              "2 nodes",
		"bench send --local --addr nonsense":                         "HOST:PORT",
		"bench send --local --addr ws://127.0.0.1:1":                 "--transport tcp",
		"bench send --local --addr tcp://127.0.0.1:1 --transport ws": "--transport ws",
		"bench login --concurrency 0":                                "--concurrency",
		"bench idle --clients 0":                                     "--clients",
		"bench failover --addr 127.0.0.1:1":                          "no cluster but its own",
		"bench failover --clients 0":                                 "--clients",
		"bench failover --nodes 2":                                   "needs 3",
		"bench failover --rate 0":                                    "--rate",
		"bench table --routes 3":                                     "routes is 3",
		"bench table --addr 127.0.0.1:1":                             "its own process",
		"bench table --duration 0s":                                  "duration",
		"bench mesh --sizes 3,99":                                    "--nodes 99",
		"bench mesh --sizes 1":                                       "needs 2",
		"bench mesh --addr 127.0.0.1:1":                              "without clients",
		"bench group --members 0":                                    "members is 0",
		"bench group --size 3":                                       "size is 3",
		"bench service --instances 0":                                "instances is 0",
		"bench service --window 0":                                   "window is 0",
		"bench sned":                                                 "unknown command",
	} {
		code, out, errs := newWorld(t).run(strings.Fields(args)...)
		if code != ExitError || out != "" || !strings.Contains(errs, word) {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, errs)
		}
	}
}

// TestBenchReport: a run that is not clean shows its figures and fails; so does one that was cut short.
func TestBenchReport(t *testing.T) {
	good := bench.Result{Name: "imroute-oneway", Pairs: 4, Size: 128, Received: 1234567, Rate: 2345678.9, P50: 12.5, P99: 3400, ServerCPU: 1.25, DurationMS: 5000, Cluster: "own"}
	bad := good
	bad.Lost, bad.Problems = 3, []string{"3 messages were lost"}
	for _, c := range []struct {
		name string
		r    bench.Result
		err  error
		code string // of the failure; "": none
		out  string
	}{
		{"good", good, nil, "", "2,345,679/s"},
		{"lost", bad, nil, "bench_failed", "1234567"},
		{"interrupted", good, errInterrupted, "interrupted", "1234567"},
		{"interrupted before", bench.Result{}, errInterrupted, "interrupted", ""},
		{"refused", bench.Result{}, &wire.Error{Code: wire.BadToken, Text: "no"}, "bad_token", ""},
		{"broken", good, errors.New("the sky fell"), "bench", ""},
	} {
		for _, format := range []string{outputTable, outputJSON} {
			var out, errs syncBuffer
			o := &benchOptions{app: newWorld(t).app(&out, &errs)}
			o.output = format
			err := o.report(c.r, c.err, nil)
			code := ""
			if err != nil {
				code = asFailure(err, "").code
			}
			if code != c.code {
				t.Errorf("%s: %v", c.name, err)
			}
			want := c.out
			if format == outputJSON && c.name == "good" {
				want = `"rate_per_s":2345678.9,`
			}
			if !strings.Contains(out.String(), want) || (want == "") != (out.String() == "") {
				t.Errorf("%s as %s: %q", c.name, format, out.String())
			}
		}
	}
	var out syncBuffer
	o := &benchOptions{app: newWorld(t).app(&out, io.Discard)}
	bad.Idle = &bench.IdleResult{RSSBefore: 20 << 20, RSSAfter: 40 << 20, PerConn: 9 << 10}
	bad.Failover = &bench.FailoverResult{Victim: "n2", WasLeader: true, AllRoutedMS: 4500}
	if err := o.showResult(bad); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20.0 MiB → 40.0 MiB, 9.0 KiB per connection", "n2, which led", "4.5s", "1.25 s/M", "13µs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestBenchFigures(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999.4: "999", 1000: "1,000", 1234567: "1,234,567", -4500: "-4,500"} {
		if got := count(v); got != want {
			t.Errorf("count(%g) is %s", v, got)
		}
	}
	if orNever(0) != "never" || orNever(1500) != "1.5s" || cpu(0) != "" {
		t.Error("figures")
	}
	tl := &tail{limit: 5}
	_, _ = tl.Write([]byte("abc"))
	_, _ = tl.Write([]byte("defg\n"))
	if tl.text() != "defg" {
		t.Errorf("tail is %q", tl.text())
	}
}

// TestBenchProgress: one line, rewritten, and only on a terminal.
func TestBenchProgress(t *testing.T) {
	var errs syncBuffer
	a := newWorld(t).app(io.Discard, &errs)
	p := newBenchProgress(a)
	p.say("starting")
	if errs.String() != "" {
		t.Errorf("not a terminal: %q", errs.String())
	}
	a.io.ErrTTY = true
	p = newBenchProgress(a)
	p.show(bench.Progress{Phase: "measuring", Elapsed: 1500 * time.Millisecond, Of: 5 * time.Second, Count: 12345, Interval: time.Second, Since: 4000, Lost: 2})
	p.clear()
	want := "\r\x1b[Kmeasuring    1.5 s of 5s   12,345   4,000/s   2 lost\r\x1b[K"
	if errs.String() != want {
		t.Errorf("%q, want %q", errs.String(), want)
	}
}

// TestBenchProfiles: files for each node and ourselves; a node that gives none is told of.
func TestBenchProfiles(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("seconds") != "1" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "profile of "+r.URL.Path)
	}))
	defer api.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	dir := filepath.Join(t.TempDir(), "new")
	o := &benchOptions{app: newWorld(t).app(io.Discard, io.Discard), profile: dir}
	own := &benchCluster{dev: &dev{cluster: devCluster{Nodes: []devNode{
		{Name: "n1", Addrs: wire.Addrs{Admin: strings.TrimPrefix(api.URL, "http://")}},
		{Name: "../n2", Addrs: wire.Addrs{Admin: strings.TrimPrefix(gone.URL, "http://")}},
	}}}}
	p, err := o.profiler(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	p.token = "secret"
	p.start(context.Background(), 300*time.Millisecond)()
	for file, want := range map[string]string{"n1.cpu.pprof": "profile of /debug/pprof/profile", "n1.allocs.pprof": "profile of /debug/pprof/allocs", "imctl-bench.cpu.pprof": "", "imctl-bench.allocs.pprof": ""} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(b) == 0 || want != "" && string(b) != want {
			t.Errorf("%s: %q %v", file, b, err)
		}
	}
	if got := p.failures(); len(got) != 2 || !strings.Contains(errors.Join(got...).Error(), "of ../n2") {
		t.Errorf("failures: %v", got)
	}
	if name := p.file("../n2", "cpu"); filepath.Dir(name) != dir {
		t.Errorf("%s is not in %s", name, dir)
	}
	if base := (&benchProfiler{tls: true}).base("h:1"); base != "https://h:1" {
		t.Errorf("base %s", base)
	}
}

func TestBenchMeshCounters(t *testing.T) {
	c, err := readMeshCounters(strings.NewReader("# HELP x y\nimroute_mesh_sent_bytes_total{peer=\"n2\"} 1.5e+06\nimroute_raft_term 7\nimroute_peers_up 2\nimroute_mesh_received_bytes_total{peer=\"n2\"} 5\n"))
	if err != nil || c.Term != 7 || c.Peers != 2 || len(c.Sent) != 1 || c.Sent["n2"] != 1.5e6 {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := readMeshCounters(strings.NewReader("go_goroutines 5\n")); err == nil {
		t.Error("not a node's metrics")
	}
	var out syncBuffer
	if err := meshTable(&out, []bench.Result{{Mesh: &bench.MeshResult{Nodes: 15, StartMS: 5500, CPUMSPerS: 8.5, CPUMSPerSMax: 20, Links: 105, LinkBytes: 1500, LinkBytesMax: 12345}}}); err != nil ||
		!strings.Contains(out.String(), "0.85 %") || !strings.Contains(out.String(), "12,345") {
		t.Errorf("%s %v", out.String(), err)
	}
}
