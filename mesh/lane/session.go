package lane

import (
	"sync"
	"sync/atomic"

	"imroute/mesh/wire"
)

// Session is one end of a lane. Its methods may be called from several goroutines.
//
// Lock order: mu, then attachment.mu. No Handler is called and nothing is read or written with either held, but what cannot wait
// (direct.go).
type Session struct {
	// Fixed after construction.
	cfg  Config
	life uint64 // names this session: a session made anew in the same process remembers nothing either

	// Kept is for the Handler, whose calls are made one at a time: what it keeps for this lane. The lane does not look at it.
	Kept any

	wake      chan struct{} // one token for a writer that set idle
	closeOnce sync.Once

	// Owned by the attachment that runs; by Close after the last one ended.
	peer peerState
	fwd  wire.Forward // reused for what Handlers are shown

	settled atomic.Uint64 // see Settled; written by whoever calls the Handler

	mu       sync.Mutex
	closed   bool
	cur      *attachment // newest, nil if there is none
	msgs     sendLog
	statuses sendLog
	idle     bool   // the writer waits for wake or its timer
	direct   direct // who may write for it meanwhile
	nack     uint64 // newest refusal in statuses
	taken    taken  // what was received, as the writer may acknowledge it
	stats    Stats
	defs     definitions
	short    bool // the peer's process understands contexts
}

// peerState is what is known of the session on the other side.
type peerState struct {
	process, life uint64
	knewUs        bool // it has read our resume, so it cannot have forgotten us without being another one
	resumed       bool // we have read its resume: message and status mean something

	message, status uint64 // highest taken from it
	nacked          uint64 // highest message of ours that it refused, and so took or refused all before

	slots []*known // its contexts
}

// taken is the receiving side's state as the writer sees it.
type taken struct {
	message, status uint64 // received and handled
	bytes           int    // received since the last ack
	due             bool   // an ack was put off long enough
	armed           bool   // the ack timer runs

	ackedMessage, ackedStatus uint64 // already acknowledged on this stream

	// While refusals wait to be written, the ack waits behind those that it covers.
	held        bool
	heldMessage uint64
	heldNack    uint64
}

// New makes a session; it starts nothing.
func New(cfg Config) (*Session, error) {
	cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With("peer", cfg.Peer, "lane", cfg.Lane)
	return &Session{
		cfg:      cfg,
		life:     wire.NewID(),
		wake:     make(chan struct{}, 1),
		msgs:     sendLog{chunkBytes: cfg.ChunkBytes},
		statuses: sendLog{chunkBytes: cfg.ChunkBytes},
	}, nil
}

// Peer names the node on the other side.
func (s *Session) Peer() wire.NodeID { return s.cfg.Peer }

// Lane is the lane's number.
func (s *Session) Lane() int { return s.cfg.Lane }

