package assign

import (
	"fmt"
	"testing"
	"time"

	"imroute/mesh/wire"
)

func client(i int) wire.ClientID { return wire.ClientID{ID: fmt.Sprint("c", i)} }

// counts asks n times, a millisecond apart.
func counts(p *Picker, n int, nodes []Node) map[string]int {
	out := map[string]int{}
	for i := range n {
		got, _ := p.Pick(client(i), time.Second+time.Duration(i)*time.Millisecond, nodes)
		out[got.Name]++
	}
	return out
}

func three(a, b, c int) []Node {
	return []Node{{1, "n1", "a1", a, time.Second}, {2, "n2", "a2", b, time.Second}, {3, "n3", "a3", c, time.Second}}
}

func TestMinClients(t *testing.T) {
	// Nothing new is heard meanwhile, and still they do not all go to the emptiest.
	got := counts(NewPicker(MinClients), 90, three(10, 40, 40))
	if got["n1"] != 50 || got["n2"] != 20 || got["n3"] != 20 {
		t.Errorf("%v", got)
	}
	// New figures count, and not what was assumed before, but for those who can hardly have arrived.
	p := NewPicker(MinClients)
	counts(p, 30, three(0, 0, 0))
	fresh := three(9, 1, 9)
	for i := range fresh {
		fresh[i].At = 3 * time.Second
	}
	if n, _ := p.Pick(client(1), 3*time.Second+time.Millisecond, fresh); n.Name != "n2" || n.Clients != 1 {
		t.Errorf("%+v", n)
	}
	fresh[1].At = 3*time.Second + 50*time.Millisecond
	if n, _ := p.Pick(client(2), 3*time.Second+60*time.Millisecond, fresh); n.Name != "n2" || n.Clients != 2 {
		t.Errorf("%+v", n)
	}
	fresh[1].At = 4 * time.Second
	if n, _ := p.Pick(client(3), 4*time.Second, fresh); n.Name != "n2" || n.Clients != 1 {
		t.Errorf("%+v", n)
	}
	// Who is equal takes turns.
	got = counts(NewPicker(MinClients), 30, three(5, 5, 5))
	if got["n1"] != 10 || got["n2"] != 10 {
		t.Errorf("%v", got)
	}
	if _, ok := p.Pick(client(1), time.Second, nil); ok {
		t.Error("a node out of nothing")
	}
}

func TestRoundRobin(t *testing.T) {
	got := counts(NewPicker(RoundRobin), 9, three(1000, 0, 0))
	if got["n1"] != 3 || got["n2"] != 3 || got["n3"] != 3 {
		t.Errorf("%v", got)
	}
}

func TestHash(t *testing.T) {
	one, other := NewPicker(Hash), NewPicker(Hash)
	all, moved, share := three(0, 50, 3), 0, map[string]int{}
	const n = 3000
	for i := range n {
		a, _ := one.Pick(client(i), time.Duration(i), all)
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

// What was counted is forgotten in time, also behind a long silence.
func TestRecent(t *testing.T) {
	const ms = time.Millisecond
	var r recent
	for i := range 100 {
		r.add(time.Hour + time.Duration(i)*10*ms)
	}
	now := time.Hour + time.Second
	if all, half := r.since(time.Hour, now), r.since(time.Hour+500*ms, now); all != 100 || half < 50 || half > 54 {
		t.Errorf("%d in all, %d in the second half", all, half)
	}
	if n := r.since(0, now+4*time.Second); n > 35 || n < 5 {
		t.Errorf("%d of the last four seconds", n)
	}
	if n := r.since(0, now+time.Hour); n != 0 {
		t.Errorf("%d after an hour", n)
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
