package nodetest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// idleSample is what a node has sent and used so far.
type idleSample struct{ bytes, packets, ticks float64 }

func (l *lan) sample(n *Node) (s idleSample) {
	l.t.Helper()
	for name, to := range map[string]*float64{"rx_bytes": &s.bytes, "rx_packets": &s.packets} { // what comes out of it comes in at the bridge
		b, err := os.ReadFile("/sys/class/net/" + l.spaces.outer(n) + "/statistics/" + name)
		l.must(err)
		*to, err = strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		l.must(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.runs[n].cmd.Process.Pid))
	l.must(err)
	_, rest, _ := strings.Cut(string(b), ") ")
	for _, f := range strings.Fields(rest)[11:13] { // utime and stime, in hundredths of a second
		v, err := strconv.ParseFloat(f, 64)
		l.must(err)
		s.ticks += v
	}
	return s
}

// TestIdleMesh, D6: what n(n−1)/2 links cost when nobody says anything: IMROUTE_IDLE=1 prints it against the number of nodes. A node's
// part must not grow faster than the number of its peers.
func TestIdleMesh(t *testing.T) {
	if os.Getenv("IMROUTE_IDLE") == "" {
		t.Skip("IMROUTE_IDLE=1 measures what idle nodes cost each other, half a minute")
	}
	const rest, took = 2 * time.Second, 8 * time.Second
	perPeer := map[int]float64{}
	for _, n := range []int{2, 3, 5, 9} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			l := newLAN(t, n)
			for _, m := range l.nodes {
				l.start(m, "--bootstrap-expect", strconv.Itoa(n), "--target-voters", "3")
			}
			l.until(l.nodes[0], 0, strings.Repeat(` up .*`, n), "node", "list")
			<-time.After(rest) // promotions and certificates are over; what is measured is time, so time it is
			before := map[*Node]idleSample{}
			began := time.Now()
			for _, m := range l.nodes {
				before[m] = l.sample(m)
			}
			<-time.After(took)
			var sum, most idleSample
			for _, m := range l.nodes {
				now := l.sample(m)
				d := idleSample{now.bytes - before[m].bytes, now.packets - before[m].packets, now.ticks - before[m].ticks}
				sum.bytes, sum.packets, sum.ticks = sum.bytes+d.bytes, sum.packets+d.packets, sum.ticks+d.ticks
				most.bytes, most.packets, most.ticks = max(most.bytes, d.bytes), max(most.packets, d.packets), max(most.ticks, d.ticks)
			}
			per := time.Since(began).Seconds() * float64(n)
			t.Logf("%d nodes, %d links: each sends %.1f kB/s in %.0f packets/s and uses %.1f ms/s of CPU; the leader %.1f kB/s, %.0f packets/s, %.1f ms/s",
				n, n*(n-1)/2, sum.bytes/per/1000, sum.packets/per, sum.ticks*10/per, most.bytes/per*float64(n)/1000, most.packets/per*float64(n), most.ticks*10/per*float64(n))
			perPeer[n] = sum.bytes / per / float64(n-1)
		})
	}
	if few, many := perPeer[3], perPeer[9]; few > 0 && many > 1.5*few {
		t.Errorf("%.0f B/s for each peer of nine, %.0f of three", many, few)
	}
}
