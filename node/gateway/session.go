package gateway

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// phase is how far a session has come.
type phase uint8

const (
	handshaking phase = iota // no login frame yet
	loggingIn                // Backend.Login was called
	open                     // welcome was queued
)

// Session is one client connection, from login on known to the Backend. All exported methods may be called from any
// goroutine and none of them waits for the client, Fence excepted, which waits for the writer only.
type Session struct {
	// Fixed after construction.
	g     *Gateway
	conn  conn
	since time.Time

	number uint64 // in Gateway.all; set before the read goroutine starts

	// Written once by the read goroutine before Backend.Login is called, read by others only after that.
	client wire.ClientID
	id     wire.SessionID
	grants *Grants
	tenant *tenant // nil: no limits are set

	// Owned by the read goroutine.
	loginCalled bool
	attachment  any
	loginGroups []string
	meter       *meter // nil: no limits are set

	crowded atomic.Bool  // many answers wait to be written
	heard   atomic.Int64 // when the last frame arrived, on the gateway's coarse clock

	fenced  latch // opened by the writer: no more deliver frames, receipts given
	flushed latch // opened by the writer: last words said, it touches conn no more
	done    latch // opened by the read goroutine, at the very end
	kicked  bool  // last words were written; set before flushed is opened

	timer timer // guarded by wheel.mu

	mu          sync.Mutex
	rest        rest
	watched     bool // the bell has known the connection
	phase       phase
	epoch       wire.Epoch
	closing     bool
	writing     bool // a writer goroutine exists; stays true once closing
	held        bool // a Held will start one
	welcomed    bool // the writer has written welcome
	parked      bool // deliver frames wait for the lease
	code        wire.Code
	text        string
	deadline    time.Duration // of the phase: login frame, registration
	tokenEnds   time.Duration // 0: never
	goawayAt    time.Duration // 0: none
	goawayCode  wire.Code
	writeBy     time.Time // the connection's write deadline as last set
	opened      time.Time // when it was registered: a login may have waited for a fence before
	writeSince  time.Time // when the write under way, or the last one, began
	cancelLogin context.CancelCauseFunc
	ctl         queue         // everything but deliver frames
	room        chan struct{} // the read goroutine waits for ctl to empty; nil: it does not
	dlv         queue         // deliver frames
	borrowed    int           // bytes of the reserve
	unacked     map[wire.MessageID]*pending
	dedupe      dedupe
}

func newSession(g *Gateway, c conn) *Session {
	s := &Session{
		g: g, conn: c, since: g.cfg.Clock.Now(),
		deadline: g.now() + g.cfg.HandshakeTimeout,
		dedupe:   dedupe{window: g.cfg.DedupeWindow, maxPeers: g.cfg.DedupePeers, maxAge: g.cfg.DedupeAge},
	}
	s.timer.s = s
	if t, ok := c.(*tcpConn); ok {
		t.s = s
	}
	return s
}

// Client is who logged in.
func (s *Session) Client() wire.ClientID { return s.client }

// ID names the session: the SDK's instance and attempt.
func (s *Session) ID() wire.SessionID { return s.id }

// Transport is TransportTCP or TransportWS.
func (s *Session) Transport() string { return s.conn.transport() }

// RemoteAddr is the client's address as the connection shows it.
func (s *Session) RemoteAddr() string { return s.conn.remote() }

// Since is when the connection was accepted.
func (s *Session) Since() time.Time { return s.since }

// Epoch is the epoch given to Open, 0 before.
func (s *Session) Epoch() wire.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// CloseCode is why the session was or is being closed, 0 while it is not.
func (s *Session) CloseCode() wire.Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}

// Fenced is closed once the writer has been joined: not one more byte of a deliver frame will leave, and everything that was
// accepted has been reported.
func (s *Session) Fenced() <-chan struct{} { return s.fenced.wait() }

// Done is closed after Backend.Closed returned and the connection was closed.
func (s *Session) Done() <-chan struct{} { return s.done.wait() }