// Send queues m, connected or not, and returns its sequence number: 1 for the first, then each one more. It copies m,
// never blocks, and allocates nothing in the steady state. c is what m has in common with other messages, nil for a single
// one.
//
// Errors: ErrOverloaded (QueueBytes are waiting; nothing was queued, try again when Acked was called), ErrTooLarge (this
// message can never be sent), ErrClosed.
func (s *Session) Send(m *wire.Forward, c *Context) (seq uint64, err error) {
	size := headBytes + shortFixed + wire.ForwardSize(m)
	if len(m.Payload) > s.cfg.MaxPayload || size-headBytes-len(m.Payload) > wire.MaxHeader || size > s.cfg.QueueBytes {
		return 0, ErrTooLarge
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	if s.msgs.bytes+size > s.cfg.QueueBytes {
		s.stats.Overloaded++
		return 0, ErrOverloaded
	}
	if !s.short {
		c = nil
	}
	kind, slot := s.defs.place(s, c, m, s.msgs.last+1, s.msgs.acked)
	rec := appendMessage(s.msgs.room(size)[:headBytes], kind, slot, m)
	putHead(rec, kind, len(rec)-headBytes)
	s.stats.Sent++
	if kind == kindShort {
		s.stats.Short++
	}
	seq = s.msgs.commit(len(rec))
	s.sayLocked(len(rec))
	return seq, nil
}

// SendStatus is Say for a message to one recipient.
func (s *Session) SendStatus(ref uint64, code wire.Code, index uint64) {
	s.Say(&wire.Status{Ref: ref, Code: code, Index: index})
}

// Say queues the late result of a message that was accepted, named by the ref it came with; st.Seq is 0, st is not kept,
// and its MissedIDs fit (wire.Missed.Fit). It never blocks. When the peer has let twice StatusBytes pile up the result is dropped and
// counted: the sender's time-out answers then.
func (s *Session) Say(st *wire.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.statusesFullLocked() {
		s.stats.StatusDrops++
		return
	}
	n := s.queueStatusLocked(st)
	if s.cur != nil {
		s.cur.checkStatusesLocked()
	}
	s.sayLocked(n)
}

// statusesFullLocked says that nothing more may be kept for a peer that takes no statuses. The bound that cuts a stream is
// lower, so only a peer that comes back again and again without taking any gets here.
func (s *Session) statusesFullLocked() bool { return s.statuses.bytes >= 2*s.cfg.StatusBytes }

// queueStatusLocked returns how many bytes it may take.
func (s *Session) queueStatusLocked(st *wire.Status) int {
	n := headBytes + wire.StatusSize(st)
	rec := wire.AppendStatus(s.statuses.room(n)[:headBytes], st)
	putHead(rec, kindStatus, len(rec)-headBytes)
	s.statuses.commit(len(rec))
	s.stats.StatusesOut++
	return n
}

func (s *Session) wakeLocked() {
	if s.idle {
		s.idle = false
		s.wake <- struct{}{} // never blocks: idle is set only by a writer that took the last token
	}
}

// Stats copies the counters.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.QueuedBytes, st.StatusBytes = s.msgs.bytes, s.statuses.bytes
	st.Queued, st.LastSeq, st.AckedSeq = s.msgs.last-s.msgs.acked, s.msgs.last, s.msgs.acked
	return st
}

// Close ends the session: the stream under way is closed, every goroutine has ended, and the Handler was told of each
// message whose fate is open (Lost) when it returns. It is safe to call more than once; later calls wait for the first.
func (s *Session) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		cur := s.cur
		s.mu.Unlock()
		if cur != nil {
			cur.stop(ErrClosed)
			<-cur.ended
		}
		s.lose()
	})
	return nil
}

// lose reports everything unacknowledged as lost and drops all statuses. Nothing may be attached, or no writer yet.
func (s *Session) lose() {
	s.mu.Lock()
	acked := s.msgs.acked
	messages, statuses := s.msgs.detach(), s.statuses.detach()
	defs := s.defs
	s.defs, s.short = definitions{ids: defs.ids}, false // until the next peer says what it understands
	s.mu.Unlock()

	if s.peer.nacked > acked {
		acked = s.peer.nacked
		s.cfg.Handler.Acked(s, acked)
	}
	lost := uint64(0)
	each(messages, acked, func(seq uint64, kind byte, body []byte) {
		if err := defs.decodeKept(kind, body, &s.fwd); err != nil { // we wrote it: memory was overwritten
			s.cfg.Logger.Error("a kept message cannot be read", "seq", seq, "err", err)
		}
		lost++
		s.cfg.Handler.Lost(s, seq, &s.fwd)
	})
	each(statuses, ^uint64(0), nil)
	s.fwd = wire.Forward{}

	s.mu.Lock()
	s.stats.Lost += lost
	s.settled.Store(max(s.settled.Load(), s.msgs.acked))
	s.mu.Unlock()
}

// Settled is the highest message such that of all up to it the handler has been told how they ended: taken, refused or
// lost. It is cheap and may be called from anywhere.
func (s *Session) Settled() uint64 { return s.settled.Load() }
