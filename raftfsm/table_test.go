package raftfsm

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"imroute/mesh/wire"
)

// invariants compares the table's counters with what its pages hold.
func invariants(t *Table) error {
	rows, void, pages, size := 0, 0, 0, 0
	byOwner := make([]int, len(t.owners.list))
	for i := range t.stripes {
		s := &t.stripes[i]
		dirs := []*dir{&s.root}
		for _, b := range s.big {
			dirs = append(dirs, b.dir)
		}
		if s.misc != nil {
			dirs = append(dirs, s.misc)
		}
		for _, d := range dirs {
			n := 0
			d.eachPage(func(p page) bool {
				pages++
				size += len(p)
				c := 0
				p.each(func(tag uint16, off int) bool {
					n++
					c++
					ord := p.owner(off)
					byOwner[ord]++
					if !t.owners.list[ord].live {
						void++
					}
					k := makeKey(p.client(off))
					pl, ok := s.find(k)
					if !ok || &pl.page()[pl.off] != &p[off] {
						panic(fmt.Sprintf("row %v is not found where it lies", k.ClientID))
					}
					return true
				})
				if c != p.count() {
					panic("page count")
				}
				return true
			})
			if n != d.rows {
				return fmt.Errorf("directory has %d rows and counts %d", n, d.rows)
			}
			rows += n
		}
	}
	if rows != t.rows || void != t.owners.void || pages != t.w.pages || size != t.w.bytes || !slices.Equal(byOwner, t.owners.rows) {
		return fmt.Errorf("rows %d/%d void %d/%d pages %d/%d bytes %d/%d owners %v/%v",
			rows, t.rows, void, t.owners.void, pages, t.w.pages, size, t.w.bytes, byOwner, t.owners.rows)
	}
	return topicInvariants(t)
}

// topicInvariants is invariants of the side of the topics.
func topicInvariants(t *Table) error {
	ts := &t.topics
	holdings, void, pages, size := 0, 0, 0, 0
	byOwner := make([]int, len(t.owners.list))
	for i := range ts.stripes {
		d, n := &ts.stripes[i], 0
		d.eachPage(func(p page) bool {
			pages++
			size += len(p)
			return p.each(func(_ uint16, off int) bool {
				n++
				if p.unheld(off) {
					panic("a topic that nobody holds stays")
				}
				topic, block := topicAt(p, off)
				p.eachHolder(off, block, func(ord uint32) {
					holdings++
					byOwner[ord]++
					if !t.owners.list[ord].live {
						void++
					}
				})
				var buf topicBuf
				pl, ok := placeOf(&ts.stripes[topicStripe(topic)], topicKey(&buf, topic, block))
				if !ok || &pl.page()[pl.off] != &p[off] {
					panic(fmt.Sprintf("%s is not found where it lies", topic))
				}
				return true
			})
		})
		if n != d.rows {
			return fmt.Errorf("directory of topics has %d rows and counts %d", n, d.rows)
		}
	}
	if holdings != ts.holdings || void != t.owners.voidTopics || pages != ts.w.pages || size != ts.w.bytes || !slices.Equal(byOwner, t.owners.topics) {
		return fmt.Errorf("holdings %d/%d void %d/%d pages %d/%d bytes %d/%d owners %v/%v",
			holdings, ts.holdings, void, t.owners.voidTopics, pages, ts.w.pages, size, ts.w.bytes, byOwner, t.owners.topics)
	}
	for _, ord := range t.owners.free {
		if t.owners.list[ord].live || t.owners.rows[ord] != 0 || t.owners.topics[ord] != 0 {
			return fmt.Errorf("ordinal %d is free and in use", ord)
		}
	}
	return nil
}

func routesOf(t *Table) map[wire.ClientID]Route {
	v := t.Grab(0)
	defer v.Close()
	out := map[wire.ClientID]Route{}
	v.eachLive(func(p page, off int, o owner) {
		r := route(p, off, o)
		out[r.Client] = r
	})
	if len(out) != v.Count() {
		panic(fmt.Sprintf("view counts %d routes and has %d", v.Count(), len(out)))
	}
	return out
}

