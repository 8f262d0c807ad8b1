package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// OverloadOptions is a run of Overload.
type OverloadOptions struct {
	Senders    int           // clients that send in bursts, each to a recipient of its own
	Messages   int           // that they send together at the beginning of each second
	Within     time.Duration // how long they take for that
	Members    int           // of one group, over all nodes; 0: no group
	GroupBurst int           // messages to the group at the beginning of each second
	Pairs      int           // others, whose latency is measured
	Rate       float64       // requests a second of all pairs together, each acknowledged by its recipient
	NoReader   bool          // there is one client that does not read, and one that sends to it all the time
	Size       int           // bytes of a payload
	Calm       time.Duration // without any of that, first
	Duration   time.Duration // with it

	// Bounds; one that does not hold is a problem of the run. 0: not checked.
	MaxP99    time.Duration // of the others, under overload
	MaxGrowth int64         // of any node's memory over what it had before, in bytes

	// Others, if set, is Send in another process, so that what the pairs wait for is not this one, which has the bursts and all members
	// to itself. nil: they are here.
	Others func(context.Context, Target, SendOptions) (Result, error)
	// SlowReaders, if set, says how many sessions the nodes have closed so far because their clients did not read.
	SlowReaders func(context.Context) (int64, error)
}

// Validate names the option at fault.
func (o OverloadOptions) Validate() error {
	switch {
	case o.Senders < 1 || o.Senders > MaxSpread:
		return fmt.Errorf("senders is %d: want 1 to %d", o.Senders, MaxSpread)
	case o.Messages < o.Senders || o.Messages > 5_000_000:
		return fmt.Errorf("messages is %d: want as many as there are senders, up to 5000000", o.Messages)
	case o.Within <= 0 || o.Within > time.Second:
		return fmt.Errorf("within is %v: want more than 0 and at most 1s", o.Within)
	case o.Members < 0 || o.Members > 100_000:
		return fmt.Errorf("members is %d: want 0 to 100000", o.Members)
	case o.GroupBurst < 0 || o.GroupBurst > 10_000:
		return fmt.Errorf("group-burst is %d: want 0 to 10000", o.GroupBurst)
	case o.Pairs < 1 || o.Pairs > MaxSpread:
		return fmt.Errorf("pairs is %d: want 1 to %d", o.Pairs, MaxSpread)
	case o.Rate <= 0 || o.Rate > 1e5:
		return fmt.Errorf("rate is %g: want more than 0 and at most 100000", o.Rate)
	case o.Size < MinSize || o.Size > 64<<10:
		return fmt.Errorf("size is %d: want %d (each message is stamped) to %d bytes", o.Size, MinSize, 64<<10)
	case o.Calm <= 0 || o.Duration <= 0:
		return errors.New("the calm time and the duration must be more than 0")
	}
	return nil
}

// overloadDrain is how long the last messages of a run may take to be answered: their time-out, and a little.
const (
	overloadTimeout = 5 * time.Second
	overloadDrain   = overloadTimeout + 5*time.Second
)

// Overload sends much more than a cluster of this size can take, in bursts, and measures that nothing falls over: no session
// is lost, every message is answered, what is refused has not arrived, memory is bounded, the client that does not read is
// closed, and others still get through. Result's own figures are those of the others, under overload; their lost messages
// are those that were not acknowledged.
func Overload(ctx context.Context, t Target, o OverloadOptions) (Result, error) {
	r := Result{Name: "imroute-overload", Pairs: o.Pairs, Size: o.Size, Offered: o.Rate, Cluster: t.clusterName()}
	if err := o.Validate(); err != nil {
		return r, err
	}
	if err := checkFiles(2*o.Senders + o.Members + 2*o.Pairs + 8); err != nil { // also if the pairs are elsewhere
		return r, err
	}
	v := &overload{o: o, t: &t, r: &OverloadResult{}, base: time.Now(), codes: map[string]int64{}}
	defer v.close()
	if err := v.connect(ctx); err != nil {
		return r, err
	}
	err := v.run(ctx, &r)
	r.Overload = v.r
	v.judge(&r)
	return r, err
}

// overload is one run.
type overload struct {
	o    OverloadOptions
	t    *Target
	r    *OverloadResult
	base time.Time

	bursters, takers, members *fleet
	deaf                      *deaf
	flooder                   *fleet // to the deaf one; its second client sends to the group

	books          []ledger     // of takers
	reachedMembers atomic.Int64 // messages that members got
	sent           atomic.Int64 // by bursters, handed to the SDK
	answered       atomic.Int64
	delivered      atomic.Int64
	refused        atomic.Int64 // answered that nothing was delivered
	unknown        atomic.Int64 // answered that nobody knows
	heldBack       atomic.Int64 // not sent: the SDK had no room
	groupSent      atomic.Int64
	groupAnswered  atomic.Int64
	groupCounted   atomic.Int64 // members reached, as the answers say
	lost           atomic.Int64 // requests of the others

	mu    sync.Mutex
	codes map[string]int64 // of answers but delivered, to bursts
}

