package discover

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// world runs the protocol of some nodes on a network that loses, delays, doubles and reorders, in virtual time. It knows
// when who heard whom, so it can tell whether two founders could have known of each other.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	wait  time.Duration
	loss  float64
	now   time.Duration
	queue []event
	nodes []*simNode
	ids   uint64
	split func(from, to int) bool // nothing passes
}

type simNode struct {
	book    *book
	up      bool
	found   time.Duration // when it founded; 0: it did not
	cluster uint64
	joined  time.Duration
	refused error // it sees two clusters and joins neither
	heard   map[int][]time.Duration
}

type event struct {
	at time.Duration
	do func()
}

func (w *world) after(d time.Duration, do func()) { w.queue = append(w.queue, event{w.now + d, do}) }

func (w *world) run(until time.Duration) {
	for len(w.queue) > 0 {
		i := 0
		for j := range w.queue {
			if w.queue[j].at < w.queue[i].at {
				i = j
			}
		}
		e := w.queue[i]
		if e.at > until {
			break
		}
		w.queue = slices.Delete(w.queue, i, i+1)
		w.now = e.at
		e.do()
	}
	w.now = until
}

// boot starts node i anew under the id it has.
func (w *world) boot(i int, id wire.NodeID, expect uint32) {
	w.ids++
	n := w.nodes[i]
	*n = simNode{up: true, heard: map[int][]time.Duration{}}
	n.book = newBook(Announcement{Node: id, Instance: w.ids, Name: fmt.Sprint("n", i), Expect: expect}, w.wait, w.now)
	book := n.book
	alive := func() bool { return n.up && n.book == book }
	var send, check func()
	send = func() {
		if !alive() {
			return
		}
		w.broadcast(i, book.compose(w.now))
		every := book.every()
		w.after(every-time.Duration(w.rng.Int64N(int64(every)/4)), send)
	}
	check = func() {
		if !alive() || n.cluster != 0 {
			return
		}
		switch v := book.decide(w.now); {
		case v.err != nil:
			n.refused = v.err
			return
		case v.found:
			n.found, n.cluster = w.now, uint64(i)+1
			// Founding takes a while, in which nobody can join.
			w.after(time.Duration(w.rng.Int64N(int64(2*w.wait))), func() { w.enter(n, book) })
			send()
			return
		case len(v.members) > 0:
			n.cluster, n.joined = v.members[0].Cluster, w.now
			w.after(time.Duration(w.rng.Int64N(int64(w.wait))), func() { w.enter(n, book) })
			return
		}
		w.after(w.wait/50, check)
	}
	send()
	check()
}

func (w *world) enter(n *simNode, book *book) {
	if n.up && n.book == book {
		book.become(n.cluster, [32]byte{byte(n.cluster)}, "host:1")
	}
}

func (w *world) broadcast(from int, a *Announcement) {
	for to, n := range w.nodes {
		if !n.up || w.split != nil && w.split(from, to) || from != to && w.rng.Float64() < w.loss {
			continue
		}
		for range 1 + w.rng.IntN(8)/7 { // now and then twice
			w.after(time.Duration(w.rng.Int64N(int64(w.wait/10))), func() {
				if w.nodes[to].up {
					w.nodes[to].heard[from] = append(w.nodes[to].heard[from], w.now)
					w.nodes[to].book.hear(a, fmt.Sprint("n", from), w.now)
				}
			})
		}
	}
}

// deaf tells whether node to missed node from for a whole wait between begin and end.
func (w *world) deaf(to, from int, begin, end time.Duration) bool {
	last := begin
	heard := append(slices.Clone(w.nodes[to].heard[from]), end)
	slices.SortFunc(heard, cmp.Compare[time.Duration])
	for _, at := range heard {
		if at < begin {
			continue
		}
		if min(at, end)-last >= w.wait {
			return true
		}
		last = at
	}
	return false
}

func seedOf(t *testing.T) (first uint64, n int) {
	if s := os.Getenv("IMROUTE_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v, 1
	}
	return rand.Uint64() >> 20, 150
}