// Open says that the registration holds: welcome goes out, then whatever was delivered meanwhile. Returning from
// Backend.Login without an error does the same; the first of the two counts.
func (s *Session) Open(epoch wire.Epoch) {
	f := wire.Frame{
		Type: wire.TypeWelcome, Epoch: epoch, Instance: wire.Sender(s.client, s.id.Instance), Node: s.g.cfg.Backend.NodeName(), IdleMS: uint32(s.g.cfg.Idle.Milliseconds()),
		MaxPayload: uint32(s.g.cfg.MaxPayload), Addrs: s.g.alternatives(s.Transport()),
	}
	s.mu.Lock()
	if s.closing || s.phase != loggingIn {
		s.mu.Unlock()
		return
	}
	s.epoch, s.phase, s.opened = epoch, open, s.g.cfg.Clock.Now()
	s.heard.Store(int64(s.g.now()))
	s.controlLocked(&f)
	s.wakeLocked()
	s.g.st.sessions.Add(1)
	s.g.wheel.arm(&s.timer, s.nextDeadlineLocked())
	s.mu.Unlock()
	s.auditLogin(epoch)
}

// Result tells the sender how its message with that counter ended: owner is the name of the node that owns the recipient,
// text is for people; both may be empty. A session whose results do not fit its queue any more is closed SlowReader.
func (s *Session) Result(counter uint64, code wire.Code, owner, text string) {
	f := results.Get().(*wire.Frame)
	*f = wire.Frame{Type: wire.TypeResult, ID: counter, Code: code, Node: owner, Text: clip(text)}
	if !s.control(f) {
		s.g.st.drop(DropResult, 1)
	}
	*f = wire.Frame{}
	results.Put(f)
}

// results are frames of results that are encoded at once: there is one for each acknowledged message.
var results = sync.Pool{New: func() any { return new(wire.Frame) }}

// Goaway asks the client to finish and connect elsewhere. After `after` (0: never) the session is closed with code.
func (s *Session) Goaway(code wire.Code, after time.Duration) {
	s.GoawayTo(code, after, s.g.alternatives(s.Transport()))
}

// GoawayTo is Goaway with the addresses where to connect instead, best first.
func (s *Session) GoawayTo(code wire.Code, after time.Duration, addrs []string) {
	f := wire.Frame{Type: wire.TypeGoaway, Code: code, TimeoutMS: uint32(min(after.Milliseconds(), 1<<32-1)), Addrs: addrs}
	if !s.control(&f) || after <= 0 {
		return
	}
	at := s.g.now() + after
	s.mu.Lock()
	if !s.closing {
		s.goawayAt, s.goawayCode = at, code
		s.g.wheel.armEarlier(&s.timer, at)
	}
	s.mu.Unlock()
}

// Close ends the session and returns at once: nothing more is accepted, what was not written is reported NotOwner, the
// client is told code and text if it still reads, and the connection closes. The first call counts.
func (s *Session) Close(code wire.Code, text string) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	if code == wire.Superseded && s.goawayAt != 0 { // not of its own accord, then: who reads the log wants to know
		text = "it connected elsewhere, as this node had asked it to (" + s.goawayCode.String() + ")"
	}
	s.closing, s.code, s.text = true, code, text
	s.conn.interrupt()
	cancel := s.cancelLogin
	s.wakeLocked()
	s.rouseLocked()
	s.mu.Unlock()
	s.g.wheel.stop(&s.timer)
	if cancel != nil {
		cancel(&wire.Error{Code: code, Text: text})
	}
}

