package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"imroute/mesh/wire"
)

func group(i int) wire.Topic {
	return wire.Topic{Kind: wire.TopicGroup, Name: fmt.Sprintf("group-%014d", i)}
}

func joins(from, to int) []Op {
	var ops []Op
	for i := from; i < to; i++ {
		ops = append(ops, Op{Kind: Join, Topic: group(i)})
	}
	return ops
}

// level2 is a table of that level with nodes 1 to n up.
func level2(n int) *driver {
	d := cluster(n)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	return d
}

func (d *driver) fillTopics(tb testing.TB, node wire.NodeID, from, to int) {
	tb.Helper()
	for ; from < to; from += 500 {
		for _, r := range d.batch(node, joins(from, min(from+500, to))...).Ops {
			if r.Code != OpOK {
				tb.Fatal(r)
			}
		}
	}
}

func sound(t *testing.T, table *Table) {
	t.Helper()
	if err := invariants(table); err != nil {
		t.Fatal(err)
	}
}

// Enough topics for every page operation: growing, a grab that stays as it was, an incarnation's end, reclaiming, leaving.
func TestTopicPages(t *testing.T) {
	d := level2(3)
	const n = 6000
	d.fillTopics(t, 1, 0, n)
	d.fillTopics(t, 2, n/2, n+n/2)
	sound(t, d.t)
	v := d.t.Grab(d.index)
	before := v.Hash()
	if v.Holdings() != 2*n || v.HoldingsByNode()[2] != n {
		t.Fatalf("%d holdings, %v", v.Holdings(), v.HoldingsByNode())
	}
	d.do(&Command{Kind: KindNodeDown, Node: 1, Incarnation: 1})
	s := d.t.stats()
	if s.Holdings != n || s.VoidHoldings < n/2 {
		t.Fatalf("right after the end: %+v", s)
	}
	if got := d.t.Holders(group(n/2), nil); !slices.Equal(got, []Holder{{2, 1}}) {
		t.Fatalf("held by %v", got)
	}
	if got := d.t.Holders(group(0), nil); len(got) != 0 {
		t.Fatalf("held by %v", got)
	}
	hash := d.t.Hash()
	if hash != restored(t, d.t).Hash() {
		t.Fatal("hash after a snapshot differs")
	}
	d.fillTopics(t, 3, 0, 500)
	for i := range 500 {
		d.batch(3, Op{Kind: Leave, Topic: group(i)})
	}
	slices := 0
	for ; d.t.stats().VoidHoldings > 0; slices++ {
		if slices > 2000 {
			t.Fatalf("still void: %+v", d.t.stats())
		}
		d.do(&Command{Kind: KindNoop})
	}
	sound(t, d.t)
	if d.t.Holders(group(0), nil) != nil || d.t.stats().Topics != n {
		t.Fatalf("%+v", d.t.stats())
	}
	if len(d.t.owners.free) != 1 {
		t.Fatalf("the ordinal is not free: %+v", d.t.owners)
	}
	if v.Hash() != before || v.Holdings() != 2*n || !equalHolders(v.Holders(group(n/2), nil), Holder{1, 1}, Holder{2, 1}) {
		t.Fatal("the grab changed")
	}
	v.Close()
	full := d.t.stats().TopicBytes
	for i := n / 2; i < n+n/2; i += 500 {
		ops := joins(i, i+500)
		for j := range ops {
			ops[j].Kind = Leave
		}
		d.batch(2, ops...)
	}
	sound(t, d.t)
	if s := d.t.stats(); s.Holdings != 0 || s.Topics != 0 || s.TopicBytes*2 > full {
		t.Fatalf("when all have left: %+v, %d bytes before", s, full)
	}
}

// A batch under a number that was used for other topics is another batch, not a copy.
func TestBatchesOfTopicsDiffer(t *testing.T) {
	topic := wire.Topic{Tenant: "t", Kind: wire.TopicGroup, Name: "g"}
	for _, other := range []Op{
		{Kind: Leave, Topic: topic},
		{Kind: Join, Topic: wire.Topic{Tenant: "u", Kind: wire.TopicGroup, Name: "g"}},
		{Kind: Join, Topic: wire.Topic{Tenant: "t", Kind: wire.TopicService, Name: "g"}},
		{Kind: Join, Topic: wire.Topic{Tenant: "t", Kind: wire.TopicGroup, Name: "h"}},
	} {
		d := level2(1)
		first := d.batch(1, Op{Kind: Join, Topic: topic})
		c := &Command{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{{Kind: Join, Topic: topic}}}
		if r := d.do(c); !same(r, first) {
			t.Errorf("a copy is answered %+v", r)
		}
		c.Ops = []Op{other}
		if r := d.do(c); r.Code != wire.Refused {
			t.Errorf("%s %s instead: %+v", other.Kind, other.Topic, r)
		}
	}
}

func equalHolders(got []Holder, want ...Holder) bool { return slices.Equal(got, want) }

