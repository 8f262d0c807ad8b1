package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

// serve makes u an instance of a service.
func (u *user) serve(name string, h client.Handler, opts ...client.ServeOption) *client.Service {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := u.Serve(ctx, name, h, opts...)
	if err != nil {
		u.t.Fatalf("%v serves %s: %v", u.ID(), name, err)
	}
	return s
}

func (u *user) request(to client.Address, text string, timeout time.Duration) (client.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return u.Request(ctx, to, []byte(text), client.WithTimeout(timeout))
}

func (u *user) mustRequest(to client.Address, text, want string) client.Reply {
	u.t.Helper()
	r, err := u.request(to, text, patience)
	if err != nil || want != "" && string(r.Payload) != want {
		u.t.Fatalf("%v asks %s %s: %q, %v, want %q", u.ID(), to, text, r.Payload, err, want)
	}
	return r
}

func (u *user) refusedRequest(to client.Address, timeout time.Duration, want ...wire.Code) {
	u.t.Helper()
	r, err := u.request(to, "x", timeout)
	var we *wire.Error
	if !errors.As(err, &we) {
		u.t.Fatalf("%v asks %s: %q, %v, want %v", u.ID(), to, r.Payload, err, want)
	}
	for _, c := range want {
		if we.Code == c {
			return
		}
	}
	u.t.Fatalf("%v asks %s: %v, want %v", u.ID(), to, err, want)
}

func echo(name string) client.Handler {
	return func(_ context.Context, r client.Request) ([]byte, error) {
		return []byte(name + ":" + r.From + ":" + string(r.Payload)), nil
	}
}

