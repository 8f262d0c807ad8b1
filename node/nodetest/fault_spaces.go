package nodetest

import (
	"testing"
	"time"
)

// spaceFaults are faults of a network in the kernel, between nodes in namespaces of their own.
func spaceFaults() []Fault {
	return []Fault{
		inSpaces("namespaces: a follower cut off", func(t testing.TB, c *Cluster) error { return c.Spaces.Isolate(c.Follower(t)) }),
		inSpaces("namespaces: the leader cut off", func(t testing.TB, c *Cluster) error { return c.Spaces.Isolate(c.Leader(t)) }),
		inSpaces("namespaces: the leader is not heard", func(t testing.TB, c *Cluster) error { return c.Spaces.Mute(c.Leader(t)) }),
		inSpaces("namespaces: the leader does not hear", func(t testing.TB, c *Cluster) error { return c.Spaces.Deafen(c.Leader(t)) }),
		inSpaces("namespaces: the leader's interface goes down and up", func(t testing.TB, c *Cluster) error { return c.Spaces.Link(c.Leader(t), "down") }),
		inSpaces("namespaces: the leader has no route to a follower", func(t testing.TB, c *Cluster) error {
			l := c.Leader(t)
			return c.Spaces.Blackhole(l, c.Others(l)[0])
		}),
		inSpaces("namespaces: a follower's interface is down, the leader is killed and restarted", func(t testing.TB, c *Cluster) error {
			l := c.Leader(t)
			if err := c.Spaces.Link(c.Others(l)[0], "down"); err != nil {
				return err
			}
			l.Restart(t)
			return nil
		}),
		inSpaces("namespaces: 10 % of packets lost", func(_ testing.TB, c *Cluster) error {
			for _, n := range c.Nodes {
				if err := c.Spaces.Lose(n); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func inSpaces(name string, do func(t testing.TB, c *Cluster) error) Fault {
	return Fault{
		Name: name, Options: Options{Namespaces: true}, Skip: needsSpaces,
		Do: func(t testing.TB, c *Cluster) time.Duration {
			if err := do(t, c); err != nil {
				t.Fatal(err)
			}
			c.Wait(3 * c.Timings.Lease / 2)
			if err := c.Spaces.Heal(); err != nil {
				t.Fatal(err)
			}
			return Now()
		},
	}
}