// Fence closes the session (with LeaseLost, unless Close gave another reason before) and waits until it is fenced, which
// takes no longer than a write in progress needs to be broken off, whatever the client does.
func (s *Session) Fence(ctx context.Context) error {
	s.Close(wire.LeaseLost, "")
	select {
	case <-s.fenced.wait():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waiting tells a client that is logging in that its former owner is being fenced.
func (s *Session) waiting(left time.Duration) {
	f := wire.Frame{Type: wire.TypeWaiting, TimeoutMS: uint32(max(1, min(left.Milliseconds(), 1<<32-1)))}
	s.control(&f)
}

// control queues a frame that is not a deliver frame. It reports whether it will be written; if it does not fit, the
// session closes.
func (s *Session) control(f *wire.Frame) bool {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return false
	}
	if s.ctl.cost >= answersAtMost*s.g.cfg.QueueBytes {
		s.mu.Unlock()
		s.Close(wire.SlowReader, "answers were not read in time")
		return false
	}
	s.controlLocked(f)
	s.wakeLocked()
	s.mu.Unlock()
	return true
}

func (s *Session) controlLocked(f *wire.Frame) {
	c := s.ctl.room(s.conn.size(f))
	before := len(c.buf)
	b, err := s.conn.append(c.buf, f)
	if err != nil { // only for types without a name, and all of ours have one
		s.g.log.Error("control frame not encoded", "type", f.Type, "err", err)
		return
	}
	c.buf = b
	s.ctl.added(c, before, nil, 0)
	s.crowdedLocked()
}

// onTimer is called by the wheel. It does whatever is due and arms the next deadline.
func (s *Session) onTimer() {
	now := s.g.now()
	var notes []note
	var code wire.Code
	var text string
	var cancel context.CancelCauseFunc
	s.mu.Lock()
	switch {
	case s.closing:
		s.mu.Unlock()
		return
	case s.phase == handshaking && now >= s.deadline:
		code, text = wire.LoginTimeout, "no login frame within "+s.g.cfg.HandshakeTimeout.String()
	case s.phase == loggingIn && now >= s.deadline:
		cancel = s.cancelLogin
	case s.phase == open && now >= s.idleAt():
		code, text = wire.IdleTimeout, "nothing heard for "+s.g.cfg.Idle.String()+": send ping"
	case s.tokenEnds != 0 && now >= s.tokenEnds:
		code, text = wire.TokenExpired, "log in again with a new token"
	case s.goawayAt != 0 && now >= s.goawayAt:
		code = s.goawayCode
	}
	if code == wire.None && cancel == nil {
		notes = s.expireUnackedLocked(now, notes)
		s.dedupe.age(now)
		s.quietLocked(now)
		s.g.wheel.arm(&s.timer, s.nextDeadlineLocked())
	}
	s.mu.Unlock()
	tell(notes)
	switch {
	case cancel != nil:
		cancel(context.DeadlineExceeded) // Login returns, and the read goroutine closes the session
	case code != wire.None:
		s.Close(code, text)
	}
}

// idleAt is when the session has been silent for too long; heard is up to one tick old.
func (s *Session) idleAt() time.Duration {
	return time.Duration(s.heard.Load()) + s.g.cfg.Idle + tick
}

func (s *Session) nextDeadlineLocked() time.Duration {
	if s.phase != open {
		return s.deadline
	}
	at := s.idleAt()
	if s.tokenEnds != 0 {
		at = min(at, s.tokenEnds)
	}
	if s.rest == reading {
		at = min(at, s.dozeAt())
	}
	if s.goawayAt != 0 {
		at = min(at, s.goawayAt)
	}
	return at
}

// kickFrame is what a session that closes with code tells its client, nil if there is nothing to say.
func (g *Gateway) kickFrame(code wire.Code, text, transport string) *wire.Frame {
	if code == wire.Bye || code == wire.ConnectionLost {
		return nil
	}
	f := &wire.Frame{Type: wire.TypeKick, Code: code, Text: clip(text)}
	if code.Class() == wire.RetryElsewhere {
		f.Addrs = g.alternatives(transport)
	}
	switch code {
	case wire.Busy:
		f.RetryMS = g.retryMS()
	case wire.NoQuorum:
		f.RetryMS = g.comingBackMS()
	}
	return f
}

// retryMS spreads those who were turned away over the time the bucket needs to fill, and over half a second to one and a
// half at least.
func (g *Gateway) retryMS() uint32 {
	base := uint32(1000)
	if r := g.cfg.LoginRate; r > 0 {
		base = uint32(min(max(1000, 1000*g.cfg.LoginBurst/r), 30_000))
	}
	return base/2 + rand.Uint32N(base)
}

// Those who come while this node may not register anybody are told to wait for about as long as that has lasted already:
// most often it has just started and is there in a moment, and if not, they come ever more seldom.
const (
	comingBackMin = 100 * time.Millisecond
	comingBackMax = time.Second
)

// comingBackMS is half to one and a half times that long.
func (g *Gateway) comingBackMS() uint32 {
	base := min(max(g.now()-time.Duration(g.refusingSince.Load()), comingBackMin), comingBackMax)
	return uint32((base/2 + rand.N(base)) / time.Millisecond)
}

// alternatives asks the node and keeps to what fits a frame.
func (g *Gateway) alternatives(transport string) []string {
	all := g.cfg.Backend.Alternatives(transport)
	var out []string
	for _, a := range all {
		if len(a) <= 128 && len(out) < 8 {
			out = append(out, a)
		}
	}
	return out
}

// clip cuts a text for people to what a frame may carry: it may quote what a stranger sent.
func clip(s string) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) <= wire.MaxText {
		return s
	}
	n := wire.MaxText
	for n > 0 && s[n]&0xc0 == 0x80 { // not inside a character
		n--
	}
	return s[:n]
}