// S8: several instances of a service on several nodes share its load, whoever asks and from wherever.
func TestServices(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice := c.dial("alice", n1)

	t.Log("a service without instances is offline, and that is proven")
	alice.refusedRequest(client.ToService("echo"), patience, wire.Offline)

	t.Log("each request goes to one instance")
	one, two, three := c.dial("echo/1", n1), c.dial("echo/2", n2), c.dial("echo/3", n2)
	first := one.serve("echo", echo("one"))
	alice.mustRequest(client.ToService("echo"), "a", "one:alice:a")
	two.serve("echo", echo("two"))
	three.serve("echo", echo("three"))
	c.until("everybody knows", func() error {
		for _, n := range []*Node{n1, n2, n3} {
			if h := n.fsm.Holders(serviceOf("", "echo"), nil); len(h) != 2 {
				return fmt.Errorf("%s: %v", n.name, h)
			}
		}
		return nil
	})
	answers := map[string]int{}
	for _, at := range []*Node{n1, n2, n3} {
		u := c.dial("asks-at-"+at.name, at)
		for i := range 30 {
			r := u.mustRequest(client.ToService("echo"), fmt.Sprint(i), "")
			answers[r.From]++
		}
	}
	for _, u := range []*user{one, two, three} {
		if n := answers[u.ID().ID]; n < 10 {
			t.Errorf("%v answered %d of 90", u.ID(), n)
		}
	}

	t.Log("many at once")
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 200 {
		wg.Go(func() {
			r, err := alice.request(client.ToService("echo"), fmt.Sprint(i), patience)
			if err != nil || len(r.Payload) < 8 {
				wrong.Add(1)
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()

	t.Log("faults, errors and panics are told")
	failing := c.dial("failing", n3)
	failing.serve("failing", func(_ context.Context, r client.Request) ([]byte, error) {
		switch string(r.Payload) {
		case "fault":
			return nil, &client.Fault{Code: 404, Text: "no such thing"}
		case "panic":
			panic("at the disco")
		}
		return nil, errors.New("some error")
	})
	for text, want := range map[string]client.Fault{
		"fault": {Code: 404, Text: "no such thing"}, "error": {Code: client.FaultInternal, Text: "some error"}, "panic": {Code: client.FaultInternal, Text: "the handler failed"},
	} {
		_, err := alice.request(client.ToService("failing"), text, patience)
		var f *client.Fault
		if !errors.As(err, &f) || *f != want {
			t.Errorf("%s: %v", text, err)
		}
	}

	t.Log("requests to a client, which answers a message")
	bob := c.dial("bob", n2)
	answered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for {
			m, err := bob.Receive(ctx)
			if err != nil || string(m.Payload) == "end" {
				answered <- err
				return
			}
			if string(m.Payload) == "bad" {
				m.ReplyFault(&client.Fault{Code: 7})
				continue
			}
			m.Reply([]byte("re " + string(m.Payload)))
		}
	}()
	alice.mustRequest(client.ToClient("bob"), "hello", "re hello")
	var f *client.Fault
	if _, err := alice.request(client.ToClient("bob"), "bad", patience); !errors.As(err, &f) || f.Code != 7 {
		t.Errorf("bad: %v", err)
	}
	alice.send("bob", "end", wire.AckOwner, wire.Delivered, patience)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	alice.refusedRequest(client.ToClient("nobody"), patience, wire.Offline)

	t.Log("the API")
	page, err := api{n3}.Services(c.ctx, admin.GroupQuery{Limit: 10})
	if err != nil || len(page.Services) != 2 || page.Services[0].Service != "echo" || page.Services[0].Instances != 3 || fmt.Sprint(page.Services[0].Nodes) != "[n1 n2]" {
		t.Errorf("services: %+v, %v", page, err)
	}
	res, err := api{n3}.Send(c.ctx, admin.Message{
		Kind: wire.ToService, To: wire.ClientID{ID: "echo"}, ID: wire.MessageID{Instance: wire.NewID(), Counter: 1}, Ack: wire.AckOwner, Timeout: patience, Payload: []byte("one way"),
	})
	if err != nil || res.Code != wire.Delivered {
		t.Errorf("API: %+v, %v", res, err)
	}

	t.Log("who stops serving gets no more, and what it has is answered first")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := first.Close(ctx); err != nil {
		t.Error(err)
	}
	for range 20 {
		if r := alice.mustRequest(client.ToService("echo"), "x", ""); r.From == "echo/1" {
			t.Fatal("asked after it had stopped")
		}
	}
}

// An instance that is busy leaves requests to others; if all are, that is told; one that took a request and died is not replaced.
func TestServiceFailures(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice := c.dial("alice", n3)
	slow, quick := c.dial("slow", n1), c.dial("quick", n2)
	release := make(chan struct{})
	taken := make(chan struct{}, 10)
	slow.serve("work", func(ctx context.Context, r client.Request) ([]byte, error) {
		taken <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return []byte("slow"), nil
	}, client.WithConcurrency(1))

	t.Log("one at a time: the second is refused, within its time-out")
	firstDone := make(chan error, 1)
	go func() {
		_, err := alice.request(client.ToService("work"), "1", patience)
		firstDone <- err
	}()
	<-taken
	alice.refusedRequest(client.ToService("work"), 300*time.Millisecond, wire.Overloaded)

	t.Log("the second goes to another instance")
	quickly := quick.serve("work", func(context.Context, client.Request) ([]byte, error) { return []byte("quick"), nil })
	for range 10 {
		alice.mustRequest(client.ToService("work"), "2", "quick")
	}

	t.Log("a request that waits for an instance gets the first that comes")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := quickly.Close(ctx); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		r, err := alice.request(client.ToService("work"), "3", patience)
		if err == nil && string(r.Payload) != "slow" {
			err = fmt.Errorf("answered %q", r.Payload)
		}
		waited <- err
	}()
	close(release)
	if err := errors.Join(<-firstDone, <-waited); err != nil {
		t.Error(err)
	}

	t.Log("an instance that dies with a request: the requester is told that nobody knows, and nobody else does it")
	var runs atomic.Int32
	hang := func(ctx context.Context, _ client.Request) ([]byte, error) {
		runs.Add(1)
		taken <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	d1 := c.dial("d1", n1)
	d1.serve("die", hang)
	dead := make(chan error, 1)
	go func() {
		_, err := alice.request(client.ToService("die"), "x", 700*time.Millisecond)
		dead <- err
	}()
	for len(taken) > 0 {
		<-taken
	}
	c.until("it has the request", func() error {
		if runs.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	c.dial("d2", n2).serve("die", hang)
	d1.hangUp()
	var we *wire.Error
	if err := <-dead; !errors.As(err, &we) || we.Code != wire.Timeout && we.Code != wire.Unknown {
		t.Errorf("dead: %v", err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}

	t.Log("a node that goes: the others are asked")
	e1 := c.dial("e1", n1)
	cfg2, e2 := dialConfig("e2", n2)
	cfg2.DisableReconnect = true // or it would serve on elsewhere
	if err := c.dialErr(cfg2, e2); err != nil {
		t.Fatal(err)
	}
	e1.serve("echo", echo("e1"))
	e2.serve("echo", echo("e2"))
	c.stop(n2)
	c.until("n3 knows", func() error {
		if h := n3.fsm.Holders(serviceOf("", "echo"), nil); len(h) != 1 {
			return fmt.Errorf("%v", h)
		}
		return nil
	})
	for i := range 10 {
		if r := alice.mustRequest(client.ToService("echo"), fmt.Sprint(i), ""); r.From != "e1" {
			t.Errorf("answered by %s", r.From)
		}
	}

	t.Log("an instance that moves goes on serving")
	cfg, moving := dialConfig("moving", n1, n3)
	if err := c.dialErr(cfg, moving); err != nil {
		t.Fatal(err)
	}
	moving.serve("moves", echo("m"))
	alice.mustRequest(client.ToService("moves"), "x", "m:alice:x")
	if _, err := (api{n3}).DrainNode(c.ctx, "n1", false); err != nil {
		t.Fatal(err)
	}
	c.until("it serves on n3", func() error {
		if n3.present.Load().topics.size(serviceOf("", "moves")) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	alice.mustRequest(client.ToService("moves"), "y", "m:alice:y")
}

// Outside development mode a client serves what its id says, and sees its friends only if there is a source that names them.
func TestMayServeAndWatch(t *testing.T) {
	c := newCluster(t)
	n := c.found("n1", func(cfg *Config) {
		cfg.Dev = false
		cfg.Friends = FriendFunc(func(context.Context, wire.ClientID) ([]string, error) { return []string{"clock/1"}, nil })
	})
	dial := func(id string, g admin.TokenGrants) *user {
		token, err := api{n}.ClientToken(c.ctx, wire.ClientID{ID: id}, time.Hour, g)
		if err != nil {
			t.Fatal(err)
		}
		cfg, u := dialConfig(id, n)
		cfg.Token = token.Token
		if err := c.dialErr(cfg, u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	clock, alice := dial("clock/1", admin.TokenGrants{}), dial("alice", admin.TokenGrants{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var we *wire.Error
	for _, name := range []string{"bank", "clock/1", "cloc"} {
		if _, err := clock.Serve(ctx, name, echo("x")); !errors.As(err, &we) || we.Code != wire.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	clock.serve("clock", echo("tick"))
	alice.mustRequest(client.ToService("clock"), "?", "tick:alice:?")
	worker := dial("worker/7", admin.TokenGrants{Send: &[]string{"service:clock"}, Join: &[]string{"service:bank*"}})
	if _, err := worker.Serve(ctx, "worker", echo("x")); !errors.As(err, &we) || we.Code != wire.Forbidden {
		t.Errorf("the token says which services, the id no longer does: %v", err)
	}
	worker.serve("bank/eu", echo("paid"))
	alice.mustRequest(client.ToService("bank/eu"), "1", "paid:alice:1")
	worker.mustRequest(client.ToService("clock"), "?", "tick:worker/7:?")
	worker.refusedRequest(client.ToService("bank/eu"), patience, wire.Forbidden)
	if err := <-alice.watch("clock").result; !errors.As(err, &we) || we.Code != wire.Forbidden {
		t.Errorf("watching by name: %v", err)
	}
	alice.watch().seesOnline("clock/1", "n1")
}
