package raftfsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"imroute/mesh/wire"
)

// cluster is a table with nodes 1 to n up.
func cluster(n int) *driver {
	d := &driver{t: NewTable(), seq: map[wire.NodeID]uint64{}}
	d.do(&Command{Kind: KindInit, ClusterID: 1, CACert: []byte("cert")})
	for i := range n {
		id := wire.NodeID(i + 1)
		d.do(&Command{Kind: KindNodeJoin, Node: id, Name: fmt.Sprintf("n%d", id)})
		d.do(&Command{Kind: KindNodeUp, Node: id, Boot: 1})
	}
	return d
}

type driver struct {
	t     *Table
	index uint64
	seq   map[wire.NodeID]uint64
}

func (d *driver) do(c *Command) Result {
	d.index++
	return d.t.Apply(d.index, 1, c)
}

func (d *driver) batch(node wire.NodeID, ops ...Op) Result {
	m := d.t.nodes[node]
	return d.do(&Command{Kind: KindBatch, Node: node, Incarnation: m.Incarnation, Seq: m.batch.Seq + 1, Ops: ops})
}

func reg(id string) Op {
	return Op{Kind: Register, Client: wire.ClientID{ID: id}, Session: wire.SessionID{Instance: 1, Attempt: 1}}
}

func (d *driver) fill(node wire.NodeID, from, to int, name func(int) string) {
	for from < to {
		var ops []Op
		for ; from < to && len(ops) < 200; from++ {
			ops = append(ops, reg(name(from)))
		}
		if r := d.batch(node, ops...); r.Code != wire.OK {
			panic(r.Text)
		}
	}
}

func user(i int) string   { return fmt.Sprintf("user-%08d", i) }
func device(i int) string { return fmt.Sprintf("fleet/%d", i) }

// TestPages grows, shrinks and grows a table that is large enough for every page operation, with a grab open half of the time.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := cluster(2)
		want := map[string]wire.Epoch{}
		ids := make([]string, 0, 4000)
		for i := range 1500 {
			ids = append(ids, user(i), "fleet/"+strings.Repeat("x", i%200)+fmt.Sprint(i))
		}
		for i := range 300 {
			ids = append(ids, fmt.Sprintf("%d", i))
		}
		var v *View
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			if v != nil {
				v.Close()
				v = nil
			}
			if rapid.Bool().Draw(t, "grab") {
				v = d.t.Grab(d.index)
			}
			from := rapid.IntRange(0, len(ids)).Draw(t, "from")
			to := rapid.IntRange(from, len(ids)).Draw(t, "to")
			add := rapid.Bool().Draw(t, "add")
			node := wire.NodeID(1)
			for from < to {
				var ops []Op
				for ; from < to && len(ops) < 300; from++ {
					op := reg(ids[from])
					if !add {
						op = Op{Kind: Unregister, Client: op.Client, Epoch: want[ids[from]]}
					}
					ops = append(ops, op)
				}
				r := d.batch(node, ops...)
				for i, op := range ops {
					switch {
					case add && r.Ops[i].Code == OpOK:
						want[op.Client.ID] = r.Ops[i].Epoch
					case !add && r.Ops[i].Code == OpOK:
						delete(want, op.Client.ID)
					case !add && r.Ops[i].Code == OpGone && want[op.Client.ID] == 0:
					default:
						t.Fatalf("%+v: %+v", op, r.Ops[i])
					}
				}
			}
			if err := invariants(d.t); err != nil {
				t.Fatal(err)
			}
		}
		got := map[string]wire.Epoch{}
		for c, r := range routesOf(d.t) {
			got[c.ID] = r.Epoch
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%d routes, want %d", len(got), len(want))
		}
	})
}

func TestGrabDoesNotChange(t *testing.T) {
	d := cluster(3)
	d.fill(1, 0, 5000, user)
	d.fill(2, 0, 800, device)
	v := d.t.Grab(d.index)
	before := v.Hash()
	all, _, err := v.Routes("", 10000, nil)
	if err != nil || len(all) != 5800 {
		t.Fatalf("%d routes, %v", len(all), err)
	}
	w := d.t.Grab(d.index)
	d.fill(1, 2000, 9000, user)
	d.do(&Command{Kind: KindNodeExpire, Node: 2, Incarnation: 1, Term: 1})
	d.fill(3, 0, 300, device)
	for i := range 500 {
		r, _ := d.t.Lookup(wire.ClientID{ID: user(i)})
		d.batch(1, Op{Kind: Unregister, Client: r.Client, Epoch: r.Epoch})
	}
	w.Close()
	d.fill(1, 0, 300, user)
	if got := v.Hash(); got != before {
		t.Fatalf("hash of the grab went from %x to %x", before, got)
	}
	again, _, _ := v.Routes("", 10000, nil)
	if !slices.Equal(all, again) {
		t.Fatal("routes of the grab changed")
	}
	if v.Count() != 5800 || v.CountByNode()[1] != 5000 || v.CountByNode()[2] != 800 {
		t.Fatalf("counts: %d, %v", v.Count(), v.CountByNode())
	}
	v.Close()
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
}

