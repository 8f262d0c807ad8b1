package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// welcoming is a node that lets everybody in and counts them.
type welcoming struct {
	l     net.Listener
	epoch *atomic.Uint64
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	count int
}

func newWelcoming(t *testing.T, epoch *atomic.Uint64) *welcoming {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &welcoming{l: l, epoch: epoch}
	w.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.conns = append(w.conns, conn)
			w.mu.Unlock()
			w.wg.Go(func() { w.serve(conn) })
		}
	})
	t.Cleanup(w.close)
	return w
}

func (w *welcoming) serve(conn net.Conn) {
	defer conn.Close()
	in := wire.NewFrameReader(conn, wire.MaxPayload)
	defer in.Close()
	var f wire.Frame
	for in.Next(&f) == nil {
		switch f.Type {
		case wire.TypeLogin:
			w.mu.Lock()
			w.count++
			w.mu.Unlock()
			_, _ = conn.Write(wire.AppendFrame(nil, &wire.Frame{
				Type: wire.TypeWelcome, Epoch: wire.Epoch(w.epoch.Add(1)), Instance: f.Instance, Node: "n", IdleMS: 30_000, MaxPayload: wire.MaxPayload,
			}))
		case wire.TypePing:
			_, _ = conn.Write(wire.AppendFrame(nil, &wire.Frame{Type: wire.TypePong}))
		case wire.TypeBye:
			return
		}
	}
}

// close is what a kill does: the connections break, and nobody listens any more.
func (w *welcoming) close() {
	_ = w.l.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

func (w *welcoming) clients() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// The clients of a node that is killed spread over those that are left, though all have the same list.
func TestLostNodesClientsSpread(t *testing.T) {
	const clients = 120
	var epoch atomic.Uint64
	a, b, c := newWelcoming(t, &epoch), newWelcoming(t, &epoch), newWelcoming(t, &epoch)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all []*Client
	defer func() {
		for _, c := range all {
			_ = c.Close(ctx)
		}
	}()
	for i := range clients {
		cl, err := Dial(ctx, Config{Addrs: []string{a.l.Addr().String(), b.l.Addr().String(), c.l.Addr().String()}, Client: fmt.Sprintf("u%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cl)
	}
	if n := a.clients(); n != clients {
		t.Fatalf("%d at the first address, want all %d: before there was a session the order is that of the list", n, clients)
	}
	a.close()
	for b.clients()+c.clients() < clients {
		select {
		case <-ctx.Done():
			t.Fatalf("%d and %d of %d came back", b.clients(), c.clients(), clients)
		case <-time.After(5 * time.Millisecond):
		}
	}
	// Less than a quarter at one of two is as likely as one in fifty million.
	t.Logf("%d and %d", b.clients(), c.clients())
	if least := min(b.clients(), c.clients()); least < clients/4 {
		t.Errorf("%d and %d of %d: that is not spread", b.clients(), c.clients(), clients)
	}
}
