package raftfsm

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
)

// What a program of level 1 wrote, into its log and into a snapshot, is read as it was meant, and commands are written byte for byte alike:
// the nodes of a mixed cluster read each other's.
func TestLevel1Data(t *testing.T) {
	log, err := os.ReadFile("testdata/level1.log.txt")
	if err != nil {
		t.Fatal(err)
	}
	var want []*Command // the samples of that time
	for _, c := range sampleCommands() {
		if c.needs() == BaseFeatureLevel {
			want = append(want, c)
		}
	}
	lines := strings.Fields(string(log))
	if len(lines) != 2*len(want) {
		t.Fatalf("%d entries, want %d", len(lines)/2, len(want))
	}
	for i, c := range want {
		b, err := hex.DecodeString(lines[2*i+1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b, BaseFeatureLevel)
		if err != nil || !reflect.DeepEqual(got, c) || got.Kind.String() != lines[2*i] {
			t.Errorf("%s: %+v, %v", c.Kind, got, err)
		}
		if again, err := Encode(c); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s is written as %x, %v", c.Kind, again, err)
		}
		if c.Kind == KindBatch {
			if d := digestOps(c.Ops); d != 0x08caaeb79c552458 {
				t.Errorf("the batch's digest is %016x", d)
			}
		}
	}
	snapshot, err := os.ReadFile("testdata/level1.snap")
	if err != nil {
		t.Fatal(err)
	}
	table, index, err := readSnapshot(bytes.NewReader(snapshot), 1, BaseFeatureLevel)
	if err != nil || index != 42 {
		t.Fatalf("index %d, %v", index, err)
	}
	if h := table.Hash(); h != 0x6cd442251e8f4f96 {
		t.Errorf("its hash is %016x", h)
	}
	if err := invariants(table); err != nil {
		t.Error(err)
	}
	if h := richTable(40).Hash(); h != 0x6cd442251e8f4f96 {
		t.Errorf("the same entries lead to the hash %016x", h)
	}
	if n := len(written(t, table)); n != len(snapshot) {
		t.Errorf("written again it has %d bytes, not %d", n, len(snapshot))
	}
}
