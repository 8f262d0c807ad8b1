package node

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// Host is what a node otherwise takes from the operating system. Fields that are nil are taken from there all the same. The
// clock is not among them, since all nodes of a process share one: see UseRuntimeClock.
type Host struct {
	// ListenPacket opens a datagram socket for the mesh; an empty bind takes any address. See mesh.PacketListener.
	ListenPacket func(bind string) (net.PacketConn, error)
	// Listen opens the listeners for clients and for the admin API; network is "tcp".
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)
}

func (h *Host) listenPacket() func(bind string) (net.PacketConn, error) {
	if h == nil {
		return nil
	}
	return h.ListenPacket
}

// ownListen is Listen; nil: whoever listens chooses.
func (h *Host) ownListen() func(ctx context.Context, network, addr string) (net.Listener, error) {
	if h == nil {
		return nil
	}
	return h.Listen
}

func (h *Host) listen() func(ctx context.Context, network, addr string) (net.Listener, error) {
	if l := h.ownListen(); l != nil {
		return l
	}
	return new(net.ListenConfig).Listen
}

// runtimeClock: see UseRuntimeClock.
var runtimeClock atomic.Bool

// UseRuntimeClock lets all nodes of this process, from now on, measure leases with Go's own monotonic clock, and returns it.
// It is for tests in virtual time (testing/synctest replaces that clock and no other). Leases are not safe with it where a
// machine may be suspended, because it stands still meanwhile.
func UseRuntimeClock() (now func() time.Duration) {
	runtimeClock.Store(true)
	return sinceStart
}

// bubbleAge is more than a bubble's time can be before this process's start: bubbles begin in the year 2000.
const bubbleAge = 100 * 365 * 24 * time.Hour

// sinceStart is the runtime's monotonic clock, or the virtual time of the bubble it is called in. Like any clock of ours it is
// never negative.
func sinceStart() time.Duration { return bubbleAge + time.Since(clock.start) }
