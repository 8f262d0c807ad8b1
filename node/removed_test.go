package node

import (
	"errors"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// A live leader that is removed by somebody else does not go on telling what its table was: it notices, says that it is out, and
// ends. Elections are slow here, so that finding out for want of a leader would take six seconds.
func TestRemovedLeaderNotices(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three(func(cfg *Config) {
		cfg.Timings.Election, cfg.Timings.Heartbeat, cfg.Timings.Lease = 500*time.Millisecond, 500*time.Millisecond, 3*time.Second
		cfg.Timings.Quiet = cfg.Timings.Lease
	})
	l := c.leader(n1, n2, n3)
	other := n1
	if l == n1 {
		other = n2
	}
	if err := (api{other}).RemoveNode(c.ctx, l.Name(), true); err != nil {
		t.Fatal(err)
	}
	removed := now()
	var said error
	c.until("it knows", func() error {
		_, said = (api{l}).Nodes(c.ctx)
		return isError(said, "was removed")
	})
	if took := now() - removed; took > 3*time.Second {
		t.Errorf("it told of the past for %v", took)
	} else {
		t.Logf("it knew %v after the others", took)
	}
	var e *admin.Error
	if !errors.As(said, &e) || e.Code != wire.NotMember || e.Hint == "" {
		t.Errorf("it says %#v", said)
	}
	if r := (api{l}).Ready(); r.Ready {
		t.Error("ready, though it is out")
	}
	if _, err := (api{l}).ClusterStatus(c.ctx); !errors.As(err, &e) || e.Code != wire.NotMember {
		t.Errorf("status: %v", err)
	}
	if err := l.Wait(); !errors.Is(err, errRemoved) {
		t.Errorf("it ended with %v", err)
	}
}
