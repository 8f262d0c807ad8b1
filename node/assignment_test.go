package node

import (
	"fmt"
	"testing"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// TestAssignPolicies, E3: what each policy does with the clients of a cluster of three nodes, which ask before they log in.
func TestAssignPolicies(t *testing.T) {
	for policy, test := range map[string]func(*testing.T, *cluster, [3]*Node){
		"min-clients": testMinClients, "round-robin": testRoundRobin, "hash": testHash,
	} {
		t.Run(policy, func(t *testing.T) {
			c := newCluster(t)
			var nodes [3]*Node
			nodes[0], nodes[1], nodes[2] = c.three(func(cfg *Config) { cfg.AssignPolicy = policy })
			c.knows(nodes, is(0), is(0), is(0))
			test(t, c, nodes)
		})
	}
}

// between is a number of clients.
type between struct{ least, most int }

func is(n int) between { return between{n, n} }

// knows waits until every node knows how many clients each has.
func (c *cluster) knows(nodes [3]*Node, counts ...between) {
	c.t.Helper()
	for _, n := range nodes {
		c.until(n.Name()+" knows how many clients there are", func() error {
			takers := n.takers("tcp")
			for _, v := range takers {
				for i, of := range nodes {
					if v.ID == of.id && (v.Clients < counts[i].least || v.Clients > counts[i].most) {
						return fmt.Errorf("%+v, want %v", takers, counts)
					}
				}
			}
			if len(takers) != len(nodes) {
				return fmt.Errorf("%+v", takers)
			}
			return nil
		})
	}
}

// comes logs a client in where that node says.
func (c *cluster) comes(id string, ask *Node) (to string) {
	c.t.Helper()
	cfg, u := dialConfig(id)
	cfg.AssignFrom = []string{"http://" + ask.Addrs().ClientWS}
	if err := c.dialErr(cfg, u); err != nil {
		c.t.Fatal(err)
	}
	return u.State().Node
}

// where asks a node without logging in.
func (c *cluster) where(id string, ask *Node) string {
	c.t.Helper()
	a, err := api{ask}.Assign(c.ctx, admin.AssignQuery{Client: wire.ClientID{ID: id}, Transport: "tcp"})
	if err != nil {
		c.t.Fatal(err)
	}
	return a.Node
}

// The one with the fewest clients is named, whichever node is asked, so that in the end all have the same number, if
// nobody comes before the figures that the one before has changed: those are up to a second old.
func testMinClients(t *testing.T, c *cluster, nodes [3]*Node) {
	for i := range 5 {
		c.dial(fmt.Sprint("here", i), nodes[0])
	}
	c.dial("there", nodes[1])
	c.knows(nodes, is(5), is(1), is(0))
	counts := map[string]int{"n1": 5, "n2": 1}
	for i := range 9 {
		counts[c.comes(fmt.Sprint("new", i), nodes[i%3])]++
		c.knows(nodes, is(counts["n1"]), is(counts["n2"]), is(counts["n3"]))
	}
	if counts["n1"] != 5 || counts["n2"] != 5 || counts["n3"] != 5 {
		t.Errorf("clients came to %v, want 5 each", counts)
	}
}

// Nodes are named one after the other, however many clients they have.
func testRoundRobin(t *testing.T, c *cluster, nodes [3]*Node) {
	for i := range 4 {
		c.dial(fmt.Sprint("here", i), nodes[0])
	}
	var turns []string
	for i := range 6 {
		turns = append(turns, c.comes(fmt.Sprint("new", i), nodes[1]))
	}
	for i := range 3 {
		if turns[i] != turns[i+3] || turns[i] == turns[(i+1)%3] {
			t.Errorf("named were %v", turns)
		}
	}
	c.knows(nodes, is(6), is(2), is(2))
}

// All nodes name the same one for a user, for all his devices; when one closes, only those move that were its own.
func testHash(t *testing.T, c *cluster, nodes [3]*Node) {
	const users = 60
	homes, count := map[string]string{}, map[string]int{}
	for i := range users {
		id := fmt.Sprint("user", i)
		homes[id] = c.where(id, nodes[0])
		count[homes[id]]++
		for _, n := range nodes {
			if got := c.where(id+"/phone", n); got != homes[id] {
				t.Errorf("%s names %s for %s/phone, others %s for %[3]s", n.Name(), got, id, homes[id])
			}
		}
	}
	for _, n := range nodes {
		if count[n.Name()] < users/10 {
			t.Errorf("%d users of %d go to %s", count[n.Name()], users, n.Name())
		}
	}
	if got := c.comes("user7", nodes[2]); got != homes["user7"] {
		t.Errorf("it went to %s, not to %s", got, homes["user7"])
	}
	if _, err := (api{nodes[0]}).DrainNode(c.ctx, nodes[1].Name(), false); err != nil {
		t.Fatal(err)
	}
	c.until("it is not named any more", func() error {
		if takers := nodes[0].takers("tcp"); len(takers) != 2 {
			return fmt.Errorf("%+v", takers)
		}
		return nil
	})
	for id, home := range homes {
		if got := c.where(id, nodes[0]); got == nodes[1].Name() || home != nodes[1].Name() && got != home {
			t.Errorf("%s goes from %s to %s", id, home, got)
		}
	}
}