// Reclaiming goes on in bounded slices.
func TestTopicsAreReclaimedInSlices(t *testing.T) {
	d := level2(2)
	d.fillTopics(t, 1, 0, 8000)
	d.do(&Command{Kind: KindNodeDown, Node: 1, Incarnation: 1})
	hash, n := d.t.Hash(), 0
	for ; d.t.stats().VoidHoldings > 0; n++ {
		before := d.t.stats().VoidHoldings
		d.do(&Command{Kind: KindNoop})
		if gone := before - d.t.stats().VoidHoldings; gone > reclaimPages*maxPage/rowHeader || n > 1000 {
			t.Fatalf("%d taken back at once, after %d entries", gone, n)
		}
	}
	if n < 10 || d.t.Hash() != hash {
		t.Fatalf("%d slices, or another hash", n)
	}
	sound(t, d.t)
}

// More incarnations than a row has bits for: the topic lies in several rows, and is one to everybody who asks.
func TestTopicOfManyNodes(t *testing.T) {
	const nodes = 500
	d := level2(nodes)
	var want []Holder
	for id := wire.NodeID(nodes); id > 0; id-- {
		d.batch(id, Op{Kind: Join, Topic: group(1)}, Op{Kind: Join, Topic: group(int(id))})
	}
	for id := wire.NodeID(1); id <= nodes; id++ {
		if id%3 == 0 {
			d.batch(id, Op{Kind: Leave, Topic: group(1)}, Op{Kind: Leave, Topic: group(1)})
			continue
		}
		want = append(want, Holder{id, 1})
	}
	sound(t, d.t)
	u := restored(t, d.t)
	sound(t, u)
	if !slices.Equal(d.t.Holders(group(1), nil), want) || !slices.Equal(u.Holders(group(1), nil), want) || u.Hash() != d.t.Hash() {
		t.Fatal("other holders, or another hash")
	}
	v := d.t.Grab(0)
	list := v.Topics("", wire.TopicGroup, "", 1)
	v.Close()
	if len(list) != 1 || list[0].Topic != group(1) || !slices.Equal(list[0].Holders, want) {
		t.Fatalf("listed: %+v", list)
	}
	d.do(&Command{Kind: KindRecover, Generation: 1})
	if len(d.t.Holders(group(1), nil)) != 0 || d.t.stats().Holdings != 0 {
		t.Fatal("held after a recovery")
	}
}

func TestTopicLimit(t *testing.T) {
	d := level2(2)
	d.t.maxHoldings = 10
	r := d.batch(1, joins(0, 12)...)
	for i, o := range r.Ops {
		if want := map[bool]OpCode{true: OpOK, false: OpOverloaded}[i < 10]; o.Code != want {
			t.Fatalf("join %d: %s", i, o.Code)
		}
	}
	if r.Code != wire.OK || r.Index != d.index {
		t.Fatalf("%+v", r)
	}
	if r := d.batch(1, joins(9, 10)...); r.Ops[0].Code != OpOK {
		t.Fatal("who holds it already is refused")
	}
	d.batch(1, Op{Kind: Leave, Topic: group(3)})
	if r := d.batch(2, joins(9, 11)...); r.Ops[0].Code != OpOK || r.Ops[1].Code != OpOverloaded {
		t.Fatalf("%+v", r)
	}
	// What an incarnation held that ended does not count, whether its memory was taken back or not.
	d.do(&Command{Kind: KindNodeUp, Node: 1, Boot: 2})
	u := restored(t, d.t)
	for _, x := range []*Table{d.t, u} {
		r := x.Apply(100, 1, &Command{Kind: KindBatch, Node: 1, Incarnation: 2, Seq: 1, Ops: joins(20, 30)})
		if r.Ops[8].Code != OpOK || r.Ops[9].Code != OpOverloaded {
			t.Fatalf("%+v", r.Ops)
		}
	}
	if d.t.Hash() != u.Hash() {
		t.Fatal("hashes differ")
	}
}

// Topics comes in pages whose order is that of the names.
func TestTopicListing(t *testing.T) {
	d := level2(2)
	d.fillTopics(t, 1, 0, 1000)
	d.fillTopics(t, 2, 500, 700)
	d.batch(1, Op{Kind: Join, Topic: wire.Topic{Tenant: "other", Kind: wire.TopicGroup, Name: "a"}})
	for i := 0; i < 1000; i += 3 {
		d.batch(2, Op{Kind: Join, Topic: wire.Topic{Kind: wire.TopicService, Name: group(i).Name}})
	}
	v := d.t.Grab(0)
	defer v.Close()
	for _, limit := range []int{1, 7, 100, 5000} {
		for _, kind := range []wire.TopicKind{0, wire.TopicGroup, wire.TopicService} {
			var got []wire.Topic
			after := ""
			for {
				page := v.Topics("", kind, after, limit)
				if len(page) == 0 {
					break
				}
				if len(page) > limit+1 || kind != 0 && len(page) > limit {
					t.Fatalf("%d at once, limit %d", len(page), limit)
				}
				for _, x := range page {
					got = append(got, x.Topic)
					if len(x.Holders) == 0 {
						t.Fatalf("%s is held by nobody", x.Topic)
					}
				}
				after = page[len(page)-1].Topic.Name
			}
			want := map[wire.TopicKind]int{0: 1334, wire.TopicGroup: 1000, wire.TopicService: 334}[kind]
			if len(got) != want || !slices.IsSortedFunc(got, compareTopics) || len(slices.Compact(got)) != want {
				t.Fatalf("limit %d, kind %d: %d topics, want %d, or out of order", limit, kind, len(got), want)
			}
		}
	}
	if len(v.Topics("", 0, "", 0)) != 0 || len(v.Topics("nobody", 0, "", 10)) != 0 {
		t.Fatal("topics from nowhere")
	}
}

