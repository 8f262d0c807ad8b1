package cli

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
	"imroute/cli/bench/routes"
)

type benchTableOptions struct {
	*app
	load    routes.Options
	profile string
	dir     string
}

// tableMost bounds a run with the largest table.
const tableMost = 30 * time.Minute

func newBenchTableCmd(a *app) *cobra.Command {
	o := &benchTableOptions{app: a}
	c := &cobra.Command{
		Use: "table", Short: "Measure the table of routes alone",
		Long: "Table fills a table of routes in this process, without a cluster, and measures bytes for each route (ids of 20\n" +
			"bytes), look-ups, what the garbage collector does without the table and with it, the longest time that an entry of\n" +
			"512 registrations takes to apply while a snapshot is taken and written, and how long a node takes to read that\n" +
			"snapshot. It says how much memory it needs before it starts. RECEIVED, RATE and the quantiles are of the entries\n" +
			"applied while the snapshot was written.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := c.Flags()
	f.IntVar(&o.load.Routes, "routes", 10_000_000, "how many routes")
	f.DurationVar(&o.load.Duration, "duration", 5*time.Second, "how long to look up, and how long to watch the garbage collector")
	f.Float64Var(&o.load.Rate, "rate", 0, "registrations a second while the snapshot is written (0: flat out)")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of each phase, and one of all allocations, to this folder")
	f.StringVar(&o.dir, "dir", "", "where to write the snapshot (default: the folder for temporary files)")
	return c
}

func (o *benchTableOptions) run(ctx context.Context) (err error) {
	if len(o.addrs) > 0 {
		return usage("leave --addr away", "\"bench table\" measures its own process, not a cluster")
	}
	if o.load.Duration > time.Hour {
		return usage("", "--duration must be more than 0 and at most 1h")
	}
	if err := o.load.Validate(); err != nil {
		return usage("", "%w", err)
	}
	memory, disk := routes.Needs(o.load.Routes)
	free := bench.FreeMemory()
	o.note("this takes up to %s of memory and %s on the disk", gigabytes(memory), gigabytes(disk))
	if free > 0 && free < memory {
		return fail("memory", "take fewer with --routes", "%s of memory are free, and %d routes may take %s", gigabytes(free), o.load.Routes, gigabytes(memory))
	}
	if o.load.Dir, err = os.MkdirTemp(o.dir, "imctl-bench-"); err != nil {
		return fail("table", "name another folder with --dir", "cannot make a folder for the snapshot: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(o.load.Dir); e != nil && err == nil {
			err = e
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, tableMost, fmt.Errorf("not done within %s", tableMost))
	defer cancel()
	p := newBenchProgress(o.app)
	if p.on {
		o.load.Progress = p.show
	}
	var prof *benchProfiler
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return fail("profile", "name another folder with --profile", "cannot make the folder for profiles: %w", err)
		}
		prof = &benchProfiler{dir: o.profile}
		o.load.Profile = prof.phase
	}
	r, err := routes.Run(ctx, o.load)
	p.clear()
	if prof != nil {
		prof.allocations()
	}
	shown := benchOptions{app: o.app, profile: o.profile}
	return shown.report(r, err, prof)
}

// phase takes a CPU profile of this process under a name of its own.
func (p *benchProfiler) phase(name string) (over func()) {
	f, err := os.Create(p.file("table-"+name, "cpu"))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		p.fail(fmt.Errorf("cpu of %s: %w", name, err))
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			p.fail(fmt.Errorf("cpu of %s: %w", name, err))
		}
	}
}

func tableFields(f *fields, t *bench.TableResult) *fields {
	collector := func(g bench.GCResult) string {
		return fmt.Sprintf("%.1f ms CPU a second in %d cycles, longest pause %s; one whole collection %.1f ms, %.1f ms CPU",
			g.CPUMSPerS, g.Cycles, micros(g.LongestPauseUS), g.CycleMS, g.CycleCPUMS)
	}
	f.add("table", fmt.Sprintf("%s, %.1f bytes a route (%.1f of the heap), filled with %s/s", megabytes(t.TableBytes), t.PageBytesPerRoute, t.BytesPerRoute, count(t.FillRate)))
	f.add("look-up", fmt.Sprintf("%.0f ns of any client, %.0f ns of one of 4,096, %.3g allocations (%s)", t.LookupNS, t.LookupHotNS, t.LookupAllocs, count(float64(t.Lookups))))
	f.add("one random read of memory", fmt.Sprintf("%.0f ns", t.MemoryReadNS))
	f.add("collector without it", collector(t.GCWithout))
	f.add("collector with it", collector(t.GCWith))
	f.add("snapshot", fmt.Sprintf("%s in %s, taken in %s", megabytes(t.SnapshotBytes), time.Duration(t.SnapshotMS)*time.Millisecond, micros(t.SnapshotTakeUS)))
	f.add("longest apply meanwhile", fmt.Sprintf("%s, %s of CPU", micros(t.LongestApplyUS), micros(t.LongestApplyCPUUS)))
	f.add("restore", time.Duration(t.RestoreMS)*time.Millisecond)
	f.add("memory of this process", megabytes(t.RSS))
	return f
}

func gigabytes(b int64) string { return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30)) }
