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

// link sends one message from sender from to recipient to. done, if not nil, hears its result exactly once, later, unless
// an error is returned. Calls for one sender are never made at the same time; b belongs to the caller again afterwards.
type link func(from, to int, b []byte, done func(client.Result)) error

// errFull is a link's way to say: not now.
var errFull = errors.New("full")

// meter drives messages over a link and keeps the books.
//
// Goroutines: those of start send; recipients call received, one goroutine each; results and refusals come from any.
type meter struct {
	// fixed after construction
	pairs, size int
	rate        float64 // 0: flat out
	window      int64   // in flight for each recipient
	spread      bool
	ack         bool // count results, not arrivals
	link        link
	nap         func(time.Duration)
	base        time.Time

	senders    []*sender
	recipients []*recipient

	stopping atomic.Bool
	sending  sync.WaitGroup // goroutines that send
	flying   sync.WaitGroup // acknowledged messages without a result

	from    atomic.Int64 // what is measured was due after this; 0: nothing is measured
	latency atomic.Pointer[latencies]

	delivered atomic.Int64 // results that were positive
	failed    atomic.Int64 // and the others

	mu    sync.Mutex
	codes map[string]int64 // refusals and bad results by code
	err   error            // the first that ended a sender
}

// latencies are of one measured time.
type latencies struct{ due, sent *stripes }

type sender struct {
	mu     sync.Mutex
	seqs   []uint32        // by recipient if it goes round them, otherwise one
	count  uint64          // messages that the link took
	ring   []atomic.Uint32 // to whom the latest went, by count; nil unless it goes round them
	buffer []byte
}

// ringSize is how far back a refusal is traced to its recipient. More than that is never in flight.
const ringSize = 1 << 15

type recipient struct {
	ledger
	_    [64]byte // apart from what the senders write
	sent atomic.Int64
	over atomic.Int64 // not in flight any more, one way or another

	waiting atomic.Bool   // its only sender waits for room
	room    chan struct{} // capacity 1: there may be some
}

// passed takes one message out of flight. A sender that waits is woken when half the window is free, so that it is not
// woken for each message.
func (r *recipient) passed(window int64) {
	over := r.over.Add(1)
	if r.waiting.Load() && r.sent.Load()-over <= window/2 && r.waiting.CompareAndSwap(true, false) {
		r.wake()
	}
}

func (r *recipient) wake() {
	select {
	case r.room <- struct{}{}:
	default:
	}
}

func newMeter(o SendOptions) *meter {
	m := &meter{
		pairs: o.Pairs, size: o.Size, rate: o.Rate, window: int64(o.Window), spread: o.Spread, ack: o.Ack != wire.AckNone,
		nap: nap, base: time.Now(), codes: map[string]int64{},
	}
	for i := range m.pairs {
		s, r := &sender{buffer: make([]byte, m.size)}, &recipient{room: make(chan struct{}, 1)}
		if m.spread {
			s.seqs, r.next = make([]uint32, m.pairs), make([]uint32, m.pairs)
			s.ring = make([]atomic.Uint32, ringSize)
		} else {
			s.seqs, r.next, r.first = make([]uint32, 1), make([]uint32, 1), i
		}
		m.senders, m.recipients = append(m.senders, s), append(m.recipients, r)
	}
	m.clearLatency()
	return m
}

func (m *meter) clearLatency() { m.latency.Store(&latencies{newStripes(m.pairs), newStripes(m.pairs)}) }

func (m *meter) now() time.Duration { return time.Since(m.base) }

// received is called by the goroutine of recipient i.
func (m *meter) received(i int, b []byte) {
	r := m.recipients[i]
	s, fresh := r.take(m.size, b)
	if !fresh || m.ack {
		return
	}
	r.passed(m.window)
	m.record(i, s.due, s.due+s.late)
}

// record counts a message that is through.
func (m *meter) record(i int, due, sent time.Duration) {
	if from := m.from.Load(); from != 0 && int64(sent) >= from {
		now, l := m.now(), m.latency.Load()
		l.due.add(i, now-due)
		l.sent.add(i, now-sent)
	}
}

// refused is told of a message that the link had taken: sender from's count-th.
func (m *meter) refused(from int, count uint64, code wire.Code) {
	to := from
	if m.spread {
		to = int(m.senders[from].ring[count%ringSize].Load())
	}
	m.recipients[to].passed(m.window)
	m.note(code)
}

func (m *meter) note(code wire.Code) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.codes[code.String()]++
}

