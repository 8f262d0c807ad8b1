package lane

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"imroute/mesh/wire"
)

// Errors of a Session. Those that end a stream are returned by Attach, wrapped with what happened.
var (
	ErrOverloaded = errors.New("lane: queue is full")
	ErrClosed     = errors.New("lane: session is closed")
	ErrTooLarge   = errors.New("lane: message is over the limit")
	ErrMalformed  = errors.New("lane: malformed stream")
	ErrSuperseded = errors.New("lane: a newer stream took over")
	ErrStatusFull = errors.New("lane: the peer does not take its statuses")
)

// Handler takes what a lane receives. Its calls are made one at a time and in order, by the goroutine that runs Attach
// (Lost also by the one in Close). They must not block, nor call Attach or Close; Send and SendStatus are fine. Forwards
// are valid during the call only: clone what is kept.
type Handler interface {
	// Message offers a message. Code zero accepts it: this node is responsible for it from now on. Any other code refuses
	// it, and the lane tells the peer so with Status{Seq, Ref, code, index}.
	Message(s *Session, seq uint64, m *wire.Forward) (code wire.Code, index uint64)
	// Status brings the peer's word on a message: a refusal (st.Seq is not 0; m is the refused message as it was sent), or
	// a late result by st.Ref (m is nil).
	Status(s *Session, st wire.Status, m *wire.Forward)
	// Handled says that everything that came together was handed over by Message and Status: the lane now waits for more. Work
	// that is better done once for many messages belongs here.
	Handled(s *Session)
	// Acked says that the peer took every message up to upto: accepted it, or refused it in a Status handed over before.
	Acked(s *Session, upto uint64)
	// Lost says that nobody will ever know whether the peer took m: it is another process now, or the session was closed.
	// It is called in order for each unacknowledged message that was not refused.
	Lost(s *Session, seq uint64, m *wire.Forward)
	// PeerRestarted follows the Lost calls: no ref handed to the peer's former process will be answered any more.
	PeerRestarted(s *Session)
}

// Stream is what a Session speaks over: a QUIC stream, a net.Conn. Close must end both directions. Setting a deadline in
// the past must end a Read or Write under way.
type Stream interface {
	io.Reader
	io.Writer
	io.Closer
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Defaults of Config.
const (
	DefaultQueueBytes  = 8 << 20
	DefaultStatusBytes = 8 << 20
	DefaultChunkBytes  = 64 << 10
	DefaultHelloWait   = 10 * time.Second
	DefaultAckDelay    = 10 * time.Millisecond
)

// Config of a Session; New copies it.
type Config struct {
	Peer    wire.NodeID // who is on the other side; for logs and for whoever asks
	Lane    int         // number of the lane, 0 to 65535; both ends must agree
	Process uint64      // this process, random at its start; not 0
	Handler Handler     // required

	QueueBytes  int // bound of messages queued or unacknowledged, in encoded bytes; 0 = 8 MiB; at least ChunkBytes
	StatusBytes int // bound of statuses queued or unacknowledged; past it the stream is cut; 0 = 8 MiB; at least ChunkBytes
	ChunkBytes  int // unit of memory and the largest write, 1 KiB to 1 MiB; 0 = 64 KiB
	MaxPayload  int // largest payload of a message in bytes, both ways; 0 = wire.MaxPayload

	HelloWait time.Duration // how long the peer's hello may take; 0 = 10 s
	AckDelay  time.Duration // how long an ack may wait for something to travel with; 0 = 10 ms

	Logger *slog.Logger // nil = nothing is logged
}

func (c *Config) withDefaults() {
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.StatusBytes, DefaultStatusBytes)
	setDefault(&c.ChunkBytes, DefaultChunkBytes)
	setDefault(&c.MaxPayload, wire.MaxPayload)
	setDefault(&c.HelloWait, DefaultHelloWait)
	setDefault(&c.AckDelay, DefaultAckDelay)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c *Config) validate() error {
	switch {
	case c.Handler == nil:
		return errors.New("lane: Config.Handler is missing")
	case c.Process == 0:
		return errors.New("lane: Config.Process is zero: give the process's random number")
	case c.Lane < 0 || c.Lane > 0xffff:
		return fmt.Errorf("lane: Config.Lane is %d: want 0 to 65535", c.Lane)
	case c.ChunkBytes < 1<<10 || c.ChunkBytes > 1<<20:
		return fmt.Errorf("lane: Config.ChunkBytes is %d: want 1 KiB to 1 MiB", c.ChunkBytes)
	case c.QueueBytes < c.ChunkBytes:
		return fmt.Errorf("lane: Config.QueueBytes is %d: want at least ChunkBytes, %d", c.QueueBytes, c.ChunkBytes)
	case c.StatusBytes < c.ChunkBytes:
		return fmt.Errorf("lane: Config.StatusBytes is %d: want at least ChunkBytes, %d", c.StatusBytes, c.ChunkBytes)
	case c.MaxPayload < 0 || c.MaxPayload > maxBody-wire.MaxHeader:
		return fmt.Errorf("lane: Config.MaxPayload is %d: want 1 to %d", c.MaxPayload, maxBody-wire.MaxHeader)
	case c.HelloWait < 0:
		return fmt.Errorf("lane: Config.HelloWait is %v: want a positive time", c.HelloWait)
	case c.AckDelay < 0:
		return fmt.Errorf("lane: Config.AckDelay is %v: want a positive time", c.AckDelay)
	}
	return nil
}

// Stats is a copy of a Session's counters. Bytes are encoded sizes.
type Stats struct {
	Attached    bool   // a stream is up, hello exchanged
	Streams     uint64 // streams that came so far
	QueuedBytes int    // messages queued or unacknowledged
	StatusBytes int    // statuses queued or unacknowledged
	Queued      uint64 // messages queued or unacknowledged
	LastSeq     uint64 // sequence number of the last message taken by Send
	AckedSeq    uint64 // highest message the peer acknowledged

	Sent         uint64 // messages taken by Send
	Short        uint64 // of those, what went without what the peer knew already
	Overloaded   uint64 // messages Send refused for want of room
	Received     uint64 // messages handed to the Handler
	Refused      uint64 // of those, refused by it
	Nacked       uint64 // our messages that the peer refused
	Duplicates   uint64 // messages and statuses that came again and were dropped
	Lost         uint64 // messages reported lost
	StatusesIn   uint64 // statuses handed to the Handler
	StatusesOut  uint64 // statuses queued
	StatusDrops  uint64 // late results dropped because twice StatusBytes are waiting
	StatusCuts   uint64 // streams cut because the peer took no statuses
	PeerRestarts uint64 // times the peer came back as another process
}
