package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
	"imroute/node/client"
)

func newBenchCmd(a *app) *cobra.Command {
	c := group("bench", "Measure a cluster with many clients",
		newBenchSendCmd(a), newBenchLoginCmd(a), newBenchIdleCmd(a), newBenchFailoverCmd(a), newBenchOverloadCmd(a),
		newBenchGroupCmd(a), newBenchServiceCmd(a),
		newBenchTableCmd(a), newBenchMeshCmd(a))
	c.Long = "Bench is the load generator. It starts a cluster of its own on this machine (real node processes, temporary\n" +
		"data), unless --addr names the client addresses of another one, one a node, and drives it through the public\n" +
		"Go SDK. It exits with 1 if a message was lost, came twice, out of order or damaged, or a login failed.\n\n" +
		"A figure of one machine says nothing about another one: only ratios of runs taken in turn on one machine do."
	return c
}

// benchOptions are shared by all runs.
type benchOptions struct {
	*app
	nodes     int
	portBase  int
	transport string
	pids      []int
	tokens    bool
	profile   string
	logLevel  string
	nodeFlags []string // of its own nodes, beside the usual ones
	warm      time.Duration
	duration  time.Duration
}

// benchMost bounds a run beside its warm-up and duration: logins, settling, drain, goodbyes.
const benchMost = 10 * time.Minute

