package nodetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// The stages through which a node that was killed and started again at once comes back, in their order. Times are counted
// from the kill.
const (
	stageStarted   = "its process runs"
	stageLink      = "mesh: first connection up"
	stageUp        = "NodeUp applied"
	stageReady     = "lease granted"
	stageLogin     = "first of its clients logged in"
	stageAllLogin  = "all of them"
	stageDelivered = "first of them reached"
	stageServed    = "all of them reached"
)

var stages = []string{stageStarted, stageLink, stageUp, stageReady, stageLogin, stageAllLogin, stageDelivered, stageServed}

// logged are the lines of a node's log that stand for a stage.
var logged = map[string]string{"starting": stageStarted, "connected": stageLink, "up": stageUp, "ready": stageReady}

// TestRecoveryStages kills a node and starts it again at once, again and again, under a light workload, and prints when each
// stage of its return was reached: the median, the 90th percentile and the worst.
//
//	IMROUTE_STAGES=30 go test -count=1 -run TestRecoveryStages -v -timeout 10m ./node/nodetest
//
// IMROUTE_STAGES is the number of runs for a follower and for the leader; IMROUTE_STAGES_TIMINGS=default takes the default
// timings instead of the short ones; IMROUTE_STAGES_DOWN leaves the node away for that long, during which its clients go
// elsewhere.
func TestRecoveryStages(t *testing.T) {
	runs, _ := strconv.Atoi(os.Getenv("IMROUTE_STAGES"))
	if runs == 0 {
		t.Skip("set IMROUTE_STAGES=30: it takes some minutes")
	}
	timings := FastTimings()
	if os.Getenv("IMROUTE_STAGES_TIMINGS") == "default" {
		timings = DefaultTimings()
	}
	down, _ := time.ParseDuration(os.Getenv("IMROUTE_STAGES_DOWN"))
	for _, who := range []struct {
		name string
		pick func(*Cluster, testing.TB) *Node
	}{{"follower", (*Cluster).Follower}, {"leader", (*Cluster).Leader}} {
		t.Run(who.name, func(t *testing.T) {
			c := Start(t, Options{Timings: timings})
			reached := map[string][]time.Duration{}
			for run := range runs {
				n := who.pick(c, t)
				at := comeBack(t, c, n, down, fmt.Sprintf("r%02d", run))
				line := fmt.Sprintf("run %d, %s:", run, n.Name)
				for _, s := range stages {
					if d, ok := at[s]; ok {
						reached[s] = append(reached[s], d)
						line += fmt.Sprintf(" %s %v ·", s, d.Round(time.Millisecond))
					}
				}
				t.Log(line)
			}
			t.Log("\n" + stageTable(reached))
		})
	}
}

func stageTable(reached map[string][]time.Duration) string {
	table := &strings.Builder{}
	w := tabwriter.NewWriter(table, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "since the kill\truns\tmedian\tp90\tworst")
	for _, s := range stages {
		v := reached[s]
		if len(v) == 0 {
			continue
		}
		slices.Sort(v)
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", s, len(v), seconds(v[len(v)/2]), seconds(v[len(v)*9/10]), seconds(v[len(v)-1]))
	}
	_ = w.Flush() // into memory
	return table.String()
}

// comeBack makes one run: three clients at n, a sender at another node that sends to each of them all the time.
func comeBack(t *testing.T, c *Cluster, n *Node, down time.Duration, tag string) map[string]time.Duration {
	t.Helper()
	var mu sync.Mutex
	at := map[string]time.Duration{}
	logins := map[string]time.Duration{}
	var killed time.Duration // 0: not yet; guarded by mu
	others := c.Others(n)
	stop, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	closing := func(cl *client.Client) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = cl.Close(ctx)
	}
	sender := c.Dial(t, tag+"-sender", others...)
	defer closing(sender)
	var names []string
	for i := range 3 {
		name := fmt.Sprintf("%s-c%d", tag, i)
		names = append(names, name)
		ctx, cancel := context.WithTimeout(stop, dialWait)
		defer cancel()
		cl, err := client.Dial(ctx, client.Config{
			Addrs: []string{n.ClientTCP, others[0].ClientTCP, others[1].ClientTCP}, Client: name, OnMessage: func(client.Message) {},
			OnState: func(s client.State) {
				mu.Lock()
				defer mu.Unlock()
				if s.Kind == client.Connected && killed > 0 && logins[name] == 0 {
					logins[name] = Now() - killed
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer closing(cl)
	}
	served := map[string]time.Duration{}
	for _, name := range names {
		wg.Go(func() {
			for stop.Err() == nil {
				call := Now()
				_, _ = sender.SendAsync(name, []byte("hello"), wire.AckClient, 3*time.Second, func(r client.Result) {
					mu.Lock()
					defer mu.Unlock()
					if r.Code == wire.Delivered && killed > 0 && call >= killed && served[name] == 0 {
						served[name] = Now() - killed
					}
				})
				timer := time.NewTimer(10 * time.Millisecond)
				select {
				case <-timer.C:
				case <-stop.Done():
					timer.Stop()
				}
			}
		})
	}
	mu.Lock()
	began, wall := Now(), time.Now()
	killed = began
	mu.Unlock()
	n.Kill(t)
	c.Wait(down)
	n.Start(t)
	c.Await(t, "every client to be reached", recoverWait, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if len(served) < len(names) || len(logins) < len(names) {
			return errors.New("not yet")
		}
		return nil
	})
	n.AwaitReady(t)
	mu.Lock()
	defer mu.Unlock()
	at[stageLogin], at[stageAllLogin] = leastAndMost(logins)
	at[stageDelivered], at[stageServed] = leastAndMost(served)
	for s, when := range n.loggedSince(t, wall) {
		at[s] = when.Sub(wall)
	}
	return at
}

func leastAndMost(m map[string]time.Duration) (least, most time.Duration) {
	for _, v := range m {
		if least == 0 || v < least {
			least = v
		}
		most = max(most, v)
	}
	return least, most
}

// loggedSince finds, in the node's log, the first line of each stage after since.
func (n *Node) loggedSince(t *testing.T, since time.Time) map[string]time.Time {
	t.Helper()
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]time.Time{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.Time.Before(since) {
			continue
		}
		if s, ok := logged[l.Msg]; ok && out[s].IsZero() {
			out[s] = l.Time
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
