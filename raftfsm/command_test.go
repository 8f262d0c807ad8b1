package raftfsm

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

func sampleCommands() []*Command {
	return []*Command{
		{Kind: KindInit, ClusterID: 1, CACert: []byte("x"), Settings: Settings{Duplicate: DuplicateReject, Voters: 5}},
		{Kind: KindNoop},
		{Kind: KindNodeJoin, Node: 1, Name: "n1", Addrs: wire.Addrs{Mesh: "a:1", Admin: "b:1"}, Version: "v1"},
		{Kind: KindNodeUp, Node: 1, Boot: 3},
		{Kind: KindNodeExpire, Node: 1, Incarnation: 2, Term: 7},
		{Kind: KindNodeDrain, Node: 1, Cancel: true},
		{Kind: KindNodeRemove, Node: 1, By: 2},
		{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{
			{Kind: Register, Client: wire.ClientID{Tenant: "t", ID: "u/d"}, Session: wire.SessionID{Instance: 1, Attempt: 2}, Fenced: 9},
			{Kind: Unregister, Client: wire.ClientID{ID: "u"}, Epoch: 8},
		}},
		{Kind: KindTokenCreate, ID: "k", Hash: []byte{1}, ExpiresUnix: 5},
		{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{
			{Kind: Join, Topic: wire.Topic{Tenant: "t", Kind: wire.TopicGroup, Name: "g/1"}},
			{Kind: Leave, Topic: wire.Topic{Kind: wire.TopicService, Name: "s"}},
			{Kind: Unregister, Client: wire.ClientID{ID: "u"}, Epoch: 8},
		}},
		{Kind: KindInit, ClusterID: 1, Level: 2, Settings: Settings{OnePerClass: true}},
		{Kind: KindSetSettings, Settings: Settings{OnePerClass: true, Voters: 3}},
		{Kind: KindTokenRevoke, ID: "k"},
		{Kind: KindSetSettings, Settings: Settings{Voters: 3}},
		{Kind: KindFeatureLevel, Level: 1},
		{Kind: KindRecover, Generation: 2},
	}
}

func TestCommandRoundTrip(t *testing.T) {
	for _, c := range sampleCommands() {
		b, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v became %+v, %v", c, got, err)
		}
		level, want := uint32(b[1])<<8|uint32(b[2]), got.needs()
		if err := got.Check(level); err != nil || level != want {
			t.Fatalf("level %d, needs %d: %v", level, want, err)
		}
		if _, err := decode(b, level-1); !errors.Is(err, ErrTooNew) {
			t.Fatalf("%s of level %d, read by a program that knows less: %v", c.Kind, level, err)
		}
		if c.Kind != KindInit && level > BaseFeatureLevel {
			if err := got.Check(level - 1); err == nil || !strings.Contains(err.Error(), "cluster upgrade") {
				t.Fatalf("%s of level %d below it: %v", c.Kind, level, err)
			}
		}
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				if _, err := Decode(b); err == nil {
					t.Fatalf("%s: bit %d of byte %d flipped, not noticed", c.Kind, bit, i)
				}
				b[i] ^= 1 << bit
			}
			if _, err := Decode(b[:i]); err == nil {
				t.Fatalf("%s: cut to %d bytes, not noticed", c.Kind, i)
			}
		}
	}
}

func TestDecodeTooNew(t *testing.T) {
	b, _ := Encode(&Command{Kind: KindNoop})
	binary.BigEndian.PutUint16(b[1:], uint16(MaxFeatureLevel+1))
	binary.BigEndian.PutUint32(b[3:], commandCRC(b))
	for _, b := range [][]byte{b, append([]byte{commandVersion + 1}, b[1:]...)} {
		if _, err := Decode(b); !errors.Is(err, ErrTooNew) {
			t.Fatal(err)
		}
	}
	for _, c := range []*Command{
		{Kind: 200},
		{Kind: KindFeatureLevel, Level: MaxFeatureLevel + 1},
		{Kind: KindSetSettings, Settings: Settings{Duplicate: 9}},
		{Kind: KindInit, ClusterID: 1, Level: MaxFeatureLevel + 1},
		{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{{Kind: 9, Client: wire.ClientID{ID: "a"}}}},
		{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{{Kind: Join, Topic: wire.Topic{Kind: 3, Name: "a"}}}},
	} {
		b, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, ErrTooNew) {
			t.Fatalf("%+v: %v", c, err)
		}
	}
}