func TestHoldersDoesNotAllocate(t *testing.T) {
	d := newFSM(t, 3)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	topic := wire.Topic{Tenant: "acme", Kind: wire.TopicGroup, Name: "lobby"}
	for id := wire.NodeID(1); id <= 3; id++ {
		d.batch(id, Op{Kind: Join, Topic: topic})
	}
	buf := make([]Holder, 0, 3)
	if n := testing.AllocsPerRun(100, func() {
		if buf = d.f.Holders(topic, buf[:0]); len(buf) != 3 {
			t.Fatal(buf)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	// Names that nobody could have joined are held by nobody.
	for _, x := range []wire.Topic{{}, {Kind: wire.TopicGroup}, {Kind: wire.TopicGroup, Name: "lobby", Tenant: string(make([]byte, 300))}} {
		if got := d.f.Holders(x, nil); got != nil {
			t.Fatalf("%+v: %v", x, got)
		}
	}
}

// Whoever reads while others apply sees a topic as it was at some time: node 1 holds it always, 2 comes and goes.
func TestTopicReadersAndWriter(t *testing.T) {
	d := newFSM(t, 2)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	d.batch(1, joins(0, 100)...)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var buf []Holder
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if buf = d.f.Holders(group(i%100), buf[:0]); len(buf) == 0 || buf[0].Node != 1 || len(buf) > 2 {
					t.Errorf("held by %v", buf)
					return
				}
				if i%50 == 0 {
					if list := d.f.Topics("", wire.TopicGroup, "", 5); len(list) != 5 {
						t.Errorf("%d listed", len(list))
						return
					}
				}
			}
		})
	}
	for i := range 60 {
		if i%20 == 19 {
			d.up(2, wire.Boot(i))
			continue
		}
		d.batch(2, joins(0, 100)...)
		d.batch(2, Op{Kind: Leave, Topic: group(i)}, Op{Kind: Join, Topic: group(1000 + i)})
	}
	close(stop)
	readers.Wait()
	sound(t, d.f.table)
}

// A cluster of level 1 has no topics, and its snapshots are of the version that older programs read.
func TestSnapshotVersions(t *testing.T) {
	d := cluster(1)
	if r := d.batch(1, joins(0, 1)...); r.Code != wire.BadRequest || d.t.stats().Holdings != 0 {
		t.Fatalf("%+v", r)
	}
	version := func(b []byte) uint16 { return binary.BigEndian.Uint16(b[len(snapshotMagic):]) }
	if b := written(t, d.t); version(b) != versionNoTopics {
		t.Fatalf("version %d at level 1", version(b))
	}
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	d.batch(1, joins(0, 3)...)
	b := written(t, d.t)
	if version(b) != snapshotVersion {
		t.Fatalf("version %d at level 2", version(b))
	}
	old := slices.Clone(b)
	binary.BigEndian.PutUint16(old[len(snapshotMagic):], versionNoTopics)
	newer := slices.Clone(b)
	binary.BigEndian.PutUint16(newer[len(snapshotMagic):], snapshotVersion+1)
	for _, c := range []struct {
		b    []byte
		want error
	}{{resealed(old), ErrSnapshotDamaged}, {newer, ErrSnapshotVersion}, {b, nil}} {
		if _, _, err := ReadSnapshot(bytes.NewReader(c.b), 0); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	// Topics of a snapshot that claims what cannot be.
	at := chunks(b)
	for i := range len(at) - 1 {
		if b[at[i]] != chunkTopics {
			continue
		}
		for off := range 4 + len(group(0).Name) + 4 {
			c := slices.Clone(b)
			c[at[i]+5+off] ^= 0x40
			u, _, err := ReadSnapshot(bytes.NewReader(resealed(c)), 0)
			if name := off >= 4 && off < 4+len(group(0).Name); name && err == nil {
				sound(t, u)
			} else if !errors.Is(err, ErrSnapshotDamaged) && !name {
				t.Errorf("byte %d of a topic changed: %v", off, err)
			}
		}
		return
	}
	t.Fatal("no topics in it")
}
