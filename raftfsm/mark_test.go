package raftfsm

import (
	"testing"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

func TestMarkedEntryKeepsTheTable(t *testing.T) {
	var f [2]*FSM
	for i := range f {
		f[i] = NewFSM(FSMConfig{Fatal: func(err error) { t.Error(err) }})
	}
	index := uint64(0)
	apply := func(c *Command) {
		t.Helper()
		index++
		b, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f {
			f[i].Apply(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: b})
		}
	}
	register := func(seq uint64, id string) {
		t.Helper()
		apply(&Command{Kind: KindBatch, Node: 1, Incarnation: 1, Seq: seq, Ops: []Op{{
			Kind: Register, Client: wire.ClientID{ID: id}, Session: wire.SessionID{Instance: 1, Attempt: 1},
		}}})
	}
	apply(&Command{Kind: KindInit, ClusterID: 1})
	apply(&Command{Kind: KindNodeJoin, Node: 1, Name: "n1"})
	apply(&Command{Kind: KindNodeUp, Node: 1, Boot: 1})
	register(1, "alice")
	apply(&Command{Kind: KindNoop, Mark: true})
	marked := index
	register(2, "bob")

	var sums [2]uint64
	for i := range f {
		if f[i].TakeMark(marked+1) != nil || f[i].TakeMark(marked-1) != nil {
			t.Fatal("a table was kept at an entry that was not marked")
		}
		v := f[i].TakeMark(marked)
		if v == nil {
			t.Fatal("the table was not kept")
		}
		if v.Count() != 1 {
			t.Fatalf("%d routes at the mark, want 1", v.Count())
		}
		sums[i] = v.Hash()
		v.Close()
		if f[i].TakeMark(marked) != nil {
			t.Fatal("the mark was taken twice")
		}
	}
	if now := f[0].Grab(); sums[0] != sums[1] || sums[0] == now.Hash() {
		t.Fatalf("hashes %x and %x at the mark, %x now", sums[0], sums[1], now.Hash())
	}
}
