package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fsmDriver struct {
	t     testing.TB
	f     *FSM
	index uint64
	seq   map[wire.NodeID]uint64
	inc   map[wire.NodeID]wire.Incarnation
	fatal []error
}

func newFSM(t testing.TB, nodes int) *fsmDriver {
	d := &fsmDriver{t: t, seq: map[wire.NodeID]uint64{}, inc: map[wire.NodeID]wire.Incarnation{}}
	d.f = NewFSM(FSMConfig{Fatal: func(err error) { d.fatal = append(d.fatal, err) }})
	d.do(&Command{Kind: KindInit, ClusterID: 1})
	for i := range nodes {
		id := wire.NodeID(i + 1)
		d.do(&Command{Kind: KindNodeJoin, Node: id, Name: fmt.Sprintf("n%d", id)})
		d.up(id, 1)
	}
	return d
}

func (d *fsmDriver) do(c *Command) Result {
	d.t.Helper()
	b, err := Encode(c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.index++
	r, ok := d.f.ApplyBatch([]*raft.Log{{Index: d.index, Term: 1, Type: raft.LogCommand, Data: b}})[0].(Result)
	if !ok || r.Code != wire.OK {
		d.t.Fatalf("%+v: %+v", c, r)
	}
	return r
}

func (d *fsmDriver) up(id wire.NodeID, boot wire.Boot) {
	d.t.Helper()
	d.inc[id], d.seq[id] = d.do(&Command{Kind: KindNodeUp, Node: id, Boot: boot}).Incarnation, 0
}

func (d *fsmDriver) batch(id wire.NodeID, ops ...Op) Result {
	d.t.Helper()
	d.seq[id]++
	return d.do(&Command{Kind: KindBatch, Node: id, Incarnation: d.inc[id], Seq: d.seq[id], Ops: ops})
}

func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestFSMReads(t *testing.T) {
	d := newFSM(t, 2)
	d.do(&Command{Kind: KindTokenCreate, ID: "k", Hash: []byte("h"), ExpiresUnix: 3})
	d.batch(1, reg("u/1"), reg("u/2"), reg("u"), reg("v"))
	f := d.f
	if r, ok := f.Lookup(wire.ClientID{ID: "v"}); !ok || r.Node != 1 || r.Incarnation != 1 {
		t.Fatalf("%+v %v", r, ok)
	}
	var ids []string
	for _, r := range f.Devices(wire.ClientID{ID: "u"}, nil) {
		ids = append(ids, r.Client.ID)
	}
	if !slices.Equal(ids, []string{"u", "u/1", "u/2"}) || len(f.Devices(wire.ClientID{Tenant: "t", ID: "u"}, nil)) != 0 {
		t.Fatal(ids)
	}
	if list := f.Nodes(); len(list) != 2 || list[0].Name != "n1" || list[1].Name != "n2" {
		t.Fatal(list)
	}
	if n, ok := f.NodeByName("n2"); !ok || n.ID != 2 {
		t.Fatal(n)
	}
	if inc, live := f.Incarnation(1); inc != 1 || !live {
		t.Fatal(inc, live)
	}
	if _, live := f.Incarnation(9); live {
		t.Fatal("a stranger lives")
	}
	if h, e, ok := f.Token("k"); string(h) != "h" || e != 3 || !ok || len(f.Tokens()) != 1 {
		t.Fatal(h, e, ok)
	}
	if f.ClusterID() != 1 || f.FeatureLevel() != 1 || f.Settings().Voters != 3 || f.Generation() != 0 {
		t.Fatal("meta")
	}
	if s := f.Stats(); s.Routes != 4 || s.Applied != d.index || s.Bytes == 0 {
		t.Fatalf("%+v", s)
	}
	d.do(&Command{Kind: KindNodeDrain, Node: 2})
	d.do(&Command{Kind: KindNodeRemove, Node: 2, By: 2})
	if _, ok := f.Node(2); ok || !f.Removed(2) || f.Removed(1) {
		t.Fatal("removed")
	}
}

func TestConfigurationEntriesCount(t *testing.T) {
	d := newFSM(t, 1)
	out := d.f.ApplyBatch([]*raft.Log{{Index: d.index + 1, Type: raft.LogConfiguration}, {Index: d.index + 2, Type: raft.LogConfiguration}})
	if len(out) != 2 || d.f.Applied() != d.index+2 {
		t.Fatal(out, d.f.Applied())
	}
}

func TestUnreadableEntryStops(t *testing.T) {
	d := newFSM(t, 1)
	good, _ := Encode(&Command{Kind: KindNoop})
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	done := make(chan error, 1)
	go func() { done <- d.f.WaitApplied(context.Background(), d.index+9) }()
	at := d.index
	out := d.f.ApplyBatch([]*raft.Log{{Index: at + 1, Type: raft.LogCommand, Data: good}, {Index: at + 2, Type: raft.LogCommand, Data: bad}, {Index: at + 3, Type: raft.LogCommand, Data: good}})
	if _, ok := out[0].(Result); !ok {
		t.Fatal(out[0])
	}
	for _, o := range out[1:] {
		if err, ok := o.(error); !ok || !errors.Is(err, ErrStopped) {
			t.Fatal(o)
		}
	}
	if len(d.fatal) != 1 || !errors.Is(d.fatal[0], ErrDamaged) || d.f.Applied() != at+1 {
		t.Fatal(d.fatal, d.f.Applied())
	}
	if err := <-done; !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	if _, err := d.f.Snapshot(); !errors.Is(err, ErrStopped) {
		t.Fatal("a snapshot of a stopped state machine")
	}
}

func TestEntryOutOfOrderStops(t *testing.T) {
	d := newFSM(t, 1)
	good, _ := Encode(&Command{Kind: KindNoop})
	if err, ok := d.f.Apply(&raft.Log{Index: d.index, Data: good}).(error); !ok || !errors.Is(err, ErrStopped) || len(d.fatal) != 1 {
		t.Fatal(err, d.fatal)
	}
}

func TestWaitApplied(t *testing.T) {
	d := newFSM(t, 1)
	at := d.index
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			want := at + uint64(i%5)
			if err := d.f.WaitApplied(short(t), want); err != nil || d.f.Applied() < want {
				t.Errorf("%d: %v", want, err)
			}
		})
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	wg.Go(func() {
		if err := d.f.WaitApplied(ctx, at+1000); !errors.Is(err, cause) {
			t.Error(err)
		}
	})
	for range 5 {
		d.do(&Command{Kind: KindNoop})
	}
	cancel(cause)
	wg.Wait()
	if len(d.f.waiters.heap) != 0 || d.f.waiters.n.Load() != 0 {
		t.Fatal("waiters stay behind")
	}
}