func TestCheck(t *testing.T) {
	batch := func(f func(*Command)) *Command {
		c := &Command{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: 1, Ops: []Op{reg("a")}}
		f(c)
		return c
	}
	for _, c := range []struct {
		c    *Command
		want string
	}{
		{&Command{}, "kind"},
		{&Command{Kind: KindInit}, "cluster id"},
		{&Command{Kind: KindInit, ClusterID: 1, Settings: Settings{Voters: 4}}, "voters"},
		{&Command{Kind: KindNodeJoin, Name: "a"}, "node id"},
		{&Command{Kind: KindNodeJoin, Node: 1, Name: "a b"}, "name"},
		{&Command{Kind: KindNodeJoin, Node: 1, Name: "a", Addrs: wire.Addrs{Mesh: strings.Repeat("x", 300)}}, "address"},
		{&Command{Kind: KindNodeUp, Node: 1}, "boot"},
		{&Command{Kind: KindNodeExpire, Node: 1, Incarnation: 1}, "term"},
		{batch(func(c *Command) { c.Seq = 0 }), "sequence"},
		{batch(func(c *Command) { c.Ops = nil }), "ops"},
		{batch(func(c *Command) { c.Ops = make([]Op, MaxOps+1) }), ""},
		{batch(func(c *Command) { c.Ops[0].Client.ID = "a*" }), "'*'"},
		{batch(func(c *Command) { c.Ops[0].Client.ID = strings.Repeat("x", 256) }), "256"},
		{batch(func(c *Command) { c.Ops[0].Topic = wire.Topic{Kind: wire.TopicGroup, Name: "g"} }), "no topic"},
		{batch(func(c *Command) { c.Ops[0].Kind = Join }), "no client"},
		{batch(func(c *Command) { c.Ops[0] = Op{Kind: Leave, Topic: wire.Topic{Name: "g"}} }), "want 1 to 255"},
		{batch(func(c *Command) { c.Ops[0] = Op{Kind: Join, Topic: wire.Topic{Kind: wire.TopicGroup}} }), "want 1 to 255"},
		{batch(func(c *Command) {
			c.Ops[0] = Op{Kind: Join, Topic: wire.Topic{Kind: wire.TopicGroup, Name: strings.Repeat("x", 256)}}
		}), "256"},
		{batch(func(c *Command) { c.Ops[0] = Op{Kind: Join, Topic: wire.Topic{Kind: wire.TopicGroup, Name: "a*"}} }), "'*'"},
		{&Command{Kind: KindInit, ClusterID: 1, Settings: Settings{OnePerClass: true}}, "feature level"},
		{&Command{Kind: KindTokenCreate, ID: "k"}, "hash"},
		{&Command{Kind: KindTokenRevoke}, "token id"},
		{&Command{Kind: KindFeatureLevel}, "feature level"},
		{&Command{Kind: KindRecover}, "generation"},
	} {
		if err := c.c.Check(MaxFeatureLevel); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want something about %q", c.c, err, c.want)
		}
		// The table stays whole whatever a faulty leader proposes.
		d := cluster(1)
		before := d.t.Hash()
		if c.c.Kind != 0 && c.want != "'*'" {
			if r := d.do(c.c); r.Code == wire.OK || d.t.Hash() != before {
				t.Errorf("%+v was applied: %+v", c.c, r)
			}
		}
	}
	if err := (&Command{Kind: KindNoop}).Check(0); err == nil {
		t.Error("a command above the agreed level passed")
	}
}

func TestResultRoundTrip(t *testing.T) {
	d := cluster(2)
	d.batch(1, reg("a"))
	for _, r := range []Result{d.batch(2, reg("a"), reg("b")), d.do(&Command{Kind: KindNodeUp, Node: 2, Boot: 1}), d.do(&Command{Kind: KindNodeUp, Node: 7, Boot: 1})} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeResult(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v became %+v, %v", r, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range sampleCommands() {
		b, _ := Encode(c)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := append([]byte(nil), b...)
		if len(sealed) > commandHeader {
			binary.BigEndian.PutUint32(sealed[3:], commandCRC(sealed))
		}
		for _, b := range [][]byte{b, sealed} {
			c, err := Decode(b)
			if err != nil {
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrTooNew) {
					t.Fatalf("neither damaged nor too new: %v", err)
				}
				continue
			}
			_ = c.Check(BaseFeatureLevel)
			for _, level := range []uint32{BaseFeatureLevel, MaxFeatureLevel} {
				d := cluster(1) // whatever can be read can be applied
				d.do(&Command{Kind: KindFeatureLevel, Level: level})
				d.do(c)
				if err := invariants(d.t); err != nil {
					t.Fatal(err)
				}
			}
			again, err := Encode(c)
			if err != nil {
				continue // canonical form may be longer than the limit
			}
			if e, err := Decode(again); err != nil || !reflect.DeepEqual(c, e) {
				t.Fatalf("%+v became %+v, %v", c, e, err)
			}
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	b, _ := Result{Code: wire.OK, Index: 3, Ops: []OpResult{{Code: OpHeld, Epoch: 4}}}.Encode()
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = DecodeResult(b) })
}
