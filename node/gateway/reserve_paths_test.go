package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestReserveBalance: whatever becomes of queued messages (written, expired under a lost lease, dropped with their session;
// encoded at once or shared until they are), what sessions borrowed and what is free make the reserve, and all of it is free
// in the end.
func TestReserveBalance(t *testing.T) {
	const sure, most, more = 16 << 10, 256 << 10, 700 << 10
	clock := newManualClock()
	both(t, func(c *Config, _ *fakeNode) {
		c.QueueBytes, c.QueueMost, c.QueueReserve = sure, most, more
		c.Clock, c.WriteTimeout, c.Idle = clock, time.Minute, time.Hour
	}, func(t *testing.T, r *rig, dial func() client) {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		var rc receipts
		var clients []client
		var sessions []*Session
		for i := range 5 {
			clients = append(clients, dial())
			sessions = append(sessions, r.login(clients[i], fmt.Sprint("c", i)))
		}
		balance := func(when string) {
			t.Helper()
			lent := 0
			for _, s := range sessions {
				s.mu.Lock()
				lent += s.borrowed
				if s.borrowed < 0 || s.borrowed > most-sure || s.dlv.cost > sure+s.borrowed || s.dlv.cost < 0 {
					t.Errorf("seed %d, %s: %s holds %d bytes and borrowed %d", seed, when, s.Client(), s.dlv.cost, s.borrowed)
				}
				s.mu.Unlock()
			}
			if free := int(r.reserve.free.Load()); free+lent != more { // the writers stand still without a lease
				t.Errorf("seed %d, %s: %d free and %d lent of %d", seed, when, free, lent, more)
			}
		}
		ref := uint64(0)
		for round := range 6 {
			r.node.mayNot.Store(true)
			for range 1500 {
				ref++
				m := message(ref, wire.AckMode(rnd.IntN(3)), strings.Repeat("x", rnd.IntN(3000)))
				m.LeftMS = uint32(rnd.IntN(3)) * 3000
				s := sessions[rnd.IntN(len(sessions))]
				if rnd.IntN(2) == 0 {
					s.Deliver(m, &rc)
					continue
				}
				m.Kind, m.To = wire.ToGroup, "g"
				s.DeliverCast(r.NewCast(m, ref, &rc))
			}
			eventually(t, "the writers to end", func() bool { return r.st.writers.Load() == 0 })
			balance("filled")
			clock.advance(3500 * time.Millisecond) // a part expires
			balance("expired")
			if round == 4 {
				sessions[0].Close(wire.Kicked, "")
				<-sessions[0].Done()
				balance("one closed")
			}
			if round%2 == 0 {
				continue
			}
			r.node.mayNot.Store(false)
			read := make(chan struct{}, len(clients))
			for i, c := range clients {
				if i == 0 && round >= 4 { // closed
					continue
				}
				go func() {
					defer func() { read <- struct{}{} }()
					for {
						var f wire.Frame
						if c.recv(&f) != nil || f.Type == wire.TypePong && f.Count == 0 {
							return
						}
					}
				}()
			}
			clock.advance(tick)
			eventually(t, "the queues to be written", func() bool {
				for _, s := range sessions {
					s.mu.Lock()
					n := s.dlv.cost
					s.mu.Unlock()
					if n != 0 {
						return false
					}
				}
				return true
			})
			if free := r.reserve.free.Load(); free != more {
				t.Errorf("seed %d: %d of %d are free after all was written", seed, free, more)
			}
			for i, c := range clients {
				if i == 0 && round >= 4 {
					continue
				}
				c.send(&wire.Frame{Type: wire.TypePing})
				<-read
			}
		}
	})
}