func TestWaitIncarnationEnd(t *testing.T) {
	d := newFSM(t, 3)
	ended := func(id wire.NodeID, inc wire.Incarnation) chan error {
		c := make(chan error, 1)
		go func() { c <- d.f.WaitIncarnationEnd(short(t), id, inc) }()
		return c
	}
	open := func(c chan error) {
		t.Helper()
		select {
		case err := <-c:
			t.Fatal("ended too early", err)
		default:
		}
	}
	first, next, unknown := ended(1, 1), ended(1, 2), ended(9, 1)
	d.do(&Command{Kind: KindNodeDrain, Node: 1})
	open(first)
	d.up(1, 2)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	open(next)
	d.do(&Command{Kind: KindNodeExpire, Node: 1, Incarnation: 2, Term: 1})
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	removed := ended(2, 1)
	d.do(&Command{Kind: KindNodeDrain, Node: 2})
	open(removed)
	d.do(&Command{Kind: KindNodeRemove, Node: 2, By: 2})
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	open(unknown)
	d.do(&Command{Kind: KindNodeJoin, Node: 9, Name: "n9"})
	d.up(9, 1)
	open(unknown)
	d.up(9, 2)
	if err := <-unknown; err != nil {
		t.Fatal(err)
	}
}

func TestEvents(t *testing.T) {
	d := newFSM(t, 2)
	s := d.f.Subscribe(0)
	defer s.Close()
	from := d.index
	epoch := d.batch(1, reg("a"), reg("b")).Ops[0].Epoch
	d.batch(2, reg("a")) // held: no event
	d.batch(1, Op{Kind: Unregister, Client: wire.ClientID{ID: "a"}, Epoch: epoch}, reg("c"))
	d.do(&Command{Kind: KindNodeDrain, Node: 2})
	d.do(&Command{Kind: KindNodeExpire, Node: 1, Incarnation: 1, Term: 1})
	d.do(&Command{Kind: KindNodeRemove, Node: 1})
	want := strings.Fields("+1:set:a +1:set:b +3:gone:a +3:set:c +4:node:n2:draining +5:ended:1.1 +5:node:n1:down +6:removed:n1")
	var got []string
	for range want {
		e, err := s.Next(short(t))
		if err != nil {
			t.Fatal(err)
		}
		x := fmt.Sprintf("+%d:", e.Index-from)
		switch e.Kind {
		case RouteSet:
			x += "set:" + e.Route.Client.ID
		case RouteGone:
			x += "gone:" + e.Route.Client.ID
			if e.Route.Epoch != epoch || e.Route.Node != 1 {
				t.Fatalf("%+v", e)
			}
		case NodeChanged:
			x += "node:" + e.Node.Name + ":" + e.Node.State.String()
		case NodeRemoved:
			x += "removed:" + e.Node.Name
		case IncarnationEnded:
			x += fmt.Sprintf("ended:%d.%d", e.Route.Node, e.Route.Incarnation)
		}
		got = append(got, x)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%v\nwant %v", got, want)
	}
	if e, ok := s.TryNext(); ok {
		t.Fatalf("one more: %+v", e)
	}
}

