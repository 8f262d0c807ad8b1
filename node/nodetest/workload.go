package nodetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// LoadOptions say what a workload does. Zero values mean the default named.
type LoadOptions struct {
	Clients  int           // default 10
	Pause    time.Duration // of a client between two operations, on average; default 20 ms
	Timeout  time.Duration // of sends; default 3 s
	Lookers  int           // goroutines that look clients up, each at one node; default two for each node; -1: none
	Couriers int           // clients that try each message again until its time-out; default one for each node
	Calm     bool          // no moves, takeovers and kicks: clients stay where they are unless a fault drives them away

	Steady    int           // the first so many clients stay where they are and send to the others only; default none
	Takeovers int           // of a thousand operations of the others, how many take their own place at another node; default 6
	Swaps     int           // how many do so at the same node while the former connection closes; default none
	Burst     int           // messages sent in a row, at most; default 4
	AckDelay  time.Duration // how long a client looks at a message before it acknowledges it; default 0
}

// Workload is the clients of a Cluster at work. Its methods are for the test's own goroutine.
type Workload struct {
	c       *Cluster
	o       LoadOptions
	clients []string
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	settled bool
}

// dialWait bounds one login; a client that does not get in tries again.
const dialWait = 8 * time.Second

// Load starts clients, waits until all are logged in, and lets them work until Finish.
func (c *Cluster) Load(t testing.TB, o LoadOptions) *Workload {
	t.Helper()
	if o.Clients == 0 {
		o.Clients = 10
	}
	if o.Pause == 0 {
		o.Pause = 20 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Takeovers == 0 {
		o.Takeovers = 6
	}
	if o.Burst == 0 {
		o.Burst = 4
	}
	if o.Lookers == 0 {
		o.Lookers = 2 * len(c.Nodes)
	}
	if o.Couriers == 0 {
		o.Couriers = len(c.Nodes)
	}
	w := &Workload{c: c, o: o}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for i := range o.Clients {
		w.clients = append(w.clients, fmt.Sprintf("c%02d", i))
	}
	t.Cleanup(func() { w.stop() })
	for i := range w.clients {
		a := &actor{w: w, name: w.clients[i], steady: i < o.Steady, random: rand.New(rand.NewPCG(c.Seed, uint64(i)+100)), home: i % len(c.Nodes)}
		w.wg.Go(a.run)
	}
	for i := range o.Couriers {
		w.wg.Go(func() { w.courier(i) })
	}
	for i := range o.Lookers {
		random := rand.New(rand.NewPCG(c.Seed, uint64(i)+1000))
		w.wg.Go(func() { w.look(random, c.Nodes[i%len(c.Nodes)]) })
	}
	w.AwaitServed(t, c.history.now(), startWait)
	return w
}

// AwaitServed waits until every client was reached by a message sent at or after since, and returns how long after since
// the last of them was reached.
func (w *Workload) AwaitServed(t testing.TB, since, timeout time.Duration) time.Duration {
	t.Helper()
	var last time.Duration
	w.c.Await(t, "every client to be reached", timeout, func(context.Context) error {
		at := w.c.history.served(since)
		var missing []string
		last = 0
		for _, name := range w.clients {
			if v, ok := at[name]; ok {
				last = max(last, v-since)
			} else {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("not reached yet: %s", strings.Join(missing, " "))
		}
		return nil
	})
	return last
}

// Outcome is what a run showed.
type Outcome struct {
	Operations int
	Violations []Violation
	Results    map[wire.Code]int // of acknowledged sends whose SDK waited for the outcome
	Errands    string            // what became of them
}

// Finish lets the cluster settle, ends the workload, and reports what the checkers found to t.
func (w *Workload) Finish(t testing.TB) Outcome {
	t.Helper()
	o := w.Judge(t)
	for _, v := range o.Violations {
		t.Errorf("violation (seed %d): %s", w.c.Seed, v)
	}
	t.Logf("%d operations; acknowledged sends: %v; %s", o.Operations, o.Results, o.Errands)
	return o
}

// Judge is Finish without reporting.
func (w *Workload) Judge(t testing.TB) Outcome {
	t.Helper()
	w.stop()
	e, err := w.c.evidence()
	if err != nil {
		t.Fatal(err)
	}
	o := Outcome{Results: map[wire.Code]int{}}
	h := e.History
	o.Operations = len(h.Sends) + len(h.Lookups) + len(h.Kicks) // errands are made of sends
	for _, s := range h.SDKs {
		for _, st := range s.States {
			if st.Connected {
				o.Operations++
			}
		}
	}
	for _, s := range h.Sends {
		if s.Ack != wire.AckNone && !s.GivenUp {
			o.Results[s.Code]++
		}
	}
	o.Errands = errands(&e)
	o.Violations = Check(&e)
	if len(o.Violations) > 0 {
		w.c.keep(t, &e)
	}
	return o
}

func (w *Workload) stop() {
	if !w.settled {
		w.settled = true
		w.cancel()
		w.wg.Wait()
	}
}

// look looks clients up at a node that may be gone; only answers count. It waits long enough for a node that was stopped to
// answer when it goes on: that is when a stale answer would come.
func (w *Workload) look(random *rand.Rand, n *Node) {
	for w.ctx.Err() == nil {
		w.c.lookUp(w.ctx, w.clients[random.IntN(len(w.clients))], n)
		w.rest(random, 60*time.Millisecond)
	}
}

// lookUp looks a client up at n and notes the answer, if there is one.
func (c *Cluster) lookUp(ctx context.Context, name string, n *Node) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	call := c.history.now()
	r, err := n.admin.Route(ctx, wire.ClientID{ID: name}, "", false)
	if err != nil {
		return
	}
	l := Lookup{Client: name, Asked: n.Name, Call: call, Return: c.history.now(), Owner: r.Node}
	if r.Found {
		l.Epoch = r.Epoch
	}
	c.history.lookedUp(l)
}

// rest lets about d pass, or less if the workload ends.
func (w *Workload) rest(random *rand.Rand, d time.Duration) {
	timer := time.NewTimer(d/2 + time.Duration(random.Int64N(int64(d))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// actor is one client id; its goroutine owns it.
type actor struct {
	w      *Workload
	name   string
	random *rand.Rand
	home   int // the node it is to log in at next
	steady bool
	now    *member
	seq    int
}

// member is one SDK of an actor.
type member struct {
	sdk *SDK
	c   *client.Client
}

func (a *actor) run() {
	defer a.leave()
	for a.w.ctx.Err() == nil {
		if a.now != nil {
			select {
			case <-a.now.c.Done():
				a.leave()
				a.home = a.random.IntN(len(a.w.c.Nodes))
			default:
			}
		}
		if a.now == nil {
			if a.now = a.dial(); a.now == nil {
				a.home = (a.home + 1) % len(a.w.c.Nodes)
				continue
			}
		}
		moves, o := !a.w.o.Calm && !a.steady, &a.w.o
		switch k := a.random.IntN(1000); {
		case moves && k < 6:
			a.leave()
			a.home = a.random.IntN(len(a.w.c.Nodes))
		case moves && k < 6+o.Takeovers:
			a.replace()
		case moves && k < 6+o.Takeovers+o.Swaps:
			a.swap()
		case moves && k < 9+o.Takeovers+o.Swaps:
			a.kick()
		default:
			a.send()
		}
		a.w.rest(a.random, a.w.o.Pause)
	}
}

// dial logs in, at home first; nil if nobody took it.
func (a *actor) dial() *member {
	h := a.w.c.history
	m := &member{sdk: h.newSDK(a.name)}
	var addrs []string
	ws := a.random.IntN(3) == 0 // for as long as this SDK lives: the cluster tells it of addresses of its own kind
	for i := range a.w.c.Nodes {
		n := a.w.c.Nodes[(a.home+i)%len(a.w.c.Nodes)]
		if ws {
			addrs = append(addrs, "ws://"+n.ClientWS)
		} else {
			addrs = append(addrs, n.ClientTCP)
		}
	}
	ctx, cancel := context.WithTimeout(a.w.ctx, dialWait)
	defer cancel()
	var err error
	m.c, err = client.Dial(ctx, client.Config{
		Addrs: addrs, Client: a.name, DialContext: a.w.c.dial, Timeout: a.w.o.Timeout, DialTimeout: 500 * time.Millisecond, LoginTimeout: 3 * time.Second,
		BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
		OnMessage: func(msg client.Message) {
			h.receive(Received{SDK: m.sdk.Number, To: a.name, From: msg.From, ID: msg.ID, Epoch: msg.Epoch})
			if a.w.o.AckDelay > 0 {
				a.w.c.Wait(a.w.o.AckDelay)
			}
		},
		OnState: func(s client.State) {
			if s.Kind == client.Waiting {
				return
			}
			h.state(m.sdk, SDKState{Connected: s.Kind == client.Connected, Epoch: s.Epoch, Node: s.Node, Code: s.Code})
		},
		OnRefused: func(r client.Result) { h.refusal(r.ID, r.Code) },
	})
	if err != nil {
		return nil
	}
	h.named(m.sdk, m.c.Instance())
	return m
}

// leave ends the present SDK, if there is one.
func (a *actor) leave() {
	if a.now == nil {
		return
	}
	a.w.c.history.closed(a.now.sdk)
	a.now.close()
	a.now = nil
}

func (m *member) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = m.c.Close(ctx) // that a node did not answer is among what is tested
}

// replacedWait is how long a replaced SDK is left to hear of it: a node that wrongly goes on serving it must have the time.
const replacedWait = 2 * time.Second

// replace logs a second SDK in, elsewhere, while the first is still there and stays until it is told to go.
func (a *actor) replace() {
	a.home = a.random.IntN(len(a.w.c.Nodes))
	next := a.dial()
	if next == nil {
		return
	}
	old := a.now
	a.now = next
	a.w.wg.Go(func() {
		timer := time.NewTimer(replacedWait)
		defer timer.Stop()
		select {
		case <-old.c.Done():
		case <-timer.C:
		case <-a.w.ctx.Done():
		}
		a.w.c.history.closed(old.sdk)
		old.close()
	})
}

// swap logs a second SDK in at the same node while the first one closes: which of the two the node hears of first is open.
func (a *actor) swap() {
	old, later := a.now, time.Duration(a.random.Int64N(int64(3*time.Millisecond)))
	a.now = nil
	a.w.wg.Go(func() {
		a.w.c.Wait(later)
		a.w.c.history.closed(old.sdk)
		old.close()
	})
	a.now = a.dial()
}

func (a *actor) kick() {
	name, n := a.someone(), a.w.c.Nodes[a.random.IntN(len(a.w.c.Nodes))]
	ctx, cancel := context.WithTimeout(a.w.ctx, time.Second)
	defer cancel()
	call := a.w.c.history.now()
	if r, err := n.admin.Kick(ctx, wire.ClientID{ID: name}, "test"); err == nil {
		a.w.c.history.kicked(Kick{Client: name, Epoch: r.Epoch, Call: call, Return: a.w.c.history.now()})
	}
}

func (a *actor) someone() string {
	others := a.w.clients
	if a.steady {
		others = others[a.w.o.Steady:]
	}
	for {
		if name := others[a.random.IntN(len(others))]; name != a.name || len(others) == 1 {
			return name
		}
	}
}

// send sends a few messages in a row to one recipient, without waiting for one before the next.
func (a *actor) send() {
	to := a.someone()
	for range 1 + a.random.IntN(a.w.o.Burst) {
		a.seq++
		s := &Send{SDK: a.now.sdk.Number, From: a.name, To: to, Ack: wire.AckMode(a.random.IntN(3)), Timeout: a.w.o.Timeout}
		h := a.w.c.history
		h.sending(s)
		id, err := a.now.c.SendAsync(to, fmt.Appendf(nil, "%s|%s|%d", a.name, to, a.seq), s.Ack, 0, func(r client.Result) {
			h.result(s, r.ID, r.Code, r.Owner, r.Text, errors.Is(r.Err(), client.ErrClosed))
		})
		h.sent(s, id, err == nil)
		if err != nil {
			if !errors.Is(err, client.ErrOverloaded) {
				return // it has just ended
			}
		}
	}
}

// Dial logs one more client in, at the given nodes in turn, not recorded. The caller closes it.
func (c *Cluster) Dial(t testing.TB, name string, nodes ...*Node) *client.Client {
	t.Helper()
	cl, err := c.TryDial(name, dialWait, nodes...)
	if err != nil {
		t.Fatalf("%s logging in at %v: %v", name, names(nodes), err)
	}
	return cl
}

// TryDial is Dial that may fail.
func (c *Cluster) TryDial(name string, timeout time.Duration, nodes ...*Node) (*client.Client, error) {
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.ClientTCP)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return client.Dial(ctx, client.Config{
		Addrs: addrs, Client: name, DialTimeout: 500 * time.Millisecond, LoginTimeout: 3 * time.Second,
		BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond, OnMessage: func(client.Message) {},
	})
}

func names(nodes []*Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return slices.Clip(out)
}
