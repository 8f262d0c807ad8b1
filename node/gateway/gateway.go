package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"imroute/mesh/wire"
)

// Gateway owns the client listeners and all sessions. Its methods may be called from several goroutines; Open and Close
// once each, in this order.
type Gateway struct {
	// Fixed after construction.
	cfg     Config
	log     *slog.Logger
	start   time.Time // of the gateway's own time, in which all deadlines are kept
	wheel   *wheel
	limiter *rate.Limiter // nil: no limit
	tenants *tenants      // nil: no limits
	bell    *bell         // of dozing sessions, made before anybody connects; nil: none dozes
	deaf    atomic.Bool   // nobody waits for the bell any more
	refuses chan struct{} // slots for telling refused connections why

	st       counters
	coarse   atomic.Int64 // the time at the last tick
	refusing atomic.Uint32
	// when it began to refuse logins, in now's nanoseconds; a gateway is made refusing
	refusingSince atomic.Int64

	sessions sync.WaitGroup // sessions, dozing or not, and refusals
	loops    sync.WaitGroup // listeners, the ticker and the bell
	stop     chan struct{}  // ends the ticker
	reserve  reserve
	stopping sync.Once

	mu     sync.Mutex
	all    map[uint64]*Session // by number
	number uint64              // the last one given: no two sessions ever have the same
	opened bool
	closed bool
	tcp    net.Listener
	ws     net.Listener
	srv    *http.Server

	tenantsDue time.Duration // for the ticker's goroutine

	parkMu sync.Mutex
	parked map[*Session]struct{} // sessions whose deliver frames wait for the lease
}

// maxRefusals bounds how many refused connections are told why at the same time; more are closed without a word.
const maxRefusals = 256

// New checks cfg and makes a gateway that does nothing yet.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, log: cfg.Logger, start: cfg.Clock.Now(), wheel: newWheel(),
		refuses: make(chan struct{}, maxRefusals), stop: make(chan struct{}),
		all: make(map[uint64]*Session), parked: make(map[*Session]struct{}),
	}
	g.reserve.free.Store(int64(cfg.QueueReserve))
	g.refusing.Store(uint32(wire.NoQuorum))
	if !cfg.Limits.off() {
		g.tenants = newTenants(cfg.Limits)
	}
	if cfg.LoginRate > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(cfg.LoginRate), cfg.LoginBurst)
	}
	return g, nil
}

// Open listens. Logins are refused with NoQuorum until SetAccepting says otherwise.
func (g *Gateway) Open(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened || g.closed {
		return errors.New("gateway: opened before")
	}
	if err := g.listenLocked(ctx); err != nil {
		return err
	}
	g.opened = true
	g.loops.Add(1)
	ticks, stopTicks := g.cfg.Clock.Ticker(tick)
	go func() {
		defer g.loops.Done()
		defer stopTicks()
		for {
			select {
			case <-ticks:
				g.onTick()
			case <-g.stop:
				return
			}
		}
	}()
	return nil
}

// Close stops listening, closes all sessions as ShuttingDown and returns when every goroutine has ended. If ctx ends first,
// the connections are cut and Close returns its cause; what a Backend method still holds up ends when that returns.
func (g *Gateway) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	srv, tcp, ws := g.srv, g.tcp, g.ws
	g.mu.Unlock()
	if tcp != nil {
		_ = tcp.Close()
	}
	if srv != nil {
		_ = srv.Close()
		_ = ws.Close()
	}
	for _, s := range g.snapshot() {
		s.Close(wire.ShuttingDown, "")
	}
	ended := make(chan struct{})
	go func() {
		g.sessions.Wait()
		g.stopping.Do(func() { // last: logins that wait need the wheel
			close(g.stop)
			g.bell.close()
		})
		g.loops.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		for _, s := range g.snapshot() {
			s.conn.interrupt()
		}
		return context.Cause(ctx)
	}
}

// Addrs are the addresses listened on, empty for a listener that is off.
func (g *Gateway) Addrs() (tcp, ws string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tcp != nil {
		tcp = g.tcp.Addr().String()
	}
	if g.ws != nil {
		ws = g.ws.Addr().String()
	}
	return tcp, ws
}