func TestSlowSubscriber(t *testing.T) {
	d := newFSM(t, 1)
	s := d.f.Subscribe(10)
	fast := d.f.Subscribe(1000)
	defer fast.Close()
	choosy := d.f.Subscribe(1, NodeChanged)
	defer choosy.Close()
	for i := range 50 {
		d.batch(1, reg(user(i)))
	}
	e, err := s.Next(short(t))
	if err != nil || e.Kind != Resync {
		t.Fatalf("%+v %v", e, err)
	}
	if e, ok := s.TryNext(); ok {
		t.Fatalf("behind the resync: %+v", e)
	}
	d.batch(1, reg("next"))
	if e, err := s.Next(short(t)); err != nil || e.Kind != RouteSet || e.Route.Client.ID != "next" {
		t.Fatalf("%+v %v", e, err)
	}
	for i := range 51 {
		if e, ok := fast.TryNext(); !ok || e.Kind != RouteSet {
			t.Fatalf("%d: %+v", i, e)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if _, err := s.Next(short(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if e, ok := choosy.TryNext(); ok {
		t.Fatalf("who wants to know of nodes: %+v", e)
	}
	d.do(&Command{Kind: KindNodeDrain, Node: 1})
	if e, ok := choosy.TryNext(); !ok || e.Kind != NodeChanged {
		t.Fatalf("who wants to know of nodes: %+v", e)
	}
}

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
	failAt            int
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func (s *sink) Write(b []byte) (int, error) {
	if s.failAt > 0 && s.Len() > s.failAt {
		return 0, io.ErrShortWrite
	}
	return s.Buffer.Write(b)
}

func TestFSMSnapshotRestore(t *testing.T) {
	d := newFSM(t, 2)
	for i := range 20 {
		d.batch(1, reg(user(i)), reg(device(i)))
	}
	snap, err := d.f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	at := d.index
	d.batch(2, reg("later")) // not in it
	broken := &sink{failAt: 1}
	if err := snap.Persist(broken); err == nil || !broken.cancelled || broken.closed {
		t.Fatal("a failed write", err)
	}
	out := new(sink)
	if err := snap.Persist(out); err != nil || !out.closed {
		t.Fatal(err)
	}
	snap.Release()
	if d.f.table.grabs.Load() != 0 {
		t.Fatal("still grabbed")
	}

	e := newFSM(t, 1)
	e.batch(1, reg("old"))
	hash := e.f.Grab().Hash()
	damagedOne := slices.Clone(out.Bytes())
	damagedOne[len(damagedOne)/2] ^= 4
	if err := e.f.Restore(io.NopCloser(bytes.NewReader(damagedOne))); !errors.Is(err, ErrSnapshotDamaged) {
		t.Fatal(err)
	}
	if e.f.Grab().Hash() != hash || e.f.Applied() != e.index {
		t.Fatal("a refused snapshot changed the table")
	}
	s := e.f.Subscribe(0)
	defer s.Close()
	waited := make(chan error, 1)
	go func() { waited <- e.f.WaitApplied(short(t), at) }()
	if err := e.f.Restore(io.NopCloser(bytes.NewReader(out.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil || e.f.Applied() != at {
		t.Fatal(err, e.f.Applied())
	}
	if ev, err := s.Next(short(t)); err != nil || ev.Kind != Resync || ev.Index != at {
		t.Fatalf("%+v %v", ev, err)
	}
	if _, ok := e.f.Lookup(wire.ClientID{ID: "old"}); ok {
		t.Fatal("the old table shows through")
	}
	if _, ok := e.f.Lookup(wire.ClientID{ID: device(7)}); !ok {
		t.Fatal("a route is missing")
	}
	e.index, e.seq[2], e.inc[2] = at, 0, 1
	e.batch(2, reg("later"))
	if a, b := d.f.Grab(), e.f.Grab(); a.Hash() != b.Hash() || a.Index != b.Index {
		t.Fatal("they differ after the same log")
	}
	other := NewFSM(FSMConfig{ClusterID: 5})
	if err := other.Restore(io.NopCloser(bytes.NewReader(out.Bytes()))); !errors.Is(err, ErrSnapshotForeign) {
		t.Fatal(err)
	}
}

// TestReadersWhileApplying runs every kind of reader against a busy table; the race detector and the checks do the rest.
func TestReadersWhileApplying(t *testing.T) {
	d := newFSM(t, 2)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	reader := func(times int, f func()) { // as often as that at most: the applier must get its share of the processors
		wg.Go(func() {
			for ; times > 0 && ctx.Err() == nil; times-- {
				f()
			}
		})
	}
	i := 0
	reader(200_000, func() {
		i++
		if r, ok := d.f.Lookup(wire.ClientID{ID: user(i % 2000)}); ok && (r.Node == 0 || r.Incarnation == 0 || r.Epoch == 0) {
			t.Errorf("half a route: %+v", r)
		}
	})
	reader(500, func() {
		for _, r := range d.f.Devices(wire.ClientID{ID: "fleet"}, nil) {
			if !strings.HasPrefix(r.Client.ID, "fleet/") {
				t.Errorf("%+v", r)
			}
		}
	})
	reader(20, func() {
		v := d.f.Grab()
		defer v.Close()
		list, _, err := v.Routes("", 1<<20, nil)
		if err != nil || len(list) != v.Count() {
			t.Errorf("%d routes listed, %d counted", len(list), v.Count())
		}
		n := 0
		for _, c := range v.CountByNode() {
			n += c
		}
		if n != v.Count() {
			t.Errorf("%d routes by node, %d counted", n, v.Count())
		}
	})
	reader(5000, func() { d.f.Nodes(); d.f.Settings(); d.f.Stats(); d.f.Incarnation(1) })
	s := d.f.Subscribe(50)
	reader(50_000, func() { s.TryNext() })
	for round := range 12 {
		for from := 0; from < 2000; from += 250 {
			var ops []Op
			for j := from; j < from+250; j++ {
				ops = append(ops, reg(user(j)))
				if j%4 == 0 {
					ops = append(ops, reg(device(j)))
				}
			}
			d.batch(wire.NodeID(round%2+1), ops...)
		}
		id := wire.NodeID(round%2 + 1)
		if round%3 == 0 {
			d.do(&Command{Kind: KindNodeExpire, Node: id, Incarnation: d.inc[id], Term: 1})
		}
		d.up(id, wire.Boot(round+2))
	}
	cancel()
	wg.Wait()
	s.Close()
	if err := invariants(d.f.table); err != nil {
		t.Fatal(err)
	}
}