func same(a, b Result) bool {
	a.Text, b.Text = "", ""
	return reflect.DeepEqual(a, b)
}

// restored is the table after a round trip through a snapshot.
func restored(tb interface{ Fatalf(string, ...any) }, t *Table) *Table {
	v := t.Grab(7)
	defer v.Close()
	var buf bytes.Buffer
	if err := v.WriteSnapshot(&buf); err != nil {
		tb.Fatalf("write: %v", err)
	}
	u, index, err := ReadSnapshot(&buf, t.ClusterID)
	if err != nil || index != 7 {
		tb.Fatalf("read: index %d, %v", index, err)
	}
	u.maxHoldings = t.maxHoldings
	return u
}

// topicNames are of one tenant and of another, of both kinds.
var topicNames = []wire.Topic{
	{Kind: wire.TopicGroup, Name: "g"},
	{Kind: wire.TopicGroup, Name: "g/1"},
	{Kind: wire.TopicService, Name: "g"},
	{Tenant: "t", Kind: wire.TopicGroup, Name: "g"},
	{Tenant: "t", Kind: wire.TopicService, Name: "h"},
}

var drawNode = rapid.Custom(func(t *rapid.T) wire.NodeID { return wire.NodeID(rapid.IntRange(1, 4).Draw(t, "n")) })

func drawOps(t *rapid.T, m *model) []Op {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Op {
		if rapid.IntRange(0, 3).Draw(t, "topic") == 0 {
			return Op{Kind: rapid.SampledFrom([]OpKind{Join, Join, Leave}).Draw(t, "join"), Topic: rapid.SampledFrom(topicNames).Draw(t, "name")}
		}
		c := wire.ClientID{ID: rapid.SampledFrom([]string{"a", "u", "u/1", "u/p:1", "u/p:2", "u/p", "u/w:1", "c"}).Draw(t, "id")}
		if rapid.IntRange(0, 5).Draw(t, "tenant") == 0 {
			c.Tenant = "t"
		}
		op := Op{Kind: Register, Client: c}
		epoch := wire.Epoch(0)
		if rapid.Bool().Draw(t, "knows") {
			epoch = m.routes[c].Epoch
			if all := m.user(c.Tenant, c.User()); len(all) > 0 && rapid.Bool().Draw(t, "another") {
				epoch = rapid.SampledFrom(all).Draw(t, "whose").Epoch
			}
		} else if rapid.Bool().Draw(t, "guess") {
			epoch = wire.MakeEpoch(m.gen, rapid.Uint64Range(0, m.counter+1).Draw(t, "epoch"))
		}
		if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			op.Kind, op.Epoch = Unregister, epoch
			return op
		}
		op.Session = wire.SessionID{Instance: rapid.Uint64Range(1, 3).Draw(t, "instance"), Attempt: rapid.Uint64Range(0, 3).Draw(t, "attempt")}
		op.Fenced = epoch
		return op
	}), 1, 6).Draw(t, "ops")
}

