package node

import (
	"testing"
	"time"
)

func TestElecting(t *testing.T) {
	n := &Node{cfg: Config{Timings: Timings{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, Lease: 4 * time.Second, Margin: 250 * time.Millisecond}}}
	n.lease.length, n.lease.margin = n.cfg.Timings.Lease, n.cfg.Timings.Margin
	if n.electing() {
		t.Error("without ever having heard of a quorum")
	}
	for age, want := range map[time.Duration]bool{0: true, 2 * time.Second: true, 4 * time.Second: false, time.Hour: false} {
		n.lease.drop()
		n.lease.granted(n.lease.until(now()-age, 0))
		if got := n.electing(); got != want {
			t.Errorf("%v after the last renewal: %v, want %v", age, got, want)
		}
	}
	if got := electionTime(n.cfg.Timings); got != 3*time.Second {
		t.Errorf("%v", got)
	}
}
