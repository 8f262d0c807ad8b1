package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// GroupOptions is a run of Group.
type GroupOptions struct {
	Members  int // of one group, over all nodes
	Senders  int // each sends its next message once it was told how many the last one reached
	Size     int // bytes of a payload
	Warm     time.Duration
	Duration time.Duration
}

// Validate names the option at fault.
func (o GroupOptions) Validate() error {
	switch {
	case o.Members < 1 || o.Members > 1_000_000:
		return fmt.Errorf("members is %d: want 1 to 1000000", o.Members)
	case o.Senders < 1 || o.Senders > 64:
		return fmt.Errorf("senders is %d: want 1 to 64", o.Senders)
	case o.Size < MinSize || o.Size > 64<<10:
		return fmt.Errorf("size is %d: want %d (each message is stamped) to %d bytes", o.Size, MinSize, 64<<10)
	case o.Duration <= 0 || o.Warm < 0:
		return errors.New("duration must be more than 0, warm not negative")
	}
	return nil
}

// GroupResult is what only "group" has. Result's received, rate and quantiles are of copies: how long after a message was sent each
// member had it. Its lost are copies that never came although the sender was told that all members were reached.
type GroupResult struct {
	Members   int     `json:"members"`
	Senders   int     `json:"senders"`
	JoinMS    int64   `json:"join_ms"`  // until all had logged in and were members
	Messages  int64   `json:"messages"` // sent in the whole run
	Short     int64   `json:"short"`    // of these: answered otherwise than that all members were reached
	AnswerP50 float64 `json:"answer_p50_us"`
	AnswerP99 float64 `json:"answer_p99_us"` // until the sender was told how many were reached
	RSSBefore int64   `json:"rss_before_bytes"`
	RSSAfter  int64   `json:"rss_after_bytes"` // of all nodes, at the end of the run
	LoadRSS   int64   `json:"load_rss_bytes"`
}

// groupTimeout bounds one message: a large group on a small machine takes its time.
const groupTimeout = 30 * time.Second

// group is one run.
type group struct {
	o    GroupOptions
	base time.Time
	name string

	members, senders *fleet
	books            []ledger     // of members
	from             atomic.Int64 // what was sent from then on is measured
	copies           atomic.Int64 // measured ones that arrived
	sent, reached    atomic.Int64 // messages, and members that their senders were told of
	short            atomic.Int64 // see GroupResult
	latency, answers *stripes     // of measured messages
	mu               sync.Mutex
	codes            map[string]int64 // of messages that did not reach all
}

func (g *group) now() time.Duration { return time.Since(g.base) }

// Group measures messages to one large group: each is answered with how many members it reached, and all of them must get each
// message once, in the order of its sender.
func Group(ctx context.Context, t Target, o GroupOptions) (Result, error) {
	r := Result{Name: "imroute-group", Pairs: o.Members, Size: o.Size, Cluster: t.clusterName()}
	if err := o.Validate(); err != nil {
		return r, err
	}
	if err := checkFiles(o.Members + o.Senders); err != nil {
		return r, err
	}
	d := &GroupResult{Members: o.Members, Senders: o.Senders, RSSBefore: rssAll(t.PIDs)}
	g := &group{
		o: o, base: time.Now(), members: newFleet(o.Members, "m"), senders: newFleet(o.Senders, "s"), books: make([]ledger, o.Members),
		latency: newStripes(16), answers: newStripes(o.Senders), codes: map[string]int64{},
	}
	g.name = g.members.prefix
	g.from.Store(math.MaxInt64)
	defer g.members.close(closeMost)
	defer g.senders.close(closeMost)
	if err := g.connect(ctx, &t, d); err != nil {
		return r, err
	}
	err := g.run(ctx, &t, &r)
	d.RSSAfter, d.LoadRSS = rssAll(t.PIDs), rssOf(os.Getpid())
	g.judge(&r, d)
	return r, err
}

func rssAll(pids []int) (sum int64) {
	for _, pid := range pids {
		sum += rssOf(pid)
	}
	return sum
}