// TestOneFounder: whatever is lost, delayed and started when, of two nodes that hear each other in each waiting time at
// most one founds; and in the end everybody is in its cluster, unless there are two and it hears both.
func TestOneFounder(t *testing.T) {
	first, runs := seedOf(t)
	excused, founders := 0, 0
	for seed := first; seed < first+uint64(runs); seed++ {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, rng: rng, wait: time.Second, loss: []float64{0, 0, 0.1, 0.3, 0.6}[rng.IntN(5)]}
		n := 1 + rng.IntN(7)
		spread := []time.Duration{1, w.wait / 10, 2 * w.wait}[rng.IntN(3)]
		begins := make([]time.Duration, n)
		for i := range n {
			w.nodes = append(w.nodes, &simNode{})
			id := wire.NodeID(rng.Uint64() | 1)
			begins[i] = time.Duration(rng.Int64N(int64(spread)))
			w.after(begins[i], func() { w.boot(i, id, 0) })
			if rng.IntN(4) == 0 { // one that is killed and started again while it seeks
				w.after(begins[i]+time.Duration(rng.Int64N(int64(w.wait))), func() {
					if w.nodes[i].cluster == 0 && w.nodes[i].up {
						begins[i] = w.now
						w.boot(i, id, 0)
					}
				})
			}
		}
		w.run(time.Minute)
		var who []int
		for i, node := range w.nodes {
			if node.found != 0 {
				who = append(who, i)
			}
			if node.cluster == 0 && node.refused == nil {
				t.Fatalf("IMROUTE_SEED=%d: node %d of %d is in no cluster: %s", seed, i, n, node.book.decide(w.now).why)
			}
		}
		founders += len(who)
		for _, x := range who {
			for _, y := range who {
				if x >= y {
					continue
				}
				// Both were there from the later start to the earlier founding; if they missed each other for a wait before
				// the later founding, they could not know.
				begin, end := max(begins[x], begins[y]), max(w.nodes[x].found, w.nodes[y].found)
				if !w.deaf(x, y, begin, end) && !w.deaf(y, x, begin, end) {
					t.Fatalf("IMROUTE_SEED=%d: nodes %d and %d of %d both founded, at %v and %v, and heard each other (loss %.1f)", seed, x, y, n, w.nodes[x].found, w.nodes[y].found, w.loss)
				}
				excused++
			}
		}
		for i, node := range w.nodes {
			if node.refused != nil && len(who) < 2 { // two that could not know of each other are two clusters for whoever hears both
				t.Fatalf("IMROUTE_SEED=%d: node %d of %d sees two clusters where %d was founded: %v", seed, i, n, len(who), node.refused)
			}
		}
		if len(who) == 0 {
			t.Fatalf("IMROUTE_SEED=%d: nobody founded", seed)
		}
	}
	t.Logf("seeds from %d: %d runs, %d founders, %d pairs that missed each other for a whole wait", first, runs, founders, excused)
}

// TestExpect: with a number expected nobody founds before so many are there, and two halves of a split network found no two
// clusters if it is a majority.
func TestExpect(t *testing.T) {
	first, runs := seedOf(t)
	for seed := first; seed < first+uint64(min(runs, 40)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := &world{t: t, rng: rng, wait: time.Second, loss: 0.1}
		const n = 5
		side := rng.IntN(n + 1)
		w.split = func(x, y int) bool { return (x < side) != (y < side) }
		for i := range n {
			w.nodes = append(w.nodes, &simNode{})
			id := wire.NodeID(rng.Uint64() | 1)
			expect := uint32(0)
			if i == 0 || i == side%n { // one of each side says so: it holds for all that hear it
				expect = n/2 + 1
			}
			w.after(time.Duration(i), func() { w.boot(i, id, expect) })
		}
		w.run(30 * time.Second)
		founded := 0
		for i, node := range w.nodes {
			if node.found != 0 {
				founded++
				size := side
				if i >= side {
					size = n - side
				}
				if size <= n/2 {
					t.Fatalf("IMROUTE_SEED=%d: node %d founded among %d of %d", seed, i, size, n)
				}
			}
		}
		if founded != 1 {
			t.Fatalf("IMROUTE_SEED=%d: %d founders, %d of %d nodes on one side", seed, founded, side, n)
		}
		// The parts meet: everybody ends up in the one cluster.
		w.split = nil
		w.run(60 * time.Second)
		for i, node := range w.nodes {
			if node.cluster != w.nodes[0].cluster || node.cluster == 0 {
				t.Fatalf("IMROUTE_SEED=%d: node %d is in cluster %d, node 0 in %d", seed, i, node.cluster, w.nodes[0].cluster)
			}
		}
	}
}

// TestSplitIsSeen: without a number expected two parts found two clusters, and both say so when they hear each other.
func TestSplitIsSeen(t *testing.T) {
	w := &world{t: t, rng: rand.New(rand.NewPCG(1, 3)), wait: time.Second}
	w.split = func(x, y int) bool { return (x < 2) != (y < 2) }
	for i := range 4 {
		w.nodes = append(w.nodes, &simNode{})
		w.boot(i, wire.NodeID(i+1), 0)
	}
	w.run(20 * time.Second)
	if w.nodes[0].cluster == w.nodes[2].cluster {
		t.Fatal("one cluster")
	}
	for i, n := range w.nodes {
		if f := n.book.foreign(w.now); len(f) != 0 {
			t.Fatalf("node %d sees another cluster through the split: %v", i, f)
		}
	}
	w.split = nil
	w.run(30 * time.Second)
	for i, n := range w.nodes {
		if f := n.book.foreign(w.now); len(f) != 2 {
			t.Fatalf("node %d sees %v", i, f)
		}
	}
	// A newcomer does not choose.
	w.nodes = append(w.nodes, &simNode{up: true})
	b := newBook(Announcement{Node: 9, Instance: 99}, w.wait, w.now)
	for i := range 4 {
		a := w.nodes[i].book.compose(w.now)
		a.View = append(a.View, b.me())
		b.hear(a, "x", w.now)
	}
	if v := b.decide(w.now); v.err == nil || v.members != nil {
		t.Fatalf("%+v", v)
	}
	// One part is given up: quiet again.
	w.nodes = w.nodes[:4]
	w.nodes[2].up, w.nodes[3].up = false, false
	w.run(60 * time.Second)
	if f := w.nodes[0].book.foreign(w.now); len(f) != 0 {
		t.Fatalf("still sees %v", f)
	}
}