const overloadGroup = "bench-overload"

// node picks the i-th address round robin.
func (v *overload) node(i int) []string { i %= len(v.t.Addrs); return v.t.Addrs[i : i+1] }

func (v *overload) connect(ctx context.Context) error {
	o := &v.o
	v.takers, v.bursters = newFleet(o.Senders, "r"), newFleet(o.Senders, "s")
	v.members, v.flooder = newFleet(o.Members, "m"), newFleet(2, "f")
	v.books = make([]ledger, o.Senders)
	for i := range v.books {
		v.books[i].next, v.books[i].first = make([]uint32, 1), i
	}
	for _, f := range []struct {
		fleet *fleet
		conf  func(i int, cfg *client.Config)
	}{
		{v.members, func(i int, cfg *client.Config) {
			cfg.Addrs, cfg.Groups = v.node(i), []string{overloadGroup}
			cfg.DialContext = sourceDialer(cfg.Addrs[0], i)
			cfg.OnMessage = func(client.Message) { v.reachedMembers.Add(1) }
		}},
		{v.takers, func(i int, cfg *client.Config) {
			cfg.Addrs = v.node(i + 1)
			cfg.OnMessage = func(m client.Message) { v.books[i].take(o.Size, m.Payload) }
		}},
		{v.bursters, func(i int, cfg *client.Config) { cfg.Addrs, cfg.Timeout = v.node(i), overloadTimeout }},
		{v.flooder, func(i int, cfg *client.Config) { cfg.Addrs, cfg.Timeout = v.node(i), overloadTimeout }},
	} {
		if err := f.fleet.dial(ctx, v.t, time.Minute, f.conf); err != nil {
			return err
		}
	}
	if !o.NoReader {
		return nil
	}
	cfg := client.Config{Client: v.takers.prefix + "-deaf", Addrs: v.node(len(v.t.Addrs) - 1)}
	if v.t.Configure != nil {
		if err := v.t.Configure(&cfg); err != nil {
			return err
		}
	}
	var err error
	v.deaf, err = dialDeaf(ctx, cfg)
	return err
}

func (v *overload) close() {
	if v.deaf != nil {
		v.deaf.close()
	}
	for _, f := range []*fleet{v.bursters, v.flooder, v.takers, v.members} {
		if f != nil {
			f.close(closeMost)
		}
	}
}

// moved is how many sessions ended although nobody closed them.
func (v *overload) moved() (n int64) {
	for _, f := range []*fleet{v.bursters, v.flooder, v.takers, v.members} {
		n += f.moved.Load()
	}
	return n
}

func (v *overload) now() time.Duration { return time.Since(v.base) }

// run goes through the phases.
func (v *overload) run(ctx context.Context, r *Result) error {
	slowBefore, err := v.slowReaders(ctx)
	if err != nil {
		return err
	}
	mem := watchMemory(v.t.PIDs)
	defer mem.stop()
	calm, err := v.ask(ctx, r, "calm", v.o.Calm)
	if err != nil {
		return err
	}
	v.r.CalmP50, v.r.CalmP99 = calm.P50, calm.P99
	mem.mark()
	mark := markUsage(v.t.PIDs)
	over := v.t.measuring(ctx, v.o.Duration)
	var flood, storm sync.WaitGroup
	if v.deaf != nil { // a node gives it up after its write time-out, which may be later than the others have ended
		flooding, enough := context.WithTimeout(ctx, v.o.Duration+deafPatience)
		defer enough()
		flood.Go(func() { v.flood(flooding) })
	}
	storming, enough := context.WithCancel(ctx)
	defer enough()
	storm.Go(func() { v.bursts(storming) })
	if v.o.Members > 0 && v.o.GroupBurst > 0 {
		storm.Go(func() { v.groupBursts(storming) })
	}
	stormy, err := v.ask(ctx, r, "overload", v.o.Duration)
	enough()
	storm.Wait()
	u := mark.until(v.t.PIDs)
	over()
	r.over(stormy.Received, u)
	r.P50, r.P99, r.P999 = stormy.P50, stormy.P99, stormy.P999
	v.drain(context.WithoutCancel(ctx))
	flood.Wait()
	mem.stop()
	v.r.RSSBefore, v.r.RSSPeak, v.r.RSSAfter, v.r.RSSGrowth = mem.before, mem.peak, mem.after, mem.growth
	if v.deaf != nil {
		v.r.NoReader = true
		v.r.NoReaderClosed = v.deaf.ended(deafMost)
	}
	slow, e := v.slowReaders(context.WithoutCancel(ctx))
	if e != nil {
		r.problem("the nodes did not say whom they have closed: %v", e)
	}
	v.r.SlowReaders = slow - slowBefore
	return err
}

func (v *overload) slowReaders(ctx context.Context) (int64, error) {
	if v.o.SlowReaders == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return v.o.SlowReaders(ctx)
}

