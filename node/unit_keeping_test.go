package node

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/raftfsm"
)

// folder opens a data folder for a test.
func folder(t *testing.T) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestSecrets(t *testing.T) {
	made := newSecrets()
	if other := newSecrets(); *other == *made {
		t.Fatal("two clusters with the same secrets")
	}
	got, err := takeIn(made.handOut())
	if err != nil || *got != *made {
		t.Fatalf("handed over: %v, %v", got, err)
	}
	if _, err := takeIn([]byte("x")); err == nil {
		t.Error("rubbish was taken in")
	}
	d := folder(t)
	if _, err := loadSecrets(d); err == nil {
		t.Error("secrets of an empty folder")
	}
	if err := got.store(d); err != nil {
		t.Fatal(err)
	}
	again, err := loadSecrets(d)
	if err != nil || *again != *made {
		t.Fatalf("kept: %v, %v", again, err)
	}
	n := &Node{secrets: again}
	if _, err := n.clientAuth(); err != nil {
		t.Errorf("the cluster's own key: %v", err)
	}
	path := filepath.Join(t.TempDir(), "keys")
	n.cfg.ClientKeys = path
	if _, err := n.clientAuth(); isError(err, "client-keys", path) != nil {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.clientAuth(); isError(err, "client-keys") != nil {
		t.Errorf("a file without keys: %v", err)
	}
}

// What holders of the CA key give to whom.
func TestHandleSecrets(t *testing.T) {
	n := &Node{fsm: raftfsm.NewFSM(raftfsm.FSMConfig{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})}
	if _, err := n.handleSecrets(t.Context(), 2, &secretsRequest{CAKey: true}); codeOf(err) != wire.NotReady {
		t.Errorf("without the key: %v", err)
	}
	ca, err := mesh.NewCA(7)
	if err != nil {
		t.Fatal(err)
	}
	n.ca.Store(ca)
	if _, err := n.handleSecrets(t.Context(), 2, &secretsRequest{SignNode: 9}); codeOf(err) != wire.NotMember {
		t.Errorf("signed for a stranger: %v", err)
	}
	entries := entries{t: t, fsm: n.fsm}
	entries.apply(&raftfsm.Command{Kind: raftfsm.KindInit, ClusterID: 7})
	entries.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 9, Name: "n9"})
	if _, err := n.handleSecrets(t.Context(), 2, &secretsRequest{SignNode: 9, SignKey: []byte("x")}); codeOf(err) != wire.BadRequest {
		t.Errorf("signed rubbish: %v", err)
	}
}

// entries applies commands to a table without Raft.
type entries struct {
	t     *testing.T
	fsm   *raftfsm.FSM
	index uint64
}

func (e *entries) apply(cmd *raftfsm.Command) {
	e.t.Helper()
	b, err := raftfsm.Encode(cmd)
	if err != nil {
		e.t.Fatal(err)
	}
	e.index++
	if r := e.fsm.Apply(&raft.Log{Index: e.index, Term: 1, Type: raft.LogCommand, Data: b}).(raftfsm.Result); r.Err() != nil {
		e.t.Fatalf("%v: %v", cmd.Kind, r.Err())
	}
}

func TestPeerBook(t *testing.T) {
	d := folder(t)
	if err := d.SetMembers([]datadir.Member{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2", Mesh: "old:2"}}); err != nil {
		t.Fatal(err)
	}
	n := &Node{id: 1, dir: d, fsm: raftfsm.NewFSM(raftfsm.FSMConfig{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})}
	b := newPeerBook(n)
	if err := b.load(); err != nil {
		t.Fatal(err)
	}
	at := func(id wire.NodeID, want string, member bool) {
		t.Helper()
		if addr, ok := b.member(id); addr != want || ok != member {
			t.Errorf("%v is at %q (%v), want %q (%v)", id, addr, ok, want, member)
		}
	}
	keep := func(gone ...wire.NodeID) {
		t.Helper()
		if got, err := b.keep(); err != nil || !slices.Equal(got, gone) {
			t.Errorf("gone: %v, %v, want %v", got, err, gone)
		}
	}
	at(2, "old:2", true) // before Raft has replayed anything
	at(3, "", false)
	keep()
	at(2, "old:2", true)
	b.answered(2, "moved:2")
	at(2, "moved:2", true)
	b.answered(5, "five:5") // a member this folder never heard of
	at(5, "five:5", true)
	if got := b.addrs(); !maps.Equal(got, map[wire.NodeID]string{2: "moved:2", 5: "five:5"}) {
		t.Errorf("addrs: %v", got)
	}

	e := entries{t: t, fsm: n.fsm}
	e.apply(&raftfsm.Command{Kind: raftfsm.KindInit, ClusterID: 7})
	e.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 1, Name: "n1", Addrs: wire.Addrs{Mesh: "one:1"}})
	e.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 2, Name: "n2", Addrs: wire.Addrs{Mesh: "old:2"}})
	keep() // a table that is behind does not undo what is known better
	at(2, "moved:2", true)
	e.apply(&raftfsm.Command{Kind: raftfsm.KindNodeUp, Node: 2, Boot: 1, Addrs: wire.Addrs{Mesh: "new:2"}})
	keep()
	at(2, "new:2", true)
	if got := b.known(); len(got) != 2 || slices.Contains(got, 1) {
		t.Errorf("known: %v", got)
	}
	e.apply(&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: 3, Name: "n3", Addrs: wire.Addrs{Mesh: "three:3"}})
	keep()
	at(3, "three:3", true)
	e.apply(&raftfsm.Command{Kind: raftfsm.KindNodeRemove, Node: 3})
	at(3, "", false) // at once, before it is written down
	keep(3)
	names := func() (out []string) {
		members, err := d.Members()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			out = append(out, m.Name+"="+m.Mesh)
		}
		slices.Sort(out)
		return out
	}
	if got := names(); !slices.Equal(got, []string{"=five:5", "n1=one:1", "n2=new:2"}) {
		t.Errorf("kept: %v", got)
	}
	if err := b.removed(); err != nil {
		t.Fatal(err)
	}
	keep()
	if got := names(); slices.Contains(got, "n1=one:1") {
		t.Errorf("kept after the removal: %v", got)
	}
}