// TestReplayed: announcements of another time prove nothing, and do not raise a false alarm.
func TestReplayed(t *testing.T) {
	b := newBook(Announcement{Node: 5, Instance: 50}, time.Second, 0)
	old := &Announcement{State: Member, Node: 7, Instance: 70, Seq: 9, Mesh: "h:1", Cluster: 2, CAHash: [32]byte{2}}
	b.become(1, [32]byte{1}, "h:5")
	for range 3 {
		b.hear(old, "x", 0)
		old.Seq++
	}
	if f := b.foreign(0); f != nil {
		t.Fatalf("an old announcement counts as a cluster: %v", f)
	}
	live := *old
	live.View = []Seen{b.me()}
	b.hear(&live, "x", 0) // the same number as before is not taken
	live.Seq++
	b.hear(&live, "x", 0)
	if f := b.foreign(0); len(f) != 1 {
		t.Fatal("a proven one does not count")
	}
	ghost := &Announcement{State: Seeking, Node: 7, Instance: 71, Seq: 1, View: []Seen{{Node: 7, Instance: 71}}}
	b.hear(ghost, "x", 0)
	if b.peers[7].Instance != 70 {
		t.Fatal("an old process displaced a proven one")
	}

	// A seeker goes by who is proven.
	s := newBook(Announcement{Node: 6, Instance: 60}, time.Second, 0)
	s.hear(&Announcement{State: Member, Node: 7, Instance: 70, Seq: 1, Mesh: "old:1", Cluster: 2, CAHash: [32]byte{2}}, "x", 0)
	s.hear(&Announcement{State: Member, Node: 8, Instance: 80, Seq: 1, Mesh: "new:1", Cluster: 3, CAHash: [32]byte{3}, View: []Seen{s.me()}}, "x", 0)
	if v := s.decide(time.Second / 10); v.err != nil || v.members != nil {
		t.Fatalf("did not listen whether there are two: %+v", v)
	}
	if v := s.decide(time.Second); v.err != nil || len(v.members) != 1 || v.members[0].Mesh != "new:1" {
		t.Fatalf("%+v", v)
	}
}

// TestNoFounding: why a seeker does not found, in words.
func TestNoFounding(t *testing.T) {
	second := time.Second
	fresh := func() *book {
		b := newBook(Announcement{Node: 5, Instance: 50}, second, 0)
		b.echo, b.echoed = 2*second, true
		return b
	}
	for _, c := range []struct {
		name    string
		prepare func(*book)
		want    string
		isErr   bool
	}{
		{"deaf to itself", func(b *book) { b.echoed = false }, "does not hear its own", false},
		{"its former process", func(b *book) {
			b.hear(&Announcement{State: Seeking, Node: 5, Instance: 51, Seq: 1}, "10.0.0.9", second)
			b.self.Expect = 2
		}, "1 of 2", false},
		{"twin", func(b *book) {
			for i := range time.Duration(2) {
				b.hear(&Announcement{State: Seeking, Node: 5, Instance: 51, Seq: 1 + uint64(i)}, "10.0.0.9", second+i*second)
			}
		}, "data folder copied", true},
		{"another secret, seeking", func(b *book) { b.hearAlien(Seeking, "10.0.0.9", errSecret, 2*second) }, "until that is cleared up", false},
		{"another secret, a member", func(b *book) { b.hearAlien(Member, "10.0.0.9", errSecret, 2*second) }, "10.0.0.9 announces a cluster of this name with another secret: check --secret", true},
		{"another version", func(b *book) { b.hearAlien(Member, "10.0.0.9", errVersion, 2*second) }, "same version", true},
		{"somebody founds", func(b *book) { b.hear(&Announcement{State: Founding, Node: 9, Instance: 90, Seq: 1}, "x", 2*second) }, "is founding", false},
		{"a newcomer", func(b *book) { b.hear(&Announcement{State: Seeking, Node: 9, Instance: 90, Seq: 1}, "x", 2*second) }, "listening; 2", false},
		{"too few", func(b *book) { b.self.Expect = 3 }, "1 of 3", false},
	} {
		b := fresh()
		c.prepare(b)
		v := b.decide(2 * second)
		text := v.why
		if v.err != nil {
			text = v.err.Error()
		}
		if v.found || (v.err != nil) != c.isErr || !contains(text, c.want) {
			t.Errorf("%s: %+v, want %q", c.name, v, c.want)
		}
	}
	if v := fresh().decide(2 * second); !v.found {
		t.Errorf("alone: %+v", v)
	}
}
