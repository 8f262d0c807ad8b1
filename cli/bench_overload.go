package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/cli/bench"
)

type benchOverloadOptions struct {
	benchOptions
	load       bench.OverloadOptions
	clientRate int
	growthMiB  int64
}

func newBenchOverloadCmd(a *app) *cobra.Command {
	o := &benchOverloadOptions{benchOptions: benchOptions{app: a}}
	c := &cobra.Command{
		Use: "overload", Short: "Measure what a cluster does that is sent much more than it can take",
		Long: "Overload first lets some pairs of clients talk in peace (--warm), then adds senders that send all they have in the\n" +
			"first tenth of each second, bursts to a large group, and a client that does not read. It exits with 1 if a session\n" +
			"is lost, a message is not answered, one that was refused arrived, the client that does not read stays, a node grows\n" +
			"by more than --max-growth, or the p99 of the pairs is above --max-p99.\n\n" +
			"P50 to P99.9 are those of the pairs meanwhile, which are a process of their own unless --addr names the cluster.\n" +
			"Clients and nodes share this machine's CPUs: a part of what the pairs wait for is the load generator.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	f := c.Flags()
	_ = f.Set("warm", "5s") // the flags exist
	_ = f.Set("duration", "15s")
	f.Lookup("warm").DefValue, f.Lookup("duration").DefValue = "5s", "15s"
	f.Lookup("warm").Usage = "how long the pairs talk in peace first"
	f.IntVar(&o.load.Senders, "senders", 40, "clients that send in bursts")
	f.IntVar(&o.load.Messages, "messages", 20_000, "messages a second that they send together")
	f.DurationVar(&o.load.Within, "within", 100*time.Millisecond, "in how much of each second they send them")
	f.IntVar(&o.load.Members, "members", 10_000, "members of a group, over all nodes")
	f.IntVar(&o.load.GroupBurst, "group-messages", 2, "messages to the group at the beginning of each second")
	f.IntVar(&o.load.Pairs, "pairs", 20, "pairs whose latency is measured")
	f.Float64Var(&o.load.Rate, "rate", 200, "acknowledged requests a second of all pairs together")
	f.IntVar(&o.load.Size, "size", 128, "bytes of a message's payload")
	f.BoolVar(&o.load.NoReader, "no-reader", true, "have a client that does not read (it takes a node 10s to give it up)")
	f.DurationVar(&o.load.MaxP99, "max-p99", 2*time.Second, "most that the pairs' p99 may be (0: whatever)")
	f.Int64Var(&o.growthMiB, "max-growth", 256, "MiB that a node may grow by (0: whatever)")
	f.IntVar(&o.clientRate, "client-rate", 0, "start its own nodes with this limit of messages a second of one client")
	return c
}

func (o *benchOverloadOptions) run(ctx context.Context) error {
	if o.transport != "tcp" {
		return usage("", "--transport %q: this run knows tcp only", o.transport)
	}
	if o.clientRate != 0 {
		if len(o.addrs) > 0 {
			return usage("give it to the nodes that --addr names", "--client-rate belongs to its own cluster")
		}
		o.nodeFlags = append(o.nodeFlags, "--client-rate", strconv.Itoa(o.clientRate))
	}
	o.load.Calm, o.load.Duration, o.load.MaxGrowth = o.warm, o.duration, o.growthMiB<<20
	if err := o.check(1); err != nil {
		return err
	}
	if err := o.load.Validate(); err != nil { // before a cluster is started
		return usage("", "%w", err)
	}
	return o.drive(ctx, 1, func(ctx context.Context, t bench.Target, own *benchCluster) (bench.Result, error) {
		load := o.load
		if own != nil {
			load.SlowReaders = own.slowReaders
			load.Others = o.apart
		}
		return bench.Overload(ctx, t, load)
	})
}

// slowReaders adds up what the nodes' metrics say.
func (b *benchCluster) slowReaders(ctx context.Context) (sum int64, err error) {
	for _, n := range b.dev.cluster.Nodes {
		v, err := readMetric(ctx, "http://"+n.Admin+"/metrics", `imroute_closes_total{reason="slow_reader"}`)
		if err != nil {
			return 0, fmt.Errorf("metrics of %s: %w", n.Name, err)
		}
		sum += int64(v)
	}
	return sum, nil
}

// readMetric reads one value from a Prometheus page; 0 if it is not there.
func readMetric(ctx context.Context, url, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, errors.New(res.Status)
	}
	lines := bufio.NewScanner(io.LimitReader(res.Body, 8<<20))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(rest, 64)
		}
	}
	return 0, lines.Err()
}

// overloadFields says in the table what only this run has.
func overloadFields(f *fields, v *bench.OverloadResult) {
	f.add("others in peace", fmt.Sprintf("p50 %s, p99 %s", micros(v.CalmP50), micros(v.CalmP99)))
	f.add("others' p99 meanwhile", fmt.Sprintf("%.1f times that", v.Ratio))
	f.add("sent in bursts", fmt.Sprintf("%s = %s delivered + %s refused + %s unknown", count(float64(v.Sent)), count(float64(v.Delivered)), count(float64(v.Refused)), count(float64(v.Unknown))))
	for _, code := range slices.Sorted(maps.Keys(v.Codes)) {
		f.add("  "+code, count(float64(v.Codes[code])))
	}
	f.add("held back by the SDK", count(float64(v.HeldBack)))
	f.add("to the group", fmt.Sprintf("%d, members reached %s times, arrived %s", v.GroupSent, count(float64(v.GroupReached)), count(float64(v.GroupArrived))))
	f.add("memory of all nodes", fmt.Sprintf("%s → %s → %s", megabytes(v.RSSBefore), megabytes(v.RSSPeak), megabytes(v.RSSAfter)))
	f.add("most that one grew", megabytes(v.RSSGrowth))
	switch {
	case !v.NoReader:
	case v.NoReaderMS == 0:
		f.add("client that does not read", "still there")
	default:
		f.add("client that does not read", fmt.Sprintf("closed after %s, slow readers closed: %d", time.Duration(v.NoReaderMS)*time.Millisecond, v.SlowReaders))
	}
	f.add("sessions lost", v.LostSessions)
}