func (o *benchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "how many nodes its own cluster has")
	f.IntVar(&o.portBase, "port-base", 18900, "first port of its own cluster; taken ports are replaced by free ones")
	f.StringVar(&o.logLevel, "log-level", "error", "log level of its own nodes, whose logs are shown if they do not start")
	f.StringVar(&o.transport, "transport", "tcp", "how clients connect: tcp or ws (WebSocket)")
	f.IntSliceVar(&o.pids, "pids", nil, "processes of the nodes that --addr names, in the same order, to read their CPU time and memory")
	f.BoolVar(&o.tokens, "tokens", false, "with --addr: have the admin API make a login token for each client (not needed in development mode)")
	f.StringVar(&o.profile, "profile", "", "write CPU and allocation profiles of the nodes and of the generator to this folder")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "how long to measure")
	f.DurationVar(&o.warm, "warm", 1500*time.Millisecond, "how long to run before measuring")
	_ = c.RegisterFlagCompletionFunc("transport", cobra.FixedCompletions([]string{"tcp", "ws"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

func (o *benchOptions) check(least int) error {
	switch {
	case o.transport != "tcp" && o.transport != "ws":
		return usage("", "--transport %q: want tcp or ws", o.transport)
	case o.nodes < 1 || o.nodes > devMaxNodes:
		return usage("", "--nodes %d: want 1 to %d", o.nodes, devMaxNodes)
	case o.portBase < 1 || o.portBase+portStep*o.nodes > 65535:
		return usage("", "--port-base %d: want 1 to %d", o.portBase, 65535-portStep*o.nodes)
	case o.duration <= 0 || o.duration > time.Hour:
		return usage("", "--duration must be more than 0 and at most 1h")
	case o.warm < 0 || o.warm > time.Hour:
		return usage("", "--warm must be from 0 to 1h")
	case len(o.addrs) == 0 && len(o.pids) > 0:
		return usage("", "--pids belongs to --addr: the processes of its own cluster are known")
	case len(o.addrs) == 0 && o.tokens:
		return usage("", "--tokens belongs to --addr: its own cluster wants none")
	case len(o.addrs) == 0 && o.nodes < least:
		return usage("", "--nodes %d: this run needs %d at least", o.nodes, least)
	}
	if n := len(splitAddrs(o.addrs...)); n > 0 && n < least {
		return usage("", "--addr names %d client address(es): this run needs those of %d nodes at least", n, least)
	}
	return nil
}

// benchRun is what a command of the group does with a cluster. own is nil if --addr named one.
type benchRun func(ctx context.Context, t bench.Target, own *benchCluster) (bench.Result, error)

// drive finds or starts the cluster, runs, cleans up, and shows what came out, also of a run that Ctrl-C cut short.
func (o *benchOptions) drive(ctx context.Context, least int, run benchRun) (err error) {
	if err := o.check(least); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.warm+o.duration+benchMost, fmt.Errorf("not done within %s", o.warm+o.duration+benchMost))
	defer cancel()
	p := newBenchProgress(o.app)
	t := bench.Target{Transport: o.transport}
	var own *benchCluster
	if len(o.addrs) > 0 {
		if err := o.given(ctx, &t); err != nil {
			return err
		}
	} else {
		p.say("starting %d nodes", o.nodes)
		if own, err = o.startBenchCluster(ctx); err != nil {
			p.clear()
			return err
		}
		defer func() {
			if e := own.stop(); e != nil && err == nil {
				err = e
			}
		}()
		own.target(&t, o.transport)
	}
	if p.on {
		t.Progress = p.show
	}
	prof, err := o.profiler(ctx, own)
	if err != nil {
		return err
	}
	if prof != nil {
		t.Measuring = prof.start
	}
	r, err := run(ctx, t, own)
	p.clear()
	return o.report(r, err, prof)
}

// report shows a result and turns its problems into an error.
func (o *benchOptions) report(r bench.Result, err error, prof *benchProfiler) error {
	if err != nil && !errors.Is(err, errInterrupted) {
		return o.benchError(err)
	}
	if r.DurationMS == 0 && err != nil {
		return err // nothing was measured yet
	}
	if e := o.showResult(r); e != nil {
		return e
	}
	if prof != nil {
		for _, e := range prof.failures() {
			o.note("profile: %s", e)
		}
		o.note("profiles are in %s: see them with \"go tool pprof FILE\"", o.profile)
	}
	if err != nil {
		o.note("interrupted: this is what was measured until then")
		return err
	}
	if len(r.Problems) > 0 {
		return fail("bench_failed", "if the cluster answered overloaded, offer less with --rate or --window; otherwise the nodes' logs say more",
			"this run is not clean: %s", strings.Join(r.Problems, "; "))
	}
	return nil
}

func (o *benchOptions) benchError(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	f = fail("bench", "", "%w", err)
	if w, ok := asWire(err); ok {
		f = codeError(w.Code, err.Error(), "")
		f.exit = ExitError
	}
	return f
}

// given makes a target of --addr.
func (o *benchOptions) given(ctx context.Context, t *bench.Target) error {
	for _, addr := range splitAddrs(o.addrs...) {
		if o.transport == "ws" && !strings.Contains(addr, "://") {
			addr = "ws://" + addr
		}
		if err := checkClientAddr(addr); err != nil {
			return err
		}
		if web := strings.HasPrefix(addr, "ws://") || strings.HasPrefix(addr, "wss://"); web != (o.transport == "ws") {
			return usage("", "--addr %s does not fit --transport %s", addr, o.transport)
		}
		t.Addrs = append(t.Addrs, addr)
	}
	t.PIDs = o.pids
	tc, err := tlsConfig(o.ca)
	if err != nil {
		return err
	}
	var api target
	if o.tokens {
		if api, err = o.adminTarget(false); err != nil {
			return err
		}
	}
	login := loginOptions{app: o.app}
	t.Configure = func(cfg *client.Config) error {
		cfg.TLS = tc
		if cfg.DialContext == nil {
			cfg.DialContext = o.io.DialContext
		}
		if !o.tokens {
			return nil
		}
		id, err := clientID("", cfg.Client)
		if err != nil {
			return err
		}
		return login.ownToken(ctx, cfg, api, id)
	}
	return nil
}

// showResult prints a run: all of it as JSON, what matters as a table.
func (o *benchOptions) showResult(r bench.Result) error {
	if o.asJSON() {
		return o.printLine(r)
	}
	offered := "flat out"
	if r.Offered > 0 {
		offered = count(r.Offered) + "/s"
	}
	t := newTable("RUN", "PAIRS", "SIZE", "OFFERED", "RECEIVED", "LOST", "RATE", "P50", "P99", "P99.9", "SERVER CPU", "LOAD CPU", "TIME")
	t.row(r.Name, r.Pairs, r.Size, offered, r.Received, r.Lost, count(r.Rate)+"/s", micros(r.P50), micros(r.P99), micros(r.P999),
		cpu(r.ServerCPU), cpu(r.LoadCPU), time.Duration(r.DurationMS)*time.Millisecond)
	if err := t.write(o.io.Out); err != nil {
		return err
	}
	var f fields
	if i := r.Idle; i != nil {
		f.add("memory of the node", fmt.Sprintf("%s → %s, %s per connection", megabytes(i.RSSBefore), megabytes(i.RSSAfter), kilobytes(i.PerConn)))
		f.add("memory of the generator", megabytes(i.LoadRSS))
		f.add("CPU while idle", fmt.Sprintf("nodes %d ms/s, generator %d ms/s", i.NodesCPUMS, i.LoadCPUMS))
		f.add("all connected after", time.Duration(i.ConnectMS)*time.Millisecond)
	}
	if v := r.Failover; v != nil {
		victim := v.Victim
		if v.WasLeader {
			victim += ", which led"
		}
		f.add("killed", victim)
		f.add("all routed again after", orNever(v.AllRoutedMS))
		f.add("others before", fmt.Sprintf("p50 %s, p99 %s", micros(v.BeforeP50), micros(v.BeforeP99)))
		f.add("others meanwhile", fmt.Sprintf("p50 %s, p99 %s", micros(v.MeanwhileP50), micros(v.MeanwhileP99)))
	}
	if r.Overload != nil {
		overloadFields(&f, r.Overload)
	}
	if r.Group != nil {
		groupFields(&f, r.Group)
	}
	if r.Service != nil {
		serviceFields(&f, r.Service)
	}
	if r.Table != nil {
		return tableFields(&f, r.Table).write(o.io.Out)
	}
	f.add("cluster", r.Cluster)
	return f.write(o.io.Out)
}

func orNever(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

// count writes a large number with a comma for each thousand.
func count(v float64) string {
	s := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v <= -0.5 {
		s = "-" + s
	}
	return s
}

func micros(us float64) string { return short(time.Duration(us * 1e3)) }

// cpu is seconds per million; nothing where it is not known.
func cpu(s float64) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%.3g s/M", s)
}

func megabytes(b int64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }
func kilobytes(b int64) string { return fmt.Sprintf("%.1f KiB", float64(b)/(1<<10)) }
