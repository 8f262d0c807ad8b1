package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

type benchMeshOptions struct {
	benchOptions
	sizes []int
}

func newBenchMeshCmd(a *app) *cobra.Command {
	o := &benchMeshOptions{benchOptions: benchOptions{app: a}}
	c := &cobra.Command{
		Use: "mesh", Short: "Measure what clusters cost that have no clients",
		Long: "Mesh starts one cluster after the other on this machine, lets it settle, and measures CPU of the nodes and bytes a\n" +
			"second on the links between them while nobody is connected. A link is what two nodes have between them, both ways\n" +
			"taken together; the leader's carry most. CPU is known on Linux only.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := c.Flags()
	f.IntSliceVar(&o.sizes, "sizes", []int{3, 5, 9, 15}, "how many nodes the clusters have")
	f.IntVar(&o.portBase, "port-base", 18900, "first port of a cluster; taken ports are replaced by free ones")
	f.StringVar(&o.logLevel, "log-level", "error", "log level of the nodes, whose logs are shown if they do not start")
	f.StringVar(&o.profile, "profile", "", "write CPU and allocation profiles of the nodes to this folder, each cluster's to a folder of its own")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to measure each")
	f.DurationVar(&o.warm, "warm", 5*time.Second, "how long to let each settle")
	return c
}

func (o *benchMeshOptions) run(ctx context.Context) error {
	if len(o.addrs) > 0 {
		return usage("leave --addr away: it starts clusters of its own", "\"bench mesh\" measures clusters without clients, which another one may have")
	}
	o.transport = "tcp"
	if len(o.sizes) == 0 {
		return usage("", "--sizes names no cluster")
	}
	for _, o.nodes = range o.sizes {
		if err := o.check(2); err != nil {
			return err
		}
	}
	p, folder := newBenchProgress(o.app), o.profile
	var all []bench.Result
	var failed error
	for _, o.nodes = range o.sizes {
		if folder != "" {
			o.profile = filepath.Join(folder, fmt.Sprintf("nodes-%d", o.nodes))
		}
		r, err := o.one(ctx, p)
		p.clear()
		if err != nil {
			failed = o.benchError(err)
			break
		}
		all = append(all, r)
		if o.asJSON() {
			if err := o.printLine(r); err != nil {
				return err
			}
		}
	}
	if !o.asJSON() && len(all) > 0 {
		if err := meshTable(o.io.Out, all); err != nil {
			return err
		}
		if folder != "" {
			o.note("profiles are in %s: see them with \"go tool pprof FILE\"", folder)
		}
	}
	var problems []string
	for _, r := range all {
		for _, what := range r.Problems {
			problems = append(problems, fmt.Sprintf("%d nodes: %s", r.Pairs, what))
		}
	}
	if failed == nil && len(problems) > 0 {
		failed = fail("bench_failed", "a machine that is too busy for its clusters measures nothing: try fewer --sizes", "this run is not clean: %s", strings.Join(problems, "; "))
	}
	return failed
}

// one measures one cluster.
func (o *benchMeshOptions) one(ctx context.Context, p *benchProgress) (r bench.Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.warm+o.duration+benchMost, fmt.Errorf("not done within %s", o.warm+o.duration+benchMost))
	defer cancel()
	p.say("starting %d nodes", o.nodes)
	start := time.Now()
	own, err := o.startBenchCluster(ctx)
	if err != nil {
		return r, err
	}
	load := bench.MeshOptions{Started: time.Since(start), Settle: o.warm, Duration: o.duration, Read: own.meshCounters}
	defer func() {
		if e := own.stop(); e != nil && err == nil {
			err = e
		}
	}()
	t := bench.Target{Transport: o.transport}
	own.target(&t, o.transport)
	if p.on {
		t.Progress = p.show
	}
	prof, err := o.profiler(ctx, own)
	if err != nil {
		return r, err
	}
	if prof != nil {
		t.Measuring = prof.start
	}
	r, err = bench.Mesh(ctx, t, load)
	if prof != nil {
		for _, e := range prof.failures() {
			o.note("profile: %s", e)
		}
	}
	return r, err
}

func meshTable(w io.Writer, all []bench.Result) error {
	t := newTable("NODES", "STARTED IN", "CPU A NODE", "MOST", "LINKS", "BYTES/S A LINK", "LEAST", "MOST", "MEMORY A NODE", "TIME")
	for _, r := range all {
		m := r.Mesh
		t.row(m.Nodes, time.Duration(m.StartMS)*time.Millisecond, percent(m.CPUMSPerS), percent(m.CPUMSPerSMax), m.Links,
			count(m.LinkBytes), count(m.LinkBytesLess), count(m.LinkBytesMax), megabytes(m.RSS), time.Duration(r.DurationMS)*time.Millisecond)
	}
	return t.write(w)
}

// percent writes CPU milliseconds a second as a share of one core.
func percent(ms float64) string { return fmt.Sprintf("%.2f %%", ms/10) }

// meshCounters reads node i's metrics.
func (b *benchCluster) meshCounters(ctx context.Context, i int) (c bench.MeshCounters, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.dev.plan[i].addrs.Admin+"/metrics", nil)
	if err != nil {
		return c, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return c, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return c, fmt.Errorf("%s answered %s", req.URL, res.Status)
	}
	return readMeshCounters(res.Body)
}

// readMeshCounters reads what it needs of Prometheus' text format.
func readMeshCounters(r io.Reader) (c bench.MeshCounters, err error) {
	c.Sent = map[string]float64{}
	seen := 0
	for s := bufio.NewScanner(r); ; {
		if !s.Scan() {
			if err = s.Err(); err == nil && seen < 2 {
				err = fmt.Errorf("these metrics are not those of a node of this version")
			}
			return c, err
		}
		name, text, ok := strings.Cut(s.Text(), " ")
		if !ok || !strings.HasPrefix(name, "imroute_") {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue // a name with a space in its label
		}
		peer, sent := strings.CutPrefix(name, `imroute_mesh_sent_bytes_total{peer="`)
		switch {
		case sent:
			c.Sent[strings.TrimSuffix(peer, `"}`)] = v
		case name == "imroute_raft_term":
			c.Term = v
			seen++
		case name == "imroute_peers_up":
			c.Peers = v
			seen++
		}
	}
}