func drawCommand(t *rapid.T, m *model) *Command {
	id := drawNode.Draw(t, "node")
	var n Node
	var seq uint64
	var ops []Op
	if x := m.nodes[id]; x != nil {
		n, seq, ops = x.Node, x.seq, x.ops
	}
	near := func(v uint64) uint64 { // mostly right
		return max(1, v+rapid.SampledFrom([]uint64{0, 0, 0, 0, 0, 1, ^uint64(0)}).Draw(t, "near"))
	}
	c := &Command{Node: id}
	switch k := rapid.IntRange(0, 29).Draw(t, "command"); {
	case k < 15:
		c.Kind, c.Incarnation, c.Seq, c.Ops = KindBatch, wire.Incarnation(near(uint64(n.Incarnation))), near(seq+1), drawOps(t, m)
		if len(ops) > 0 && rapid.IntRange(0, 3).Draw(t, "copy") == 0 {
			c.Seq, c.Ops = seq, ops
		}
	case k < 18:
		c.Kind, c.Boot = KindNodeUp, wire.Boot(near(uint64(n.Boot)+1))
	case k < 21:
		c.Kind, c.Name = KindNodeJoin, rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")
		c.Addrs.Mesh = rapid.SampledFrom([]string{"", "m:1"}).Draw(t, "addr")
	case k < 23:
		c.Kind, c.Incarnation, c.Term = KindNodeExpire, wire.Incarnation(near(uint64(n.Incarnation))), rapid.Uint64Range(1, 2).Draw(t, "term")
	case k < 25:
		c.Kind, c.Cancel = KindNodeDrain, rapid.Bool().Draw(t, "cancel")
	case k == 25:
		c.Kind, c.By = KindNodeRemove, drawNode.Draw(t, "by")
	case k == 26:
		c.Kind, c.Settings.Duplicate = KindSetSettings, DuplicatePolicy(rapid.IntRange(0, 1).Draw(t, "policy"))
		c.Settings.OnePerClass = rapid.IntRange(0, 2).Draw(t, "class") > 0
	case k == 27:
		c.Kind, c.ID, c.Hash = KindTokenCreate, rapid.SampledFrom([]string{"k", "l"}).Draw(t, "token"), []byte{byte(rapid.IntRange(0, 1).Draw(t, "hash"))}
	case k == 28:
		c.Kind, c.ID = KindTokenRevoke, rapid.SampledFrom([]string{"k", "l"}).Draw(t, "token")
	default:
		c.Kind = rapid.SampledFrom([]Kind{KindNoop, KindInit, KindRecover, KindNodeRole, KindNodeDown, KindFeatureLevel}).Draw(t, "rare")
		c.Incarnation = wire.Incarnation(near(uint64(n.Incarnation)))
		c.Role = Role(rapid.IntRange(0, int(RoleRemoved)).Draw(t, "role"))
		c.Level = uint32(rapid.IntRange(1, 2).Draw(t, "level"))
		c.ClusterID = rapid.Uint64Range(1, 2).Draw(t, "cluster")
		c.Generation = m.gen + uint16(rapid.IntRange(0, 1).Draw(t, "generation"))
		c.Generation = max(c.Generation, 1)
	}
	return c
}

