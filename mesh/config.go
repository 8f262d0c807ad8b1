package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

// MaxLanes is the most lanes a pair of nodes can have.
const MaxLanes = 64

// Config is everything a Mesh needs to know. It is copied by New and must not be changed afterwards.
type Config struct {
	// Bind is the UDP address to listen on and to dial from, "host:port"; port 0 takes any free one. Required.
	Bind string
	// Listen opens the socket at Bind: the way to a network that is simulated. Nil: a UDP socket of the system.
	Listen PacketListener
	// Identity is this node's certificate and whom it trusts. Required.
	Identity *Identity
	// ResetKey is secret and kept across restarts of this node, so that peers notice a restart at once. Zero means a random
	// one: peers then notice after IdleTimeout, or when this node dials them.
	ResetKey [32]byte
	// Process names this run of the node's process. Zero means random.
	Process uint64

	// Members tells a member's mesh address ("host:port") and whether it is a member at all. It is asked at each dial and
	// each accept, from several goroutines, and must answer at once. Required.
	Members func(wire.NodeID) (addr string, member bool)
	// Join decides about a joiner; its context ends with the joiner's connection. An error that is a *wire.Error is told to
	// the joiner with its code, any other as wire.Internal. Nil refuses every joiner.
	Join func(ctx context.Context, req *JoinRequest, remote net.Addr) (*JoinReply, error)
	// OnPeer is told when a peer becomes connected (both connections up) and when it no longer is. Changes that follow each
	// other quickly may be merged. It is called from one goroutine and must not call Close. May be nil.
	OnPeer func(id wire.NodeID, up bool)

	// Elsewhere is told when a node of this cluster answers at an address where another one was expected: addresses have
	// changed. It must not block. May be nil.
	Elsewhere func(id wire.NodeID, addr string)
	// Twin is told when a peer turns this process away because another one runs as the same node: the error is ErrTwin. It may
	// be called several times, from several goroutines, and must not block. May be nil.
	Twin func(err error)
	// Refused is told when a member will not talk to this node because it does not count it among the members: this node was
	// removed, or that one has not heard of it yet. It is told anew with each attempt to connect and must not block. May be nil.
	Refused func(by wire.NodeID)
	// Lanes is the number of lanes to each peer, 1 to MaxLanes. Zero means 4. Of two nodes the higher number holds.
	Lanes int
	// Lane is the pattern for every lane; Peer, Lane, Process and Logger are filled in by the mesh. A nil Handler means that
	// this mesh has no lanes.
	Lane lane.Config

	// KeepAlive is the time between signs of life on an idle connection. Zero means 1 s.
	KeepAlive time.Duration
	// IdleTimeout is how long a connection lives without hearing from the peer. Zero means 3 s; at least 2 × KeepAlive.
	IdleTimeout time.Duration
	// DialTimeout bounds one attempt to connect, and how long an accepted connection may take to say hello. Zero means 2 s.
	DialTimeout time.Duration
	// RetryMax is the longest pause between attempts to connect. Zero means 1 s.
	RetryMax time.Duration
	// CallTimeout bounds calls whose context has no deadline, and joins. Zero means 5 s.
	CallTimeout time.Duration

	// MaxMessage bounds a call's request and its answer, in bytes. Zero means 4 MiB.
	MaxMessage int
	// MaxCalls is how many calls of one peer run here at once; more are answered with wire.Overloaded. Zero means 256.
	MaxCalls int
	// JoinRate is how many join requests per second are looked at (bursts of up to twenty), whoever sends them. Zero means 5.
	JoinRate float64

	// Logger gets connections coming and going, and refusals with their reason. Nil means slog.Default().
	Logger *slog.Logger
}

const (
	maxCallTimeout = 10 * time.Minute // whatever the caller asks for
	joinSlots      = 16               // join requests looked at concurrently
	admitSlots     = 256              // accepted connections that have not said hello yet
	handshakeRate  = 200              // handshakes per second before source addresses have to be proven first
)

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.KeepAlive, time.Second)
	def(&c.IdleTimeout, 3*time.Second)
	def(&c.DialTimeout, 2*time.Second)
	def(&c.RetryMax, time.Second)
	def(&c.CallTimeout, 5*time.Second)
	if c.Lanes == 0 {
		c.Lanes = 4
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 4 << 20
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = 256
	}
	if c.JoinRate == 0 {
		c.JoinRate = 5
	}
	if c.Process == 0 {
		c.Process = wire.NewID()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) validate() error {
	switch {
	case c.Bind == "":
		return errors.New("mesh: Bind is empty: want \"host:port\"")
	case c.Identity == nil:
		return errors.New("mesh: Identity is missing")
	case c.Members == nil:
		return errors.New("mesh: Members is missing")
	case c.Lanes < 0 || c.Lanes > MaxLanes:
		return fmt.Errorf("mesh: Lanes is %d: want 1 to %d", c.Lanes, MaxLanes)
	case c.MaxMessage < 0:
		return fmt.Errorf("mesh: MaxMessage is %d: want a number of bytes", c.MaxMessage)
	case c.MaxCalls < 0:
		return fmt.Errorf("mesh: MaxCalls is %d: want a positive number", c.MaxCalls)
	case c.JoinRate < 0:
		return fmt.Errorf("mesh: JoinRate is %v: want requests per second", c.JoinRate)
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"KeepAlive", c.KeepAlive},
		{"IdleTimeout", c.IdleTimeout},
		{"DialTimeout", c.DialTimeout},
		{"RetryMax", c.RetryMax},
		{"CallTimeout", c.CallTimeout},
	} {
		if f.d < 0 {
			return fmt.Errorf("mesh: %s is %v: must not be negative", f.name, f.d)
		}
	}
	if c.IdleTimeout < 2*c.KeepAlive {
		return fmt.Errorf("mesh: IdleTimeout is %v: want at least twice KeepAlive (%v)", c.IdleTimeout, c.KeepAlive)
	}
	return nil
}
