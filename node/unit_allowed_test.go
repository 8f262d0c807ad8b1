package node

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// grantedSender is a sender whose token says what it may send to.
type grantedSender struct {
	castSender
	g *gateway.Grants
}

func (s grantedSender) Grants() *gateway.Grants { return s.g }

func grantsTo(t *testing.T, patterns ...string) *gateway.Grants {
	t.Helper()
	g, err := gateway.ParseGrants(&patterns, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestRouterKeepsToGrants: a bare id reaches those devices only that its sender may name, whichever way they are found: in the table
// here, by looking again, or by the read that finds devices in place of the id.
func TestRouterKeepsToGrants(t *testing.T) {
	all := []string{"eve", "eve/phone", "eve/web"}
	for _, c := range []struct {
		grants, online []string
		want           []string // who takes it
	}{
		{[]string{"client:eve"}, all, []string{"eve"}},
		{[]string{"client:eve"}, all[1:], nil},
		{[]string{"client:eve"}, all[1:2], nil},
		{[]string{"client:eve", "client:eve/web"}, all, []string{"eve", "eve/web"}},
		{[]string{"client:eve", "client:eve/web"}, all[1:], []string{"eve/web"}},
		{[]string{"client:eve", "client:eve/*"}, all, all},
		{[]string{"client:eve*"}, all, all},
		{[]string{"client:eve", "user:eve"}, all[1:], all[1:]},
		{[]string{"user:*"}, all, all},
		{[]string{"*"}, all, all},
	} {
		for _, known := range []int{len(c.online), 1, 0} { // how many of them the table here has; the others are found later
			if known > len(c.online) {
				continue
			}
			g := newRouterRig(t)
			alice := grantedSender{castSender{g.open("alice", 10)}, grantsTo(t, c.grants...)}
			who := map[string]*fakeSession{}
			late := map[string]raftfsm.Route{}
			for i, id := range c.online {
				epoch := wire.Epoch(11 + i)
				who[id] = g.open(id, epoch)
				if i < known {
					g.routes[id] = route(id, rigSelf, epoch)
				} else {
					late[id] = route(id, rigSelf, epoch)
				}
			}
			catchUp := func() { // called with the rig locked
				for id, r := range late {
					g.routes[id] = r
				}
			}
			g.truth = func(id string) (located, error) {
				catchUp()
				r, ok := g.routes[id]
				return located{route: r, found: ok, devices: !ok}, nil
			}
			g.again = &lookAgain{r: g.router, refresh: func(context.Context) error { g.set(catchUp); return nil }}
			g.sendToUser(alice, newTracker(), &wire.Forward{
				Kind: wire.ToClient, To: "eve", From: "alice", Instance: wire.Sender(alice.client, alice.id.Instance), Counter: 1, Ack: wire.AckOwner, Payload: []byte("x"),
			}, patience, nil)
			result := <-alice.results
			var got []string
			for id, s := range who {
				if len(s.took()) > 0 {
					got = append(got, id)
				}
			}
			slices.Sort(got)
			want := c.want
			if known <= 1 && c.online[0] == "eve" && len(want) > 1 {
				want = want[:1] // who was found by the id itself is not asked for devices that the table here lacks
			}
			told := "1 offline"
			switch {
			case len(want) > 1 || len(want) == 1 && want[0] != "eve":
				told = fmt.Sprintf("1 delivered reached %d", len(want))
			case len(want) == 1:
				told = "1 delivered n1"
			}
			if !slices.Equal(got, want) || result != told && (len(want) > 0 || result != "1 offline reached 0") {
				t.Errorf("%v, online %v, %d of them known: %v took it, told %q; want %v, %q", c.grants, c.online, known, got, result, want, told)
			}
			g.close()
		}
	}
}

// TestTurnToDevicesKeepsAnswers: an answer goes to the id that asked, and to no device in its place.
func TestTurnToDevicesKeepsAnswers(t *testing.T) {
	g := newRouterRig(t)
	alice, phone := castSender{g.open("alice", 10)}, g.open("eve/phone", 11)
	g.routes["eve/phone"] = route("eve/phone", rigSelf, 11)
	g.truth = func(string) (located, error) { return located{devices: true}, nil }
	for counter, re := range []uint64{7, 0} {
		g.send(alice, nil, &wire.Forward{
			Kind: wire.ToClient, To: "eve", From: "alice", Instance: wire.Sender(alice.client, alice.id.Instance), Counter: uint64(counter + 1), Ack: wire.AckOwner, Payload: []byte("x"), Re: re, ReInstance: re,
		}, patience)
		if re != 0 {
			alice.wants(t, "1 offline")
		} else {
			alice.wants(t, "2 delivered reached 1")
		}
	}
	if got := phone.took(); !slices.Equal(got, []uint64{2}) {
		t.Errorf("the phone took %v", got)
	}
}

// TestAllowedDevicesAllocatesNothing: it is asked for each message to a user.
func TestAllowedDevicesAllocatesNothing(t *testing.T) {
	g := newRouterRig(t)
	var o castOrigin = grantedSender{castSender{g.open("alice", 10)}, grantsTo(t, "client:eve", "client:eve/w*")}
	var from []raftfsm.Device
	for _, id := range []string{"eve", "eve/phone", "eve/web"} {
		from = append(from, raftfsm.Device{ID: id[3:], Route: route(id, rigSelf, 1)})
	}
	buf := make([]raftfsm.Device, len(from))
	left := 0
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, from)
		left = len(allowedDevices(o, buf))
	}); n != 0 || left != 2 {
		t.Errorf("%v allocations, %d left", n, left)
	}
}
