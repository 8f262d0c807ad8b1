package raftfsm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"testing"

	"imroute/mesh/wire"
)

// richTable has something of everything a snapshot holds.
func richTable(routes int) *Table {
	d := cluster(3)
	d.do(&Command{Kind: KindNodeJoin, Node: 9, Name: "gone"})
	d.do(&Command{Kind: KindNodeRemove, Node: 9})
	d.do(&Command{Kind: KindTokenCreate, ID: "k", Hash: []byte("hash"), ExpiresUnix: 12})
	d.do(&Command{Kind: KindSetSettings, Settings: Settings{Duplicate: DuplicateReject, Voters: 5}})
	d.do(&Command{Kind: KindNodeDrain, Node: 2})
	d.fill(1, 0, routes, user)
	d.fill(2, 0, routes/4, device)
	d.fill(3, routes, routes+routes/2, user)
	d.do(&Command{Kind: KindNodeExpire, Node: 3, Incarnation: 1, Term: 1})
	return d.t
}

// richTopics is richTable with topics of every sort.
func richTopics(routes int) *Table {
	t := richTable(routes)
	t.Apply(900, 1, &Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	for _, m := range t.sorted() {
		if m.State == Down {
			continue
		}
		var ops []Op
		for i := range routes/4 + 1 {
			ops = append(ops, Op{Kind: Join, Topic: wire.Topic{Kind: wire.TopicGroup, Name: user(i * int(m.ID))}})
		}
		ops = append(ops, Op{Kind: Join, Topic: wire.Topic{Tenant: "t", Kind: wire.TopicService, Name: "s"}})
		t.Apply(900+uint64(m.ID), 1, &Command{Kind: KindBatch, Node: m.ID, Incarnation: m.Incarnation, Seq: m.batch.Seq + 1, Ops: ops})
	}
	return t
}

func written(tb testing.TB, t *Table) []byte {
	v := t.Grab(42)
	defer v.Close()
	var buf bytes.Buffer
	if err := v.WriteSnapshot(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// chunks returns where each chunk begins and, last, where the snapshot ends.
func chunks(b []byte) []int {
	at := len(snapshotMagic) + 2
	list := []int{at}
	for at < len(b) {
		at += 5 + int(binary.BigEndian.Uint32(b[at+1:])) + 4
		list = append(list, at)
	}
	return list
}

// resealed makes all checksums right again.
func resealed(b []byte) []byte {
	b = slices.Clone(b)
	at := chunks(b)
	crc := crc32.Checksum(b[:at[0]], castagnoli)
	for i := range len(at) - 1 {
		crc = crc32.Update(crc, castagnoli, b[at[i]:at[i+1]-4])
		binary.BigEndian.PutUint32(b[at[i+1]-4:], crc)
	}
	return b
}

func TestSnapshotRoundTrip(t *testing.T) {
	a := richTopics(3800)
	b := written(t, a)
	if n := len(chunks(b)); n < 8 {
		t.Fatalf("only %d chunks", n)
	}
	u, index, err := ReadSnapshot(bytes.NewReader(b), 1)
	if err != nil || index != 42 {
		t.Fatalf("index %d, %v", index, err)
	}
	if a.Hash() != u.Hash() {
		t.Fatal("hash differs")
	}
	if err := invariants(u); err != nil {
		t.Fatal(err)
	}
	if u.stats().Void != 0 || u.Generation != 0 || u.Epochs != a.Epochs || !u.nodes[2].Drain || u.tokens["k"].ExpiresUnix != 12 || u.removed[9] == 0 {
		t.Fatalf("%+v %+v", u.meta, u.stats())
	}
	// Both go on alike.
	for _, c := range []*Command{
		{Kind: KindNodeUp, Node: 3, Boot: 2},
		{Kind: KindBatch, Node: 3, Incarnation: 2, Seq: 1, Ops: []Op{reg(user(5)), reg("new")}},
	} {
		if x, y := a.Apply(100, 1, c), u.Apply(100, 1, c); !same(x, y) {
			t.Fatalf("%+v and %+v", x, y)
		}
	}
	if a.Hash() != u.Hash() {
		t.Fatal("hash differs later")
	}
}

func TestSnapshotHashSeesEverything(t *testing.T) {
	seen := map[uint64]int{richTopics(100).Hash(): -1}
	batch := func(node wire.NodeID, op OpKind, topic wire.Topic) *Command {
		seq := richTopics(100).nodes[node].batch.Seq + 1
		return &Command{Kind: KindBatch, Node: node, Incarnation: 1, Seq: seq, Ops: []Op{{Kind: op, Topic: topic}}}
	}
	changes := []*Command{
		{Kind: KindNodeUp, Node: 1, Boot: 2},
		{Kind: KindNodeDrain, Node: 3},
		{Kind: KindTokenRevoke, ID: "k"},
		{Kind: KindSetSettings, Settings: Settings{Voters: 3}},
		{Kind: KindNodeRemove, Node: 3},
		{Kind: KindRecover, Generation: 1},
		{Kind: KindNodeJoin, Node: 1, Name: "n1", Addrs: wire.Addrs{Admin: "a"}},
		batch(1, Join, group(1)),
		batch(1, Join, group(2)),
		batch(2, Join, group(1)),
		batch(1, Leave, wire.Topic{Tenant: "t", Kind: wire.TopicService, Name: "s"}),
		batch(1, Join, wire.Topic{Tenant: "t", Kind: wire.TopicGroup, Name: "s"}),
		batch(1, Join, wire.Topic{Kind: wire.TopicService, Name: "s"}),
	}
	for i, c := range changes {
		x := richTopics(100)
		x.Apply(1000, 1, c)
		h := x.Hash()
		if j, ok := seen[h]; ok {
			t.Errorf("changes %d and %d have the same hash", i, j)
		}
		seen[h] = i
	}
}

func TestSnapshotRefusesDamage(t *testing.T) {
	b := written(t, richTopics(300))
	at := chunks(b)
	check := func(what string, b []byte, want error) {
		t.Helper()
		if _, _, err := ReadSnapshot(bytes.NewReader(b), 1); !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	if _, _, err := ReadSnapshot(bytes.NewReader(resealed(b)), 1); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n += 1 + n/200 {
		check("truncated", b[:n], ErrSnapshotDamaged)
	}
	for _, n := range at[:len(at)-1] {
		check("truncated between chunks", b[:n], ErrSnapshotDamaged)
	}
	check("longer", append(slices.Clone(b), 0), ErrSnapshotDamaged)
	flip := func(i int, bit byte) []byte {
		c := slices.Clone(b)
		c[i] ^= bit
		return c
	}
	for i := range len(at) - 1 {
		for _, pos := range []int{at[i], at[i] + 1, at[i] + 3, at[i] + 4, at[i] + 5, (at[i] + at[i+1]) / 2, at[i+1] - 5, at[i+1] - 1} {
			check("bit flipped", flip(pos, 1), ErrSnapshotDamaged)
			check("bit flipped", flip(pos, 0x80), ErrSnapshotDamaged)
		}
	}
	check("magic", flip(0, 1), ErrSnapshotDamaged)
	check("version", flip(len(snapshotMagic)+1, 2), ErrSnapshotVersion)

	// A chunk lost, repeated or exchanged with its neighbour: as it is, and with checksums that are right again.
	for i := 1; i < len(at)-2; i++ {
		lost := append(slices.Clone(b[:at[i]]), b[at[i+1]:]...)
		twice := append(slices.Clone(b[:at[i+1]]), b[at[i]:]...)
		for _, c := range [][]byte{lost, twice} {
			check("chunk lost or repeated", c, ErrSnapshotDamaged)
			check("chunk lost or repeated, resealed", resealed(c), ErrSnapshotDamaged)
		}
	}
	if _, _, err := ReadSnapshot(bytes.NewReader(b), 2); !errors.Is(err, ErrSnapshotForeign) {
		t.Fatalf("another cluster: %v", err)
	}
}

// syncer counts what is written between two flushes.
type syncer struct {
	since, most, syncs int
}

func (s *syncer) Write(b []byte) (int, error) {
	s.since += len(b)
	s.most = max(s.most, s.since)
	return len(b), nil
}

func (s *syncer) Sync() error {
	s.since = 0
	s.syncs++
	return nil
}

func TestSnapshotIsFlushedInPieces(t *testing.T) {
	w := new(syncer)
	cw := &chunkWriter{w: w}
	if err := cw.begin(snapshotVersion); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := cw.chunk(chunkRoutes, make([]byte, routesChunk)); err != nil {
			t.Fatal(err)
		}
	}
	if w.syncs < 4 || w.most > syncEvery+maxChunk {
		t.Fatalf("%d flushes, up to %d bytes between them", w.syncs, w.most)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	empty := NewTable()
	f.Add(written(f, empty))
	f.Add(written(f, richTable(20)))
	f.Add(written(f, richTopics(20)))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealedForFuzz(b)} {
			u, index, err := ReadSnapshot(bytes.NewReader(b), 0)
			if err != nil {
				if !errors.Is(err, ErrSnapshotDamaged) && !errors.Is(err, ErrSnapshotVersion) {
					t.Fatalf("neither damaged nor too new: %v", err)
				}
				continue
			}
			if err := invariants(u); err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			v := u.Grab(index)
			if err := v.WriteSnapshot(&again); err != nil {
				t.Fatal(err)
			}
			v.Close()
			w, _, err := ReadSnapshot(&again, 0)
			if err != nil || w.Hash() != u.Hash() {
				t.Fatalf("what was read cannot be written and read again: %v", err)
			}
		}
	})
}

// sealedForFuzz puts right checksums wherever there are chunks, so that fuzzing gets behind them.
func sealedForFuzz(b []byte) []byte {
	b = slices.Clone(b)
	at := len(snapshotMagic) + 2
	if len(b) < at {
		return b
	}
	crc := crc32.Checksum(b[:at], castagnoli)
	for len(b)-at >= 9 {
		n := int64(binary.BigEndian.Uint32(b[at+1:]))
		if int64(len(b)-at-9) < n {
			break
		}
		end := at + 5 + int(n)
		crc = crc32.Update(crc, castagnoli, b[at:end])
		binary.BigEndian.PutUint32(b[end:], crc)
		at = end + 4
	}
	return b
}

// TestRowsInOrder: a snapshot's rows come in the order of their keys. A directory that was told how many they are spreads them
// like rows that come in any order, instead of piling them up where they are searched for from end to end.
func TestRowsInOrder(t *testing.T) {
	const rows = 16_000
	var keys []key
	for i := 0; len(keys) < rows; i++ {
		if k := makeKey(wire.ClientID{ID: "user-" + strconv.Itoa(i)}); stripeOf(k.h) == 5 {
			keys = append(keys, k)
		}
	}
	fill := func(expect int) (s *stripe, w *writer) {
		w = new(writer)
		s = &stripe{root: newDir(w)}
		s.root.expect = expect
		for _, k := range keys {
			s.insert(w, k, rowValue{})
		}
		return s, w
	}
	_, w := fill(0)
	slices.SortFunc(keys, func(a, b key) int { return cmp.Compare(rootKey(a.h), rootKey(b.h)) })
	if s, _ := fill(0); s.misc == nil {
		t.Error("the order does not matter any more: this test shows nothing")
	}
	s, sorted := fill(expectedPages(rows))
	if s.misc != nil || len(s.root.extra) > 0 || s.root.rows != rows {
		t.Errorf("%d of %d rows lie where they should", s.root.rows, rows)
	}
	if sorted.bytes > w.bytes*5/4 {
		t.Errorf("%d bytes, in any order %d", sorted.bytes, w.bytes)
	}
	for _, k := range keys {
		if _, ok := s.find(k); !ok {
			t.Fatalf("%s is missing", k.ClientID)
		}
	}
}

// TestRestoreExpects: the reader tells the directories what comes, and takes it back behind the last row.
func TestRestoreExpects(t *testing.T) {
	sr := &snapshotReader{t: NewTable()}
	sr.expect(64_000, 32_000)
	if got := sr.t.stripes[9].root.expect; got != expectedPages(1000) || got < 1000/70 {
		t.Errorf("%d pages expected", got)
	}
	if got := sr.t.topics.stripes[9].expect; got != expectedPages(500) {
		t.Errorf("%d pages of topics expected", got)
	}
	for _, n := range []int{-1, math.MaxInt} {
		sr.expect(n, n)
		if got := sr.t.stripes[0].root.expect; got < 0 || got > maxExpected {
			t.Errorf("%d pages expected of %d", got, n)
		}
	}
	got, _, err := ReadSnapshot(bytes.NewReader(written(t, richTopics(1000))), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.stripes {
		if got.stripes[i].root.expect+got.topics.stripes[i].expect > 0 {
			t.Fatal("pages are still expected")
		}
	}
}