// broken keeps the first error that ended a sender.
func (m *meter) broken(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
}

func (m *meter) full(to int) bool {
	r := m.recipients[to]
	return r.sent.Load()-r.over.Load() >= m.window
}

// one sends a message that was due at due (negative: now).
func (m *meter) one(from, to int, due time.Duration, done func(client.Result)) error {
	s, r := m.senders[from], m.recipients[to]
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := &s.seqs[0]
	if m.spread {
		seq = &s.seqs[to]
		s.ring[(s.count+1)%ringSize].Store(uint32(to)) // before a refusal can come
	}
	now := m.now()
	if due < 0 {
		due = now
	}
	stamp{due: due, late: now - due, sender: uint32(from), seq: *seq}.put(s.buffer)
	r.sent.Add(1) // before it can arrive
	if err := m.link(from, to, s.buffer, done); err != nil {
		r.sent.Add(-1)
		return err
	}
	*seq++
	s.count++
	return nil
}

// through is how many messages are done with, well.
func (m *meter) through() (n int64) {
	if m.ack {
		return m.delivered.Load()
	}
	for _, r := range m.recipients {
		n += r.unique.Load()
	}
	return n
}

// lost is how many are not there, of those that should be. Before the drain it counts what is under way as well.
func (m *meter) lost() int64 {
	flying, unique, sent := m.count()
	if m.ack { // a failed one may have arrived or not; a delivered one must have
		return m.failed.Load() + flying + max(m.delivered.Load()-unique, 0)
	}
	return max(sent-unique, 0)
}

// pending is how many may still come.
func (m *meter) pending() int64 {
	flying, unique, _ := m.count()
	if m.ack {
		flying += max(m.delivered.Load()-unique, 0)
	}
	return flying
}

func (m *meter) count() (flying, unique, sent int64) {
	for _, r := range m.recipients {
		s := r.sent.Load()
		sent += s
		flying += s - r.over.Load()
		unique += r.unique.Load()
	}
	return flying, unique, sent
}

// measure measures until wait returns and fills in the Result.
func (m *meter) measure(r *Result, pids []int, wait func()) {
	m.clearLatency()
	before := m.through()
	mark := markUsage(pids)
	m.from.Store(max(int64(m.now()), 1))
	wait()
	count, u := m.through()-before, mark.until(pids)
	m.from.Store(0)
	l := m.latency.Load()
	due, sent := l.due.sum(), l.sent.sum()
	r.over(count, u)
	r.quantiles(due)
	r.Offered = m.rate
	r.Send = &SendResult{SentP50: sent.Quantile(.5), SentP99: sent.Quantile(.99), Window: int(m.window), Spread: m.spread}
}

const (
	drainQuiet = 2 * time.Second // nothing more came for this long: what is missing is lost
	drainMost  = 15 * time.Second
	drainPoll  = 5 * time.Millisecond
)

// finish stops the senders, waits for what is under way, and enters the books.
func (m *meter) finish(ctx context.Context, r *Result) {
	m.stopping.Store(true)
	for _, rc := range m.recipients {
		rc.wake()
	}
	m.sending.Wait()
	quiet := drainQuiet
	if m.ack {
		quiet = sendTimeout + drainQuiet // every result comes by then
	}
	m.drain(ctx, quiet, drainMost)
	for _, rc := range m.recipients {
		r.Duplicated += rc.duplicated.Load()
		r.Disordered += rc.disordered.Load()
		r.Damaged += rc.damaged.Load()
	}
	r.Lost = m.lost()
	m.mu.Lock()
	defer m.mu.Unlock()
	why := ""
	if len(m.codes) > 0 {
		why = " (answered: " + joinCodes(m.codes) + ")"
	}
	r.books(why)
	if m.err != nil {
		r.problem("a sender had to stop: %s", m.err)
	}
	if r.Received == 0 && len(r.Problems) == 0 {
		r.problem("nothing arrived within the measured time")
	}
}

// drain waits until nothing is under way, or nothing came for quiet.
func (m *meter) drain(ctx context.Context, quiet, most time.Duration) {
	start := time.Now()
	last, since := m.pending(), start
	for last > 0 && time.Since(since) < quiet && time.Since(start) < most {
		if pause(ctx, drainPoll) != nil {
			return
		}
		if now := m.pending(); now != last {
			last, since = now, time.Now()
		}
	}
}

// pause waits for d; an error if ctx ended before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
}
