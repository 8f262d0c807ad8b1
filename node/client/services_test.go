package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

type asked struct {
	Reply
	err error
}

func ask(t *testing.T, c *Client, to Address, timeout time.Duration) chan asked {
	out := make(chan asked, 1)
	go func() {
		r, err := c.Request(t.Context(), to, []byte("?"), WithTimeout(timeout))
		out <- asked{r, err}
	}()
	return out
}

func (fc *fakeConn) answer(f wire.Frame, text string) {
	fc.t.Helper()
	f.Type, f.From, f.Epoch, f.Payload = wire.TypeDeliver, "clock/1", 1, []byte(text)
	fc.send(f)
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var a *fakeConn
		c := open(t, n.config("a:1"), func() { a = n.nodes["a:1"].welcome(1) })
		instance := wire.CastSender(c.instance, wire.ToService, "clock")

		t.Log("only the answer to this very request counts")
		got := ask(t, c, ToService("clock"), time.Minute)
		f := a.want(wire.TypeSend)
		if f.Kind != wire.ToService || f.To != "clock" || f.Ack != wire.AckOwner || f.TimeoutMS == 0 {
			t.Errorf("%+v", f)
		}
		a.answer(wire.Frame{Instance: 5, ID: 1, Re: f.ID, ReInstance: instance + 1}, "of another process")
		a.answer(wire.Frame{Instance: 5, ID: 2, Re: f.ID + 1, ReInstance: instance}, "of another request")
		a.result(f.ID, wire.Delivered)
		synctest.Wait()
		select {
		case r := <-got:
			t.Fatalf("answered: %+v", r)
		default:
		}
		a.answer(wire.Frame{Instance: 5, ID: 3, Re: f.ID, ReInstance: instance}, "noon")
		if r := <-got; r.err != nil || string(r.Payload) != "noon" || r.From != "clock/1" || r.ID != (wire.MessageID{Instance: instance, Counter: f.ID}) {
			t.Errorf("%+v", r)
		}
		a.answer(wire.Frame{Instance: 5, ID: 4, Re: f.ID, ReInstance: instance}, "twice")

		t.Log("an answer may come before the result")
		got = ask(t, c, ToService("clock"), time.Minute)
		f = a.want(wire.TypeSend)
		a.answer(wire.Frame{Instance: 5, ID: 5, Re: f.ID, ReInstance: instance, Fault: 9}, "no")
		r := <-got
		var fault *Fault
		if !errors.As(r.err, &fault) || *fault != (Fault{9, "no"}) {
			t.Errorf("%+v", r)
		}
		a.result(f.ID, wire.Delivered)

		t.Log("refusals and silence")
		for _, code := range []wire.Code{wire.Offline, wire.Overloaded, wire.Unknown} {
			got = ask(t, c, ToService("clock"), time.Minute)
			a.result(a.want(wire.TypeSend).ID, code)
			wantCode(t, (<-got).err, code)
		}
		start := time.Now()
		got = ask(t, c, ToService("clock"), 3*time.Second)
		a.result(a.want(wire.TypeSend).ID, wire.Delivered)
		wantCode(t, (<-got).err, wire.Timeout)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("gave up after %s", took)
		}
		t.Log("a handler that runs out of time, and whoever asks giving up")
		got = ask(t, c, ToService("clock"), 3*time.Second)
		f = a.want(wire.TypeSend)
		a.answer(wire.Frame{Instance: 5, ID: 6, Re: f.ID, ReInstance: instance, Fault: FaultTimeout}, "late")
		wantCode(t, (<-got).err, wire.Timeout)
		a.result(f.ID, wire.Delivered)
		asking, giveUp := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := c.Request(asking, ToService("clock"), nil)
			ended <- err
		}()
		a.result(a.want(wire.TypeSend).ID, wire.Delivered)
		synctest.Wait()
		giveUp()
		err := <-ended
		wantCode(t, err, wire.Unknown)
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "time") || !strings.Contains(err.Error(), "handed over") {
			t.Error(err)
		}

		c.mu.Lock()
		if len(c.services.asks) != 0 {
			t.Errorf("%d requests are remembered", len(c.services.asks))
		}
		c.mu.Unlock()
		if _, err := c.Request(t.Context(), ToGroup("g"), nil); err == nil {
			t.Error("a group was asked")
		}
		shut(t, c)
	})
}