// TestTableIsModel applies random logs to the model, a table, and a second table that goes through a snapshot now and then.
func TestTableIsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, a, b := newModel(), NewTable(), NewTable()
		index := uint64(0)
		step := func(c *Command) {
			index++
			enc, err := Encode(c)
			if err != nil {
				t.Fatalf("encode: %v", err)
			}
			c, err = Decode(enc)
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			want, got := m.apply(index, 1, c), a.Apply(index, 1, c)
			if !same(want, got) {
				t.Fatalf("%+v\ntable: %+v\nmodel: %+v", c, got, want)
			}
			if other := b.Apply(index, 1, c); !reflect.DeepEqual(got, other) {
				t.Fatalf("%+v\ntable: %+v\nother: %+v", c, got, other)
			}
		}
		most := rapid.IntRange(3, 12).Draw(t, "most")
		m.most, a.maxHoldings, b.maxHoldings = most, most, most
		first := &Command{Kind: KindInit, ClusterID: 1, Level: rapid.SampledFrom([]uint32{0, 1, 2, 2, 2, 2}).Draw(t, "level")}
		if first.Level == 2 {
			first.Settings.OnePerClass = rapid.Bool().Draw(t, "class")
		}
		step(first)
		for i := range 3 {
			step(&Command{Kind: KindNodeJoin, Node: wire.NodeID(i + 1), Name: string(rune('x' + i))})
			step(&Command{Kind: KindNodeUp, Node: wire.NodeID(i + 1), Boot: 1})
		}
		var open *View
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 19).Draw(t, "around") {
			case 0:
				b = restored(t, b)
			case 1:
				if open == nil {
					open = a.Grab(index)
				} else {
					open.Close()
					open = nil
				}
			}
			step(drawCommand(t, m))
		}
		if diff := cmp.Diff(m.all(), routesOf(a)); diff != "" {
			t.Fatalf("routes (-model +table):\n%s", diff)
		}
		for c := range m.routes {
			want, wok := m.lookup(c)
			if got, ok := a.Lookup(c); ok != wok || got != want {
				t.Fatalf("lookup %v: %+v %v, model %+v %v", c, got, ok, want, wok)
			}
		}
		for _, topic := range topicNames {
			for _, x := range []*Table{a, b} {
				if got, want := x.Holders(topic, nil), m.holders(topic); !slices.Equal(got, want) {
					t.Fatalf("%s: held by %v, model %v", topic, got, want)
				}
			}
		}
		for _, tenant := range []string{"", "t"} {
			u := wire.ClientID{Tenant: tenant, ID: "u"}
			var got []Route
			for _, x := range a.devices(&a.stripes[stripeOf(u.Hash())], u, u.Hash(), nil) {
				if want := strings.TrimPrefix(strings.TrimPrefix(x.Client.ID, "u"), "/"); x.ID != want {
					t.Fatalf("device of %v: %q", x.Client, x.ID)
				}
				got = append(got, x.Route)
			}
			slices.SortFunc(got, func(a, b Route) int { return strings.Compare(a.Client.ID, b.Client.ID) })
			if want := m.user(tenant, "u"); !slices.Equal(got, want) {
				t.Fatalf("devices %+v, model %+v", got, want)
			}
			v := a.Grab(index)
			var listed []modelHolding
			for _, info := range v.Topics(tenant, 0, "", 10) {
				for _, h := range info.Holders {
					listed = append(listed, modelHolding{info.Topic, h})
				}
			}
			v.Close()
			want := m.holdings()
			maps.DeleteFunc(want, func(h modelHolding, _ bool) bool { return h.topic.Tenant != tenant })
			for _, h := range listed {
				if !want[h] {
					t.Fatalf("%+v is listed", h)
				}
			}
			if len(listed) != len(want) {
				t.Fatalf("listed %v, model %v", listed, want)
			}
		}
		for id, n := range m.nodes {
			if a.nodes[id] == nil || a.nodes[id].Node != n.Node {
				t.Fatalf("node %v: %+v, model %+v", id, a.nodes[id], n.Node)
			}
		}
		if len(a.nodes) != len(m.nodes) || len(a.removed) != len(m.removed) || len(a.tokens) != len(m.tokens) || a.Settings != m.settings || a.FeatureLevel != m.level {
			t.Fatalf("nodes, removed ids, tokens or settings differ")
		}
		if a.Hash() != b.Hash() || a.Hash() != restored(t, a).Hash() {
			t.Fatalf("hashes differ")
		}
		for _, x := range []*Table{a, b} {
			if err := invariants(x); err != nil {
				t.Fatal(err)
			}
		}
	})
}

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

func checkListing(t *testing.T, table *Table, limitTotal int) {
	t.Helper()
	v := table.Grab(0)
	defer v.Close()
	want, _, err := v.Routes("", limitTotal+1, nil)
	if err != nil || len(want) != limitTotal {
		t.Fatalf("%d routes, want %d, %v", len(want), limitTotal, err)
	}
	for _, limit := range []int{1, 7, 100, limitTotal} {
		var got []Route
		cursor := ""
		for {
			list, next, err := v.Routes(cursor, limit, nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, list...)
			if next == "" {
				break
			}
			if len(list) != limit {
				t.Fatalf("a page of %d routes, limit %d", len(list), limit)
			}
			cursor = next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("limit %d: %d routes, or another order", limit, len(got))
		}
		if limit == 1 && limitTotal > 1500 {
			continue
		}
	}
	for i := 1; i < len(want); i++ {
		if compareKeys(makeKey(want[i-1].Client), makeKey(want[i].Client)) >= 0 {
			t.Fatalf("routes %d and %d are out of order", i-1, i)
		}
	}
}

func TestListing(t *testing.T) {
	d := cluster(2)
	d.fill(1, 0, 1000, user)
	d.fill(2, 0, 500, device)
	checkListing(t, d.t, 1500)
	v := d.t.Grab(0)
	defer v.Close()
	list, next, err := v.Routes("", 1000, func(r Route) bool { return r.Node == 2 })
	if err != nil || next != "" || len(list) != 500 {
		t.Fatalf("%d routes of node 2, next %q, %v", len(list), next, err)
	}
	for _, bad := range []string{"?", "YQ", "AA"} {
		if _, _, err := v.Routes(bad, 1, nil); err == nil {
			t.Fatalf("cursor %q was accepted", bad)
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