func (g *group) connect(ctx context.Context, t *Target, d *GroupResult) error {
	for i := range g.books {
		g.books[i].next = make([]uint32, g.o.Senders)
	}
	start := time.Now()
	err := g.members.dial(ctx, t, time.Minute, func(i int, cfg *client.Config) {
		at := i % len(t.Addrs)
		cfg.Addrs, cfg.Groups = t.Addrs[at:at+1], []string{g.name}
		cfg.DialContext = sourceDialer(t.Addrs[at], i)
		cfg.OnMessage = func(m client.Message) { g.take(i, m.Payload) }
	})
	if err != nil {
		return err
	}
	d.JoinMS = time.Since(start).Milliseconds()
	return g.senders.dial(ctx, t, time.Minute, func(i int, cfg *client.Config) {
		at := i % len(t.Addrs)
		cfg.Addrs = t.Addrs[at : at+1]
	})
}

func (g *group) take(member int, b []byte) {
	s, ok := g.books[member].take(g.o.Size, b)
	if ok && int64(s.due) >= g.from.Load() {
		g.latency.add(member, g.now()-s.due)
		g.copies.Add(1)
	}
}

func (g *group) run(ctx context.Context, t *Target, r *Result) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	for i := range g.o.Senders {
		workers.Go(func() { g.send(sending, i) })
	}
	phase := func(name string, d time.Duration) error {
		defer startReports(t, name, d, g.copies.Load, nil)()
		return pause(ctx, d)
	}
	err := phase("warm-up", g.o.Warm)
	if err == nil {
		mark := markUsage(t.PIDs)
		over := t.measuring(ctx, g.o.Duration)
		g.from.Store(int64(g.now()))
		err = phase("measuring", g.o.Duration)
		stop()
		workers.Wait()
		g.drain(context.WithoutCancel(ctx))
		r.over(g.copies.Load(), mark.until(t.PIDs))
		over()
	}
	stop()
	workers.Wait()
	return err
}

// send is one sender. A message under way when ctx ends is waited for.
func (g *group) send(ctx context.Context, i int) {
	b := make([]byte, g.o.Size)
	for seq := uint32(0); ctx.Err() == nil; seq++ {
		at := g.now()
		stamp{due: at, sender: uint32(i), seq: seq}.put(b)
		g.sent.Add(1)
		r, err := g.senders.clients[i].SendTo(context.WithoutCancel(ctx), client.ToGroup(g.name), b, client.WithAck(wire.AckOwner), client.WithTimeout(groupTimeout))
		g.reached.Add(int64(r.Count))
		if err != nil || r.Code != wire.Delivered || r.Count != g.o.Members {
			g.short.Add(1)
			g.mu.Lock()
			g.codes[r.Code.String()]++
			g.mu.Unlock()
			_ = pause(ctx, 10*time.Millisecond) // do not hammer what refuses at once
		} else if int64(at) >= g.from.Load() {
			g.answers.add(i, g.now()-at)
		}
	}
}

// arrived is how many copies came, each counted once.
func (g *group) arrived() (n int64) {
	for i := range g.books {
		n += g.books[i].unique.Load()
	}
	return n
}

// drain waits until what was reached has arrived: written to a connection is not yet read.
func (g *group) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, overloadDrain)
	defer cancel()
	for g.arrived() < g.reached.Load() && pause(ctx, time.Millisecond) == nil {
	}
}

func (g *group) judge(r *Result, d *GroupResult) {
	r.quantiles(g.latency.sum())
	answers := g.answers.sum()
	d.AnswerP50, d.AnswerP99 = answers.Quantile(.5), answers.Quantile(.99)
	d.Messages, d.Short = g.sent.Load(), g.short.Load()
	r.Group = d
	for i := range g.books {
		b := &g.books[i]
		r.Duplicated += b.duplicated.Load()
		r.Disordered += b.disordered.Load()
		r.Damaged += b.damaged.Load()
	}
	r.Lost = max(g.reached.Load()-g.arrived(), 0)
	r.books(" on the way to members")
	if d.Short > 0 {
		r.problem("%s all %d members: %s", plural(d.Short, "message did not reach", "messages did not reach"), d.Members, joinCodes(g.codes))
	}
	if n := g.members.moved.Load() + g.senders.moved.Load(); n > 0 {
		r.problem("%s", plural(n, "session was lost", "sessions were lost"))
	}
}