// A request to a service that may have left is never sent again; one to a client is, under its id.
func TestRequestOverReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var a *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { a = n.nodes["a:1"].welcome(1) })
		service, person := ask(t, c, ToService("clock"), time.Minute), (chan asked)(nil)
		first := a.want(wire.TypeSend)
		person = ask(t, c, ToClient("bob"), time.Minute)
		second := a.want(wire.TypeSend)
		a.conn.Close()
		wantCode(t, (<-service).err, wire.Unknown)
		waits := ask(t, c, ToService("clock"), time.Minute) // has not left yet
		synctest.Wait()
		b := n.nodes["b:1"].welcome(2)
		if f := b.want(wire.TypeSend); f.ID != second.ID || f.Kind != wire.ToClient {
			t.Fatalf("%+v", f)
		}
		f := b.want(wire.TypeSend)
		if f.Kind != wire.ToService || f.ID == first.ID {
			t.Fatalf("%+v", f)
		}
		for i, id := range []uint64{second.ID, f.ID} {
			instance, from := c.Instance(), "bob/phone"
			if id == f.ID {
				instance, from = wire.CastSender(c.instance, wire.ToService, "clock"), "x"
			}
			b.result(id, wire.Delivered)
			b.send(wire.Frame{Type: wire.TypeDeliver, From: "mallory", Epoch: 2, Instance: 6, ID: uint64(i + 1), Re: id, ReInstance: c.Instance(), Payload: []byte("forged")})
			b.send(wire.Frame{Type: wire.TypeDeliver, From: from, Epoch: 2, Instance: 7, ID: uint64(i + 1), Re: id, ReInstance: instance, Payload: []byte("ok")})
		}
		for _, c := range []chan asked{person, waits} {
			if r := <-c; r.err != nil || string(r.Payload) != "ok" {
				t.Errorf("%+v", r)
			}
		}
		shut(t, c)
	})
}