// Count is the number of sessions that are logged in.
func (g *Gateway) Count() int { return int(g.st.sessions.Load()) }

// Stats is a snapshot of the counters.
func (g *Gateway) Stats() Stats { return g.st.snapshot() }

// Sessions calls yield for every session that is logged in, until it returns false. Sessions that come or go meanwhile may
// be missed or included; no lock is held.
func (g *Gateway) Sessions(yield func(*Session) bool) {
	for _, s := range g.snapshot() {
		s.mu.Lock()
		is := s.phase == open && !s.closing
		s.mu.Unlock()
		if is && !yield(s) {
			return
		}
	}
}

// CloseAll closes every session there is, logging in or logged in, and returns when all are fenced: no deliver frame leaves
// for any of them any more. Sessions accepted meanwhile are not touched: call SetAccepting(false, …) before.
func (g *Gateway) CloseAll(code wire.Code) {
	all := g.snapshot()
	for _, s := range all {
		s.Close(code, "")
	}
	for _, s := range all {
		<-s.fenced.wait()
	}
}

// SetAccepting lets logins in, or refuses them with code (NoQuorum while the node is not up, Draining). Sessions that are
// there stay.
func (g *Gateway) SetAccepting(accept bool, code wire.Code) {
	switch {
	case accept:
		code = wire.None
	case code == wire.None:
		code = wire.NoQuorum
	}
	if was := g.refusing.Swap(uint32(code)); wire.Code(was) == wire.None && code != wire.None {
		g.refusingSince.Store(int64(g.now()))
	}
}

// Wake says that the lease holds again: what waited for it is written now instead of at the next tick.
func (g *Gateway) Wake() { g.unparkAll() }

// now is the gateway's own time; coarseNow the same as of the last tick, for next to nothing.
func (g *Gateway) now() time.Duration       { return g.cfg.Clock.Now().Sub(g.start) }
func (g *Gateway) coarseNow() time.Duration { return time.Duration(g.coarse.Load()) }

func (g *Gateway) onTick() {
	now := g.now()
	g.coarse.Store(int64(now))
	g.wheel.advance(now, (*Session).onTimer)
	if g.tenants != nil && now >= g.tenantsDue {
		g.tenantsDue = now + time.Second
		g.tenants.second(int64(now))
	}

	g.parkMu.Lock()
	waiting := make([]*Session, 0, len(g.parked))
	for s := range g.parked {
		waiting = append(waiting, s)
	}
	g.parkMu.Unlock()
	if len(waiting) == 0 {
		return
	}
	if g.cfg.Backend.LeaseLeft() > 0 {
		g.unparkAll()
		return
	}
	for _, s := range waiting {
		if !s.expireParked(now) {
			g.parkMu.Lock()
			delete(g.parked, s)
			g.parkMu.Unlock()
		}
	}
}

func (g *Gateway) park(s *Session) {
	g.parkMu.Lock()
	g.parked[s] = struct{}{}
	g.parkMu.Unlock()
}

func (g *Gateway) unparkAll() {
	g.parkMu.Lock()
	waiting := g.parked
	g.parked = make(map[*Session]struct{})
	g.parkMu.Unlock()
	for s := range waiting {
		s.unpark()
	}
}

func (g *Gateway) snapshot() []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*Session, 0, len(g.all))
	for _, s := range g.all {
		all = append(all, s)
	}
	return all
}

// admit starts a session on c, unless the gateway is closing.
func (g *Gateway) admit(c conn) {
	s := newSession(g, c)
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		c.close()
		return
	}
	g.number++
	s.number = g.number
	g.all[s.number] = s
	g.sessions.Add(1)
	g.mu.Unlock()
	g.st.conns.Add(1)
	s.mu.Lock()
	if !s.closing {
		g.wheel.arm(&s.timer, s.deadline)
	}
	s.mu.Unlock()
	go s.run()
}

func (g *Gateway) remove(s *Session) {
	g.mu.Lock()
	delete(g.all, s.number)
	g.mu.Unlock()
	g.parkMu.Lock()
	delete(g.parked, s)
	g.parkMu.Unlock()
	g.st.conns.Add(-1)
}
