package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

// missed sends to many with the clients' own acknowledgement and says who was not reached. hear runs meanwhile.
func (u *user) missed(to client.Address, text string, timeout time.Duration, hear func()) client.Result {
	u.t.Helper()
	done := make(chan client.Result, 1)
	if _, err := u.SendToAsync(to, []byte(text), wire.AckClient, timeout, func(r client.Result) { done <- r }); err != nil {
		u.t.Fatal(err)
	}
	hear()
	r := <-done
	slices.Sort(r.MissedIDs)
	return r
}

// Who sends to many and waits for their own acknowledgement is told who did not give it, from whichever node, within his time-out.
func TestMissed(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice, bob := c.dial("alice", n1), c.dial("bob", n2)
	bob.join("lobby")
	mute := map[string]*raw{}
	for i, at := range []*Node{n1, n2, n3} {
		id := fmt.Sprintf("mute%d", i+1)
		r := rawLogin(t, at, id, wire.NewID(), 1)
		r.want(wire.TypeWelcome)
		r.write(&wire.Frame{Type: wire.TypeJoin, To: "lobby", ID: 1})
		r.want(wire.TypeResult)
		mute[id] = r
	}
	const timeout = 1500 * time.Millisecond
	check := func(what string, r client.Result, code wire.Code, count int, ids ...string) {
		t.Helper()
		if r.Code != code || r.Count != count || r.Missed != len(ids) || !slices.Equal(r.MissedIDs, ids) {
			t.Errorf("%s: %v %s, %d reached, %d missed %v, want %v, %d, %v", what, r.Code, r.Text, r.Count, r.Missed, r.MissedIDs, code, count, ids)
		}
		if r.RTT > timeout+time.Second {
			t.Errorf("%s: it took %v, with a time-out of %v", what, r.RTT, timeout)
		}
	}
	hear := func() { bob.hears("who is there") }

	check("others", alice.missed(client.ToOthers(), "who is there", timeout, hear), wire.Delivered, 1, "mute1", "mute2", "mute3")
	if r := alice.missed(client.ToGroup("lobby"), "who is there", timeout, hear); r.Count != 1 || r.Missed != 3 || len(r.MissedIDs) != 0 {
		t.Errorf("group, by who is not in it: %d reached, %d missed %v, want 1, 3 without their names", r.Count, r.Missed, r.MissedIDs)
	}
	alice.join("lobby")
	all := func() { hear(); alice.hears("who is there") }
	check("group", alice.missed(client.ToGroup("lobby"), "who is there", timeout, all), wire.Delivered, 2, "mute1", "mute2", "mute3")
	check("nobody acknowledges", alice.missed(client.ToPrefix("mute"), "who is there", timeout, func() {}), wire.Timeout, 0, "mute1", "mute2", "mute3")

	res, err := api{n3}.Send(c.ctx, admin.Message{
		Kind: wire.ToPrefix, To: wire.ClientID{ID: "mute"}, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}, Ack: wire.AckClient, Timeout: timeout,
	})
	if slices.Sort(res.MissedIDs); err != nil || res.Missed != 3 || strings.Join(res.MissedIDs, " ") != "mute1 mute2 mute3" {
		t.Errorf("API: %+v, %v", res, err)
	}

	t.Log("all have answered or are gone: that is told at once")
	r := alice.missed(client.ToGroup("lobby"), "good bye", patience, func() {
		bob.hears("good bye")
		alice.hears("good bye")
		for _, m := range mute {
			for string(m.want(wire.TypeDeliver).Payload) != "good bye" {
			}
			_ = m.conn.Close()
		}
	})
	if r.Code != wire.Delivered || r.Count != 2 || r.Missed != 3 || !slices.Equal(r.MissedIDs, []string{"mute1", "mute2", "mute3"}) || r.RTT > patience/2 {
		t.Errorf("closed: %+v", r)
	}
}

// Devices of a user that did not acknowledge are named as well.
func TestMissedDevice(t *testing.T) {
	c := newCluster(t)
	n1, n2, _ := c.three()
	alice, phone := c.dial("alice", n1), c.dial("eve/phone", n1)
	rawLogin(t, n2, "eve/web", wire.NewID(), 1).want(wire.TypeWelcome)
	r := alice.missed(client.ToUser("eve"), "who is there", 1500*time.Millisecond, func() { phone.hears("who is there") })
	if r.Code != wire.Delivered || r.Count != 1 || r.Missed != 1 || !slices.Equal(r.MissedIDs, []string{"eve/web"}) {
		t.Errorf("%+v", r)
	}
}
