package gateway

import (
	"sync/atomic"

	"imroute/mesh/wire"
)

// Drop is a reason for which something was not taken or not written.
type Drop uint8

// Reasons counted in Stats.Drops.
const (
	DropQueueFull      Drop = iota // deliver refused: the session's queue is full
	DropUnacked                    // deliver refused: too many messages wait for the client's ack
	DropClosed                     // deliver refused or never written: the session was closing
	DropDuplicate                  // the session had that message id already
	DropOutOfOrder                 // a later message of the same sender was taken before
	DropExpired                    // its time-out passed while it waited for the lease
	DropTooLarge                   // a frame that cannot be encoded or a payload over the limit
	DropResult                     // a result that could not be queued: its session closes as a slow reader
	DropAdmission                  // connection refused by the token bucket
	DropMaxSessions                // connection refused: MaxSessions are open
	DropStrayAck                   // an ack for nothing that waits for one
	DropClientRate                 // message refused: its client's rate
	DropClientBytes                // message refused: its client's bytes a second
	DropTenantRate                 // message refused: its tenant's rate
	DropTenantBytes                // message refused: its tenant's bytes a second
	DropTenantSessions             // login refused: its tenant has too many connections
	DropTenantLogins               // login refused: its tenant's rate of logins
	dropReasons
)

func (d Drop) String() string {
	return [...]string{
		"queue_full", "unacked", "closed", "duplicate", "out_of_order", "expired", "too_large", "result", "admission",
		"max_sessions", "stray_ack", "client_rate", "client_bytes", "tenant_rate", "tenant_bytes", "tenant_sessions", "tenant_logins",
	}[min(d, dropReasons-1)]
}

// Stats is a snapshot of counters since New; Sessions and Connections are current.
type Stats struct {
	Sessions    int // logged in
	Connections int // all, those logging in or closing included
	MessagesIn  uint64
	MessagesOut uint64
	BytesIn     uint64 // as read from connections, without TLS and WebSocket framing
	BytesOut    uint64

	Logins map[wire.Code]uint64 // OK, or why refused
	Closes map[wire.Code]uint64 // of sessions that had logged in
	Drops  map[Drop]uint64      // reasons that never happened are left out

	HeldUp uint64 // how often reading from a client waited until it had read its answers
	Paced  uint64 // how often accepting clients waited because the processor was short

	AcceptErrors uint64 // of the listeners, each followed by a pause
}

// maxCode bounds the codes counted apart; the wire's table is far below it.
const maxCode = 256

type codeCounters [maxCode]atomic.Uint64

func (c *codeCounters) add(code wire.Code) { c[min(code, maxCode-1)].Add(1) }

func (c *codeCounters) snapshot() map[wire.Code]uint64 {
	m := make(map[wire.Code]uint64)
	for i := range c {
		if n := c[i].Load(); n > 0 {
			m[wire.Code(i)] = n
		}
	}
	return m
}

type counters struct {
	sessions, conns   atomic.Int64
	msgsIn, msgsOut   atomic.Uint64
	bytesIn, bytesOut atomic.Uint64
	acceptErrors      atomic.Uint64
	heldUp, paced     atomic.Uint64
	drops             [dropReasons]atomic.Uint64
	logins, closes    codeCounters
	writers           atomic.Int64 // writer goroutines at the moment
}

func (c *counters) drop(d Drop, n int) { c.drops[d].Add(uint64(n)) }

func (c *counters) snapshot() Stats {
	s := Stats{
		Sessions: int(c.sessions.Load()), Connections: int(c.conns.Load()),
		MessagesIn: c.msgsIn.Load(), MessagesOut: c.msgsOut.Load(), BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Logins: c.logins.snapshot(), Closes: c.closes.snapshot(), Drops: make(map[Drop]uint64), HeldUp: c.heldUp.Load(), Paced: c.paced.Load(), AcceptErrors: c.acceptErrors.Load(),
	}
	for d := range c.drops {
		if n := c.drops[d].Load(); n > 0 {
			s.Drops[Drop(d)] = n
		}
	}
	return s
}
