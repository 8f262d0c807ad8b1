package raftfsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

func regAs(id string, instance uint64, fenced wire.Epoch) Op {
	return Op{Kind: Register, Client: wire.ClientID{ID: id}, Session: wire.SessionID{Instance: instance, Attempt: 1}, Fenced: fenced}
}

// Ten thousand devices of one user: the thousandth is the last from level 2 on, whatever void rows a table still has; below it
// the pages hold them all.
func TestDeviceLimit(t *testing.T) {
	d := cluster(2)
	d.fill(1, 0, 10000, device)
	u := wire.ClientID{ID: "fleet"}
	all := func(x *Table) []Device { return x.devices(&x.stripes[stripeOf(u.Hash())], u, u.Hash(), nil) }
	if n := len(all(d.t)); n != 10000 {
		t.Fatalf("%d devices", n)
	}
	d = cluster(2)
	d.fill(1, 0, MaxDevices+200, device)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	if r := d.batch(1, reg("fleet/new"), reg("fleet/17"), reg("fleet"), reg("fleeting/1")); r.Ops[0].Code != OpOverloaded ||
		r.Ops[1].Code != OpOK || r.Ops[2].Code != OpOK || r.Ops[3].Code != OpOK {
		t.Fatalf("%+v", r.Ops)
	}
	d.do(&Command{Kind: KindNodeDown, Node: 1, Incarnation: 1})
	other := restored(t, d.t) // has no void rows
	for i := range 3 {
		var ops []Op
		for j := range 500 {
			ops = append(ops, reg(device(20000+500*i+j)))
		}
		c := &Command{Kind: KindBatch, Node: 2, Incarnation: 1, Seq: uint64(i + 1), Ops: ops}
		a, b := d.t.Apply(uint64(1000+i), 1, c), other.Apply(uint64(1000+i), 1, c)
		want := OpOK
		if i == 2 {
			want = OpOverloaded
		}
		if !same(a, b) || a.Ops[0].Code != want || a.Ops[499].Code != want {
			t.Fatalf("batch %d: %s and %s", i, a.Ops[0].Code, b.Ops[0].Code)
		}
	}
	if len(all(d.t)) != MaxDevices || d.t.Hash() != other.Hash() {
		t.Fatal("another number of devices, or another hash")
	}
	sound(t, d.t)
}

func TestDevices(t *testing.T) {
	d := newFSM(t, 2)
	d.batch(1, reg("u/b"), reg("u"), reg("us/x"), reg("user"))
	d.batch(2, reg("u/a"), Op{Kind: Register, Client: wire.ClientID{Tenant: "t", ID: "u/c"}, Session: wire.SessionID{Instance: 1}})
	for _, ask := range []string{"u", "u/whatever"} {
		first := Device{ID: "kept"}
		list := d.f.Devices(wire.ClientID{ID: ask}, []Device{first})
		var got []string
		for _, x := range list[1:] {
			r, ok := d.f.Lookup(x.Client)
			if !ok || r != x.Route {
				t.Fatalf("%+v, looked up %+v", x, r)
			}
			got = append(got, x.ID)
		}
		if list[0] != first || !slices.Equal(got, []string{"", "a", "b"}) {
			t.Fatalf("%q: %q", ask, got)
		}
	}
	d.up(2, 2)
	if list := d.f.Devices(wire.ClientID{Tenant: "t", ID: "u"}, nil); len(list) != 0 {
		t.Fatalf("void devices: %+v", list)
	}
}