// ask has the others talk for d, from all nodes to all nodes, and returns how long their requests took: an open loop, in which latency
// counts from when each was due.
func (v *overload) ask(ctx context.Context, r *Result, name string, d time.Duration) (Result, error) {
	defer startReports(v.t, name, d, v.answered.Load, nil)()
	o := SendOptions{Pairs: v.o.Pairs, Size: v.o.Size, Rate: v.o.Rate, Ack: wire.AckClient, Placement: Mix, Warm: min(d/4, 500*time.Millisecond), Duration: d}
	send := v.o.Others
	if send == nil {
		send = Send
	}
	t := *v.t
	t.Progress, t.Measuring = nil, nil // those of the whole run
	got, err := send(ctx, t, o)
	v.lost.Add(got.Lost)
	for _, p := range got.Problems {
		r.problem("others: %s", p)
	}
	return got, err
}

// eachSecond calls do at the beginning of each second until ctx ends; do gets the moment at which its burst is to be over.
func (v *overload) eachSecond(ctx context.Context, do func(until time.Duration)) {
	for at := v.now(); ctx.Err() == nil; at += time.Second {
		if behind := v.now() - at; behind > time.Second { // no burst is made up for
			at += behind.Truncate(time.Second)
		}
		if pause(ctx, at-v.now()) != nil {
			return
		}
		do(at + v.o.Within)
	}
}

// bursts has all senders send their part at once, as evenly over the given time as they can.
func (v *overload) bursts(ctx context.Context) {
	seqs := make([]uint32, v.o.Senders)
	each := v.o.Messages / v.o.Senders
	v.eachSecond(ctx, func(until time.Duration) {
		var wg sync.WaitGroup
		start := v.now()
		for i := range v.o.Senders {
			wg.Go(func() {
				b := make([]byte, v.o.Size)
				for n := range each {
					if n%32 == 0 { // not faster than asked for
						due := start + time.Duration(n)*(until-start)/time.Duration(each)
						nap(due - v.now())
					}
					if !v.burst(i, b, &seqs[i]) {
						v.heldBack.Add(int64(each - n))
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// burst sends one message; false: the SDK takes no more at the moment.
func (v *overload) burst(i int, b []byte, seq *uint32) bool {
	stamp{due: v.now(), sender: uint32(i), seq: *seq}.put(b)
	v.sent.Add(1)
	_, err := v.bursters.clients[i].SendAsync(v.takers.id(i), b, wire.AckOwner, overloadTimeout, v.result)
	if err != nil {
		v.sent.Add(-1)
		return false
	}
	*seq++
	return true
}

func (v *overload) result(r client.Result) {
	switch r.Code {
	case wire.Delivered:
		v.delivered.Add(1)
	case wire.Unknown, wire.Timeout, wire.Unavailable:
		v.unknown.Add(1)
	default:
		v.refused.Add(1)
	}
	if r.Code != wire.Delivered {
		v.mu.Lock()
		v.codes[r.Code.String()]++
		v.mu.Unlock()
	}
	v.answered.Add(1)
}

func (v *overload) groupBursts(ctx context.Context) {
	payload := make([]byte, v.o.Size)
	v.eachSecond(ctx, func(time.Duration) {
		for range v.o.GroupBurst {
			v.groupSent.Add(1)
			_, err := v.flooder.clients[1].SendToAsync(client.ToGroup(overloadGroup), payload, wire.AckOwner, overloadTimeout, func(r client.Result) {
				v.groupCounted.Add(int64(r.Count))
				v.groupAnswered.Add(1)
			})
			if err != nil {
				v.groupSent.Add(-1)
			}
		}
	})
}

// flood sends to the client that does not read, as long as it has a session.
func (v *overload) flood(ctx context.Context) {
	payload := make([]byte, 64<<10) // so that sockets are full soon, and the node finds out
	started := v.now()
	for ctx.Err() == nil {
		r, err := v.flooder.clients[0].Send(ctx, v.deaf.id, payload, client.WithAck(wire.AckOwner), client.WithTimeout(overloadTimeout))
		switch {
		case ctx.Err() != nil:
			return
		case r.Code == wire.Offline:
			v.r.NoReaderMS = (v.now() - started).Milliseconds()
			return
		case err == nil:
		default:
			_ = pause(ctx, 5*time.Millisecond) // refused: its queue is full
		}
	}
}

// drain waits until everything is answered and what was delivered has arrived.
func (v *overload) drain(ctx context.Context) {
	defer startReports(v.t, "draining", 0, v.answered.Load, nil)()
	ctx, cancel := context.WithTimeout(ctx, overloadDrain)
	defer cancel()
	for {
		if v.answered.Load() == v.sent.Load() && v.groupAnswered.Load() == v.groupSent.Load() &&
			v.arrived() >= v.delivered.Load() && v.reachedMembers.Load() >= v.groupCounted.Load() {
			break
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			break
		}
	}
	_ = pause(ctx, 500*time.Millisecond) // and what should not arrive has time to
}

func (v *overload) arrived() (n int64) {
	for i := range v.books {
		n += v.books[i].unique.Load()
	}
	return n
}