func TestVoidRowsAreReclaimed(t *testing.T) {
	d := cluster(2)
	d.fill(1, 0, 6000, user)
	d.fill(1, 0, 2000, device)
	d.fill(2, 6000, 6100, user)
	full := d.t.stats()
	if full.Routes != 8100 || full.Void != 0 {
		t.Fatalf("%+v", full)
	}
	d.do(&Command{Kind: KindNodeExpire, Node: 1, Incarnation: 1, Term: 1})
	s := d.t.stats()
	if s.Routes != 100 || s.Void < 7000 {
		t.Fatalf("right after the expiry: %+v", s)
	}
	if _, ok := d.t.Lookup(wire.ClientID{ID: user(17)}); ok {
		t.Fatal("a void route is visible")
	}
	hash := d.t.Hash()
	n := 0
	for ; d.t.stats().Void > 0; n++ {
		if n > 5000 {
			t.Fatalf("still void: %+v", d.t.stats())
		}
		d.do(&Command{Kind: KindNoop})
	}
	if n < 10 {
		t.Fatalf("reclaimed within %d entries: not in slices", n)
	}
	if d.t.Hash() != hash {
		t.Fatal("reclaiming changed the hash")
	}
	if s = d.t.stats(); s.Bytes*4 > full.Bytes {
		t.Fatalf("%d bytes for 100 routes, %d for 8100", s.Bytes, full.Bytes)
	}
	if len(d.t.owners.free) != 1 {
		t.Fatalf("ordinal not free: %+v", d.t.owners)
	}
	d.do(&Command{Kind: KindNodeUp, Node: 1, Boot: 2})
	if len(d.t.owners.list) != 2 {
		t.Fatalf("ordinal not used again: %+v", d.t.owners)
	}
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
}

func TestUserWithManyDevices(t *testing.T) {
	d := cluster(1)
	d.fill(1, 0, 200, user)
	d.fill(1, 0, 2000, device)
	d.fill(1, 200, 2000, user)
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
	c := wire.ClientID{ID: "fleet"}
	h := c.Hash()
	s := &d.t.stripes[stripeOf(h)]
	if got := len(d.t.devices(s, c, h, nil)); got != 2000 {
		t.Fatalf("%d devices", got)
	}
	visited := 0
	s.eachOfHash(h, func(page, int) { visited++ })
	if visited > 2200 {
		t.Fatalf("looked at %d rows for 2000 devices", visited)
	}
	for i := range 2000 {
		r, ok := d.t.Lookup(wire.ClientID{ID: device(i)})
		if !ok {
			t.Fatalf("device %d is missing", i)
		}
		if r := d.batch(1, Op{Kind: Unregister, Client: r.Client, Epoch: r.Epoch}); r.Ops[0].Code != OpOK {
			t.Fatal(r)
		}
	}
	if len(s.big) != 0 {
		t.Fatal("the empty directory of a user stays")
	}
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
}

// collidingUsers finds users whose hashes agree in their first bits.
func collidingUsers(n, bitsEqual int) []string {
	var out []string
	var prefix uint64
	for i := 0; len(out) < n; i++ {
		id := fmt.Sprintf("c%d", i)
		h := wire.ClientID{ID: id}.Hash() >> (64 - bitsEqual)
		if i == 0 {
			prefix = h
		}
		if h == prefix {
			out = append(out, id)
		}
	}
	return out
}

// TestCollidingUsers puts more different users into one small range of hashes than a page holds: they go to misc, and into
// extra pages when the directory there may not grow either.
func TestCollidingUsers(t *testing.T) {
	ids := collidingUsers(400, 11)
	d := cluster(1)
	d.fill(1, 0, len(ids), func(i int) string { return ids[i] })
	s := &d.t.stripes[stripeOf(wire.ClientID{ID: ids[0]}.Hash())]
	if s.misc == nil {
		t.Fatal("expected rows in misc: the test does not test what it should")
	}
	d.fill(1, 0, 500, user)
	d.fill(1, 0, 300, device)
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
	checkListing(t, d.t, 1200)
	if d.t.Hash() != restored(t, d.t).Hash() {
		t.Fatal("hash after a snapshot differs")
	}
	for _, id := range ids {
		r, ok := d.t.Lookup(wire.ClientID{ID: id})
		if !ok {
			t.Fatalf("%s is missing", id)
		}
		d.batch(1, Op{Kind: Unregister, Client: r.Client, Epoch: r.Epoch})
	}
	if s.misc != nil {
		t.Fatal("empty misc stays")
	}
	if err := invariants(d.t); err != nil {
		t.Fatal(err)
	}
}

// TestExtraPages fills a directory over whole ids with rows whose hashes agree in their first bits.
func TestExtraPages(t *testing.T) {
	w := &writer{}
	d := newDir(w)
	var keys []key
	for i := 0; len(keys) < 300; i++ {
		if k := makeKey(wire.ClientID{ID: fmt.Sprintf("x/%d", i)}); k.hid>>54 == 0x155 {
			d.insertByID(w, k, rowValue{epoch: wire.Epoch(len(keys))})
			keys = append(keys, k)
		}
	}
	if len(d.extra) == 0 {
		t.Fatal("no extra pages: the test does not test what it should")
	}
	for i, k := range keys {
		j, off := d.findByID(k)
		if off == 0 {
			t.Fatalf("row %d is missing", i)
		}
		if pl := (place{&d, j, off}); pl.page().value(off).epoch != wire.Epoch(i) {
			t.Fatalf("row %d is another", i)
		}
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	d := cluster(1)
	d.fill(1, 0, 1000, user)
	c := wire.ClientID{ID: user(5)}
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := d.t.Lookup(c); !ok {
			t.Fatal("missing")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
