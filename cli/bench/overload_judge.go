package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// OverloadResult is what only "overload" has. Memory is of all nodes together, but for the growth.
type OverloadResult struct {
	CalmP50 float64 `json:"calm_p50_us"` // of the others, before
	CalmP99 float64 `json:"calm_p99_us"`
	Ratio   float64 `json:"p99_ratio"` // of p99_us to calm_p99_us
	Apart   bool    `json:"apart"`     // the others were a process of their own

	Sent      int64            `json:"sent"`      // in bursts: delivered + refused + unknown
	Delivered int64            `json:"delivered"` // and arrived
	Refused   int64            `json:"refused"`   // and told so, and not arrived
	Unknown   int64            `json:"unknown"`
	Untold    int64            `json:"untold"`    // without any answer
	HeldBack  int64            `json:"held_back"` // never sent: the SDK said at once that it had no room
	Codes     map[string]int64 `json:"codes"`     // why not delivered

	GroupSent    int64 `json:"group_sent"`
	GroupReached int64 `json:"group_reached"` // members' connections written to, as the senders were told
	GroupArrived int64 `json:"group_arrived"` // as the members say

	RSSBefore int64 `json:"rss_before_bytes"`
	RSSPeak   int64 `json:"rss_peak_bytes"`
	RSSAfter  int64 `json:"rss_after_bytes"`
	RSSGrowth int64 `json:"rss_growth_bytes"` // of the node that grew most, from before to its peak

	NoReader       bool  `json:"no_reader"` // there was one
	NoReaderClosed bool  `json:"no_reader_closed"`
	NoReaderMS     int64 `json:"no_reader_ms"` // until it was offline for others; 0: never
	SlowReaders    int64 `json:"slow_readers"` // sessions that the nodes closed for that reason; only of its own cluster
	LostSessions   int64 `json:"lost_sessions"`
}

// judge turns what was measured into problems.
func (v *overload) judge(r *Result) {
	d := v.r
	d.Sent, d.Delivered, d.Refused, d.Unknown, d.HeldBack = v.sent.Load(), v.delivered.Load(), v.refused.Load(), v.unknown.Load(), v.heldBack.Load()
	d.Untold = d.Sent - v.answered.Load()
	d.GroupSent, d.GroupReached, d.GroupArrived = v.groupSent.Load(), v.groupCounted.Load(), v.reachedMembers.Load()
	d.LostSessions = v.moved()
	v.mu.Lock()
	d.Codes = v.codes
	v.mu.Unlock()
	if d.CalmP99 > 0 {
		d.Ratio = r.P99 / d.CalmP99
	}
	for i := range v.books {
		b := &v.books[i]
		r.Duplicated += b.duplicated.Load()
		r.Disordered += b.disordered.Load()
		r.Damaged += b.damaged.Load()
	}
	r.Lost, d.Apart = v.lost.Load(), v.o.Others != nil // what was lost is among the others' problems
	books := *r
	books.Lost, books.Problems = 0, nil
	books.books("")
	r.Problems = append(r.Problems, books.Problems...)
	if d.Untold != 0 || d.Sent != d.Delivered+d.Refused+d.Unknown {
		r.problem("%d sent, but %d delivered, %d refused and %d unknown: not all were told", d.Sent, d.Delivered, d.Refused, d.Unknown)
	}
	if n := v.arrived(); n < d.Delivered || n > d.Delivered+d.Unknown {
		r.problem("%d arrived, but %d were delivered and %d are unknown", n, d.Delivered, d.Unknown)
	}
	if n := d.GroupSent - v.groupAnswered.Load(); n > 0 {
		r.problem("%s never answered", plural(n, "message to the group was", "messages to the group were"))
	}
	if d.GroupArrived < d.GroupReached {
		r.problem("members were reached %d times, but got %d messages", d.GroupReached, d.GroupArrived)
	}
	if d.LostSessions > 0 {
		r.problem("%s", plural(d.LostSessions, "session was lost", "sessions were lost"))
	}
	if v.o.MaxGrowth > 0 && d.RSSGrowth > v.o.MaxGrowth {
		r.problem("a node grew by %d MiB: at most %d are allowed", d.RSSGrowth>>20, v.o.MaxGrowth>>20)
	}
	if p99 := time.Duration(r.P99 * 1e3); v.o.MaxP99 > 0 && p99 > v.o.MaxP99 {
		r.problem("the others' p99 was %v: at most %v is allowed", p99.Round(time.Millisecond), v.o.MaxP99)
	}
	switch {
	case !d.NoReader:
	case d.NoReaderMS == 0 || !d.NoReaderClosed:
		r.problem("the client that does not read was not closed")
	case v.o.SlowReaders != nil && d.SlowReaders != 1:
		r.problem("%s as slow readers, and only one did not read", plural(d.SlowReaders, "session was closed", "sessions were closed"))
	}
}