func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var a *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { a = n.nodes["a:1"].welcome(1) })
		release := make(chan struct{})
		h := func(ctx context.Context, r Request) ([]byte, error) {
			switch string(r.Payload) {
			case "wait":
				<-release
			case "ctx":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []byte(r.From + " " + string(r.Payload)), nil
		}
		served := make(chan *Service, 1)
		serve := func(want wire.Code) {
			s, err := c.Serve(t.Context(), "clock", h, WithConcurrency(2))
			if want != wire.Joined {
				wantCode(t, err, want)
			} else if err != nil {
				t.Error(err)
			}
			served <- s
		}
		t.Log("refused")
		go serve(wire.Forbidden)
		a.result(a.want(wire.TypeJoin).ID, wire.Forbidden)
		<-served

		go serve(wire.Joined)
		f := a.want(wire.TypeJoin)
		if f.Kind != wire.ToService || f.To != "clock" || f.Count != 2 {
			t.Errorf("%+v", f)
		}
		a.result(f.ID, wire.Joined)
		s := <-served
		if _, err := c.Serve(t.Context(), "clock", h); err == nil {
			t.Error("served twice")
		}

		request := func(fc *fakeConn, epoch wire.Epoch, id uint64, text string) {
			fc.send(wire.Frame{Type: wire.TypeDeliver, Kind: wire.ToService, To: "clock", From: "alice", Instance: 5, ID: id, Epoch: epoch, TimeoutMS: 1000, Payload: []byte(text)})
		}
		reply := func(fc *fakeConn, id uint64, fault uint32, text string) {
			t.Helper()
			f := fc.want(wire.TypeSend)
			if f.To != "alice" || f.Kind != wire.ToClient || f.Re != id || f.ReInstance != 5 || f.Fault != fault || text != "" && string(f.Payload) != text {
				t.Errorf("%+v, want the answer %d %s to %d", f, fault, text, id)
			}
			fc.result(f.ID, wire.Delivered)
		}
		request(a, 1, 1, "hello")
		reply(a, 1, 0, "alice hello")

		t.Log("a handler's context ends with the requester's patience; more than it takes is refused")
		request(a, 1, 2, "ctx")
		request(a, 1, 3, "wait")
		synctest.Wait()
		request(a, 1, 4, "too many")
		reply(a, 4, FaultBusy, "")
		reply(a, 2, FaultTimeout, "the handler did not end within the time-out")

		t.Log("over a reconnect it goes on serving, and answers what it had")
		a.conn.Close()
		b := n.nodes["b:1"].welcome(2)
		f = b.want(wire.TypeJoin)
		b.result(f.ID, wire.Joined)
		close(release)
		reply(b, 3, 0, "alice wait")

		t.Log("closed: what comes late is told so")
		done := make(chan error, 1)
		go func() { done <- s.Close(t.Context()) }()
		f = b.want(wire.TypeLeave)
		if f.Kind != wire.ToService || f.To != "clock" {
			t.Errorf("%+v", f)
		}
		request(b, 2, 5, "late")
		reply(b, 5, FaultGone, "")
		b.result(f.ID, wire.Left)
		if err := <-done; err != nil {
			t.Error(err)
		}

		t.Log("removed by the cluster")
		go serve(wire.Joined)
		b.result(b.want(wire.TypeJoin).ID, wire.Joined)
		s = <-served
		b.send(wire.Frame{Type: wire.TypeLeave, Kind: wire.ToService, To: "clock", Code: wire.Forbidden})
		<-s.Done()
		wantCode(t, s.Err(), wire.Forbidden)
		shut(t, c)
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var a *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { a = n.nodes["a:1"].welcome(1) })
		states := make(chan Presence, 100)
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { ended <- c.Watch(ctx, []string{"bob", "carol", "bob"}, func(p Presence) { states <- p }) }()
		f := a.want(wire.TypeWatch)
		if len(f.IDs) != 2 {
			t.Errorf("%+v", f)
		}
		tell := func(fc *fakeConn, id string, online wire.Flag, node string, epoch wire.Epoch) {
			fc.send(wire.Frame{Type: wire.TypePresence, Client: id, Online: online, Node: node, Epoch: epoch, Since: uint64(online) * 1000})
			synctest.Wait()
		}
		tell(a, "bob", 1, "n1", 5)
		tell(a, "bob", 1, "n1", 5) // the same
		tell(a, "carol", 0, "", 0)
		tell(a, "dave", 1, "n1", 5) // whom nobody watches
		a.result(f.ID, wire.OK)
		tell(a, "bob", 1, "n2", 7)
		tell(a, "bob", 0, "", 5) // of the past
		tell(a, "bob", 0, "", 7)
		tell(a, "bob", 1, "n2", 7) // that is over
		tell(a, "carol", 1, "n1", 8)

		t.Log("after a reconnect it is asked for again, and what is old news is not told")
		a.conn.Close()
		b := n.nodes["b:1"].welcome(2)
		f = b.want(wire.TypeWatch)
		b.result(f.ID, wire.OK)
		tell(b, "bob", 0, "", 0)
		tell(b, "carol", 1, "n1", 8)
		tell(b, "bob", 1, "n3", 9)
		var got []Presence
		for len(states) > 0 {
			p := <-states
			p.Since = time.Time{}
			got = append(got, p)
		}
		want := []Presence{
			{Client: "bob", Online: true, Node: "n1", Epoch: 5},
			{Client: "carol"},
			{Client: "bob", Online: true, Node: "n2", Epoch: 7},
			{Client: "bob", Epoch: 7},
			{Client: "carol", Online: true, Node: "n1", Epoch: 8},
			{Client: "bob", Online: true, Node: "n3", Epoch: 9},
		}
		if len(got) != len(want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%+v, want %+v", got[i], want[i])
			}
		}

		t.Log("its end")
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if f := b.want(wire.TypeUnwatch); len(f.IDs) != 2 {
			t.Errorf("%+v", f)
		} else {
			b.result(f.ID, wire.OK)
		}

		t.Log("refused")
		go func() { ended <- c.WatchFriends(t.Context(), func(Presence) {}) }()
		f = b.want(wire.TypeWatch)
		if f.To != wire.FriendsList {
			t.Errorf("%+v", f)
		}
		b.result(f.ID, wire.Refused)
		wantCode(t, <-ended, wire.Refused)
		if f := b.want(wire.TypeUnwatch); f.To != wire.FriendsList {
			t.Errorf("%+v", f)
		}
		for _, ids := range [][]string{nil, make([]string, 2000), {"a*"}} {
			if err := c.Watch(t.Context(), ids, nil); err == nil {
				t.Errorf("%d ids were taken", len(ids))
			}
		}
		shut(t, c)
	})
}
