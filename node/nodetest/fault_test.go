package nodetest

import "testing"

// slowness is by how much a recovery may miss its promise on a machine that runs everything at once, under the race
// detector. The figures themselves come from TestFaultMatrix.
const slowness = 3

func faultNamed(t *testing.T, name string) Fault {
	t.Helper()
	for _, f := range Faults() {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("there is no fault %q", name)
	return Fault{}
}

// underLoad starts a cluster as the first fault needs it, with a workload, makes the faults happen one after the other, and judges.
func underLoad(t *testing.T, faults ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take seconds")
	}
	first := faultNamed(t, faults[0])
	if first.Skip != nil {
		if why := first.Skip(); why != "" {
			t.Skip(why)
		}
	}
	c := Start(t, first.Options)
	w := c.Load(t, first.Load)
	for _, name := range faults {
		f := faultNamed(t, name)
		took := w.Inject(t, f)
		if f.Bound != nil && took > slowness*f.Bound(c.Timings) {
			t.Errorf("%s: recovered after %v, promised within %v", name, took, f.Bound(c.Timings))
		}
	}
	w.Finish(t)
	c.AwaitAgreement(t, startWait)
}

func TestKill(t *testing.T) {
	underLoad(t, "kill -9 a follower", "kill -9 the leader", "kill -9 a follower, restarted at once")
}

func TestLeaderLeaves(t *testing.T) {
	underLoad(t, "the leader leaves", "leadership handed over")
}

func TestDiskFull(t *testing.T) {
	underLoad(t, "a follower's disk is full")
}

func TestPause(t *testing.T) {
	underLoad(t, "SIGSTOP the leader, 0.5 × lease", "SIGSTOP a follower, 1 × lease", "SIGSTOP the leader, 1 × lease")
}

func TestLongPause(t *testing.T) {
	underLoad(t, "SIGSTOP the leader, 3 × lease")
}

func TestPartition(t *testing.T) {
	underLoad(t, "a follower cut off", "the leader is not heard", "a follower does not hear")
}

func TestLoss(t *testing.T) {
	underLoad(t, "10 % of packets lost", "packets overtake each other, up to 30 ms")
}