// deaf is a client that logs in and then reads nothing.
type deaf struct {
	id string
	nc net.Conn
}

func dialDeaf(ctx context.Context, cfg client.Config) (*deaf, error) {
	dial := cfg.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	addr := strings.TrimPrefix(cfg.Addrs[0], "tcp://")
	if strings.Contains(addr, "://") {
		return nil, fmt.Errorf("the client that does not read speaks plain TCP only, not %s: leave it out with --no-reader=false", addr)
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(256 << 10) // the less it holds, the sooner it is found out; the run does not depend on it
	}
	d := &deaf{id: cfg.Client, nc: nc}
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second)) // a socket that is open has deadlines
	f := wire.Frame{Type: wire.TypeLogin, Client: cfg.Client, Instance: wire.NewID(), Attempt: 1, Version: wire.ProtocolVersion, Token: cfg.Token}
	if cfg.TokenSource != nil {
		if f.Token, err = cfg.TokenSource(ctx); err != nil {
			d.close()
			return nil, err
		}
	}
	if _, err = nc.Write(wire.AppendFrame(nil, &f)); err == nil {
		err = wire.NewFrameReader(nc, 0).Next(&f)
	}
	if err == nil && f.Type != wire.TypeWelcome {
		err = &wire.Error{Code: f.Code, Text: f.Text}
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// ended says whether the node has closed the connection: whatever lies in it can be read to its end.
func (d *deaf) ended(within time.Duration) bool {
	_ = d.nc.SetDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, d.nc)
	var ne net.Error
	return !(errors.As(err, &ne) && ne.Timeout())
}

// deafPatience is how long after a run its node may take to close a client that does not read.
const deafPatience = 12 * time.Second

// deafMost bounds how long it takes to read what lies in a connection that was closed.
const deafMost = 10 * time.Second

func (d *deaf) close() { _ = d.nc.Close() }

// memory follows the resident memory of processes.
type memory struct {
	pids  []int
	ended chan struct{}
	done  chan struct{}
	once  sync.Once

	mu                  sync.Mutex
	base                []int64 // of each, at the mark
	before, peak, after int64   // together
	growth              int64   // of one, over its base
}

const memoryEvery = 100 * time.Millisecond

func watchMemory(pids []int) *memory {
	m := &memory{pids: pids, ended: make(chan struct{}), done: make(chan struct{})}
	m.mark()
	go func() {
		defer close(m.done)
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.look()
			case <-m.ended:
				return
			}
		}
	}()
	return m
}

// mark says that what is there now is what was before.
func (m *memory) mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base, m.before, m.growth = m.base[:0], 0, 0
	for _, pid := range m.pids {
		rss := rssOf(pid)
		m.base = append(m.base, rss)
		m.before += rss
	}
	m.peak = m.before
}

func (m *memory) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after = 0
	for i, pid := range m.pids {
		rss := rssOf(pid)
		m.after += rss
		m.growth = max(m.growth, rss-m.base[i])
	}
	m.peak = max(m.peak, m.after)
}

// stop ends it; the figures are final then. It may be called again.
func (m *memory) stop() {
	m.once.Do(func() {
		close(m.ended)
		<-m.done
		m.look()
	})
}