// However logins race, and whatever is fenced: no two live rows of one user and class, once nothing older is left.
func TestOnePerClassRace(t *testing.T) {
	d := cluster(3)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	d.do(&Command{Kind: KindSetSettings, Settings: Settings{OnePerClass: true}})
	pending := map[string]wire.Epoch{}
	for i := range 3000 {
		node := wire.NodeID(i%3 + 1)
		id := fmt.Sprintf("u%d/%s:%d", i%5, []string{"phone", "web"}[i%2], i*7%11)
		r := d.batch(node, regAs(id, uint64(i+1), pending[id])).Ops[0]
		switch r.Code {
		case OpOK:
			delete(pending, id)
		case OpHeld:
			if r.HolderClient != (wire.ClientID{}) || r.Epoch == 0 {
				t.Fatalf("%+v", r)
			}
			pending[id] = r.Epoch
		case OpClassHeld:
			if r.HolderClient.ID == id || r.HolderClient.User() != (wire.ClientID{ID: id}).User() {
				t.Fatalf("%s: %+v", id, r)
			}
			if got, ok := d.t.Lookup(r.HolderClient); !ok || got.Epoch != r.Epoch || got.Node != r.Node {
				t.Fatalf("held by %+v, which is %+v", r, got)
			}
			pending[id] = r.Epoch
		default:
			t.Fatalf("%+v", r)
		}
		seen := map[string]string{}
		for c := range routesOf(d.t) {
			class, _, _ := strings.Cut(c.ID, ":")
			if other, ok := seen[class]; ok {
				t.Fatalf("%s and %s are both live", other, c.ID)
			}
			seen[class] = c.ID
		}
	}
	sound(t, d.t)
}

// Devices that were online together when the policy came are taken over one by one: every answer names what stands in the way,
// and fencing that is progress.
func TestOnePerClassOverOlderRows(t *testing.T) {
	d := level2(3)
	d.batch(1, reg("u/phone:1"), reg("u/phone:2"))
	d.batch(2, reg("u/phone:3"), reg("u/web"), reg("u"))
	d.do(&Command{Kind: KindSetSettings, Settings: Settings{OnePerClass: true}})
	var fenced wire.Epoch
	for tries := 0; ; tries++ {
		r := d.batch(3, regAs("u/phone:2", 9, fenced)).Ops[0]
		if r.Code == OpOK {
			break
		}
		if r.Code != OpHeld && r.Code != OpClassHeld || tries > 6 {
			t.Fatalf("try %d: %+v", tries, r)
		}
		fenced = r.Epoch
	}
	var left []string
	for c := range routesOf(d.t) {
		left = append(left, c.ID)
	}
	if slices.Sort(left); !slices.Equal(left, []string{"u", "u/phone:2", "u/web"}) {
		t.Fatal(left)
	}
	sound(t, d.t)
}

// What is fenced to make room is told to those who listen.
func TestClassTakeoverEvents(t *testing.T) {
	d := newFSM(t, 2)
	d.do(&Command{Kind: KindFeatureLevel, Level: TopicFeatureLevel})
	d.do(&Command{Kind: KindSetSettings, Settings: Settings{OnePerClass: true}})
	s := d.f.Subscribe(0)
	defer s.Close()
	old := d.batch(1, reg("u/phone:a")).Ops[0].Epoch
	d.batch(2, regAs("u/phone:b", 2, old))
	var got []string
	for {
		e, ok := s.TryNext()
		if !ok {
			break
		}
		got = append(got, fmt.Sprintf("%s %s n%d %s", e.Kind, e.Route.Client, e.Route.Node, epochText(e.Route.Epoch)))
	}
	if want := []string{"route-set u/phone:a n1 0.1", "route-gone u/phone:a n1 0.1", "route-set u/phone:b n2 0.2"}; !slices.Equal(got, want) {
		t.Fatal(got)
	}
}

func TestDeviceClass(t *testing.T) {
	for id, want := range map[string]string{"u": "-", "u/phone:a": "phone", "u/phone": "phone", "u/:a": "", "u:x": "-", "u/a:b:c": "a"} {
		class, ok := DeviceClass(wire.ClientID{ID: id})
		if !ok {
			class = "-"
		}
		if class != want {
			t.Errorf("%s: class %q", id, class)
		}
	}
}
