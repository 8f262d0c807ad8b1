package assign

import (
	"fmt"
	"testing"

	"imroute/mesh/wire"
)

func client(i int) wire.ClientID { return wire.ClientID{ID: fmt.Sprint("c", i)} }

func counts(p *Picker, n int, round func(i int) uint64, nodes []Node) map[string]int {
	out := map[string]int{}
	for i := range n {
		got, _ := p.Pick(client(i), round(i), nodes)
		out[got.Name]++
	}
	return out
}

func three(a, b, c int) []Node {
	return []Node{{1, "n1", "a1", a}, {2, "n2", "a2", b}, {3, "n3", "a3", c}}
}

func TestMinClients(t *testing.T) {
	same := func(int) uint64 { return 1 }
	// Nothing new is heard meanwhile, and still they do not all go to the emptiest.
	got := counts(NewPicker(MinClients), 90, same, three(10, 40, 40))
	if got["n1"] != 50 || got["n2"] != 20 || got["n3"] != 20 {
		t.Errorf("%v", got)
	}
	// New figures count, and not what was assumed before.
	p := NewPicker(MinClients)
	counts(p, 30, same, three(0, 0, 0))
	if n, _ := p.Pick(client(1), 2, three(9, 1, 9)); n.Name != "n2" || n.Clients != 1 {
		t.Errorf("%+v", n)
	}
	// Who is equal takes turns, also when every answer is fresh.
	got = counts(NewPicker(MinClients), 30, func(i int) uint64 { return uint64(i) }, three(5, 5, 5))
	if got["n1"] != 10 || got["n2"] != 10 {
		t.Errorf("%v", got)
	}
	if _, ok := p.Pick(client(1), 1, nil); ok {
		t.Error("a node out of nothing")
	}
}

func TestRoundRobin(t *testing.T) {
	got := counts(NewPicker(RoundRobin), 9, func(int) uint64 { return 1 }, three(1000, 0, 0))
	if got["n1"] != 3 || got["n2"] != 3 || got["n3"] != 3 {
		t.Errorf("%v", got)
	}
}

func TestHash(t *testing.T) {
	one, other := NewPicker(Hash), NewPicker(Hash)
	all, moved, share := three(0, 50, 3), 0, map[string]int{}
	const n = 3000
	for i := range n {
		a, _ := one.Pick(client(i), uint64(i), all)
		b, _ := other.Pick(client(i), 7, []Node{all[2], all[0], all[1]})
		if a.ID != b.ID {
			t.Fatalf("%s goes to %s at one node and to %s at another", client(i), a.Name, b.Name)
		}
		share[a.Name]++
		device := client(i)
		device.ID += "/web"
		if d, _ := one.Pick(device, 1, all); d.ID != a.ID {
			t.Fatalf("a device goes to another node than its user")
		}
		if rest, _ := one.Pick(client(i), 1, all[:2]); rest.ID != a.ID {
			moved++
			if a.ID != 3 {
				t.Fatalf("%s moved from %s, which is still there", client(i), a.Name)
			}
		}
	}
	for name, got := range share {
		if got < n/3-n/10 || got > n/3+n/10 {
			t.Errorf("%s has %d of %d", name, got, n)
		}
	}
	if moved != share["n3"] {
		t.Errorf("%d moved, %d had to", moved, share["n3"])
	}
}

func TestShare(t *testing.T) {
	if got := Share(three(10, 0, 0)); got != 4 {
		t.Error(got)
	}
	if got := Share(nil); got != 0 {
		t.Error(got)
	}
}

func TestParsePolicy(t *testing.T) {
	for _, p := range []Policy{MinClients, RoundRobin, Hash} {
		if got, err := ParsePolicy(p.String()); err != nil || got != p {
			t.Errorf("%v: %v %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("random"); err == nil {
		t.Error("random is taken")
	}
}
