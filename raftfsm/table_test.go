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
