package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"testing"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// Owned, over all parts, is every live row of that incarnation and nothing else.
func TestOwned(t *testing.T) {
	d := newFSM(t, 2)
	for i := range 3000 {
		d.batch(wire.NodeID(i%2+1), reg(user(i)))
		if i < 300 {
			d.batch(1, reg(device(i))) // one user's, who gets a directory of his own
		}
	}
	owned := func(node wire.NodeID, inc wire.Incarnation) map[wire.ClientID]Route {
		v := d.f.Grab()
		defer v.Close()
		out, looked := map[wire.ClientID]Route{}, 0
		for part := range Stripes {
			looked += v.Owned(part, node, inc, func(r Route) { out[r.Client] = r })
		}
		if looked < v.Count() {
			t.Errorf("looked at %d of %d rows", looked, v.Count())
		}
		return out
	}
	for _, id := range []wire.NodeID{1, 2} {
		want := map[wire.ClientID]Route{}
		for c, r := range routesOf(d.f.table) {
			if r.Node == id {
				want[c] = r
			}
		}
		if got := owned(id, d.inc[id]); !maps.Equal(got, want) || len(got) < 1500 {
			t.Errorf("node %d owns %d rows, want %d", id, len(got), len(want))
		}
	}
	old := d.inc[1]
	d.up(1, 2)
	if a, b := owned(1, old), owned(1, d.inc[1]); len(a) != 0 || len(b) != 0 {
		t.Errorf("after a restart the former incarnation owns %d, the new one %d", len(a), len(b))
	}
}

// A node knows the feature levels that it says it knows: an entry or a snapshot beyond them stops it.
func TestFSMFeatureLevel(t *testing.T) {
	knows := func(level uint32) (*FSM, *error) {
		var fatal error
		return NewFSM(FSMConfig{FeatureLevel: level, Fatal: func(err error) { fatal = err }}), &fatal
	}
	apply := func(f *FSM, index uint64, c *Command) any {
		t.Helper()
		b, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		return f.Apply(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: b})
	}
	f, fatal := knows(3)
	if err := f.Check(&Command{Kind: KindFeatureLevel, Level: 4}); !errors.Is(err, ErrTooNew) {
		t.Errorf("checking 4: %v", err)
	}
	if err := f.Check(&Command{Kind: KindFeatureLevel, Level: 3}); err != nil {
		t.Errorf("checking 3: %v", err)
	}
	apply(f, 1, &Command{Kind: KindInit, ClusterID: 1})
	if r, ok := apply(f, 2, &Command{Kind: KindFeatureLevel, Level: 3}).(Result); !ok || r.Code != wire.OK || f.FeatureLevel() != 3 {
		t.Fatalf("%+v", r)
	}
	v := f.Grab()
	defer v.Close()
	var snapshot bytes.Buffer
	if err := v.WriteSnapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	for level, want := range map[uint32]error{2: ErrSnapshotVersion, 3: nil, 4: nil} {
		g, _ := knows(level)
		if err := g.Restore(io.NopCloser(bytes.NewReader(snapshot.Bytes()))); !errors.Is(err, want) {
			t.Errorf("a node that knows %d restores 3: %v", level, err)
		}
	}
	if apply(f, 3, &Command{Kind: KindFeatureLevel, Level: 4}); !errors.Is(*fatal, ErrTooNew) {
		t.Errorf("entry of 4: %v", *fatal)
	}
	if got := fmt.Sprint(NewFSM(FSMConfig{}).config.FeatureLevel); got != fmt.Sprint(MaxFeatureLevel) {
		t.Errorf("by default %s", got)
	}
}
