package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// castSender hears of messages to many as well.
type castSender struct{ *fakeSession }

func (s castSender) Reached(counter uint64, code wire.Code, count uint32, _ wire.Missed, _ string) {
	s.results <- fmt.Sprintf("%d %v reached %d", counter, code, count)
}

// Who wants to know how many devices were reached means those as well that this node's table does not know of yet.
func TestRouterLooksAgain(t *testing.T) {
	g := newRouterRig(t)
	alice := castSender{g.open("alice", 10)}
	phone, web := g.open("eve/phone", 11), g.open("eve/web", 12)
	g.routes["eve/phone"] = route("eve/phone", rigSelf, 11)
	unknown := route("eve/web", rigSelf, 12)
	refreshed := make(chan error)
	g.again = &lookAgain{r: g.router, refresh: func(ctx context.Context) error {
		select {
		case err := <-refreshed:
			if err == nil {
				g.set(func() { g.routes["eve/web"] = unknown })
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	send := func(counter uint64, ack wire.AckMode, timeout time.Duration) {
		g.sendToUser(alice, nil, &wire.Forward{
			Kind: wire.ToUser, To: "eve", From: "alice", Instance: wire.Sender(alice.client, alice.id.Instance), Counter: counter, Ack: ack, Payload: []byte("x"),
		}, timeout, nil)
	}
	quiet := func() {
		untilOr(t, "nothing is kept", func() error {
			g.again.mu.Lock()
			defer g.again.mu.Unlock()
			if g.again.running || g.pendings.bytes.Load() != 0 {
				return fmt.Errorf("running %v, %d bytes", g.again.running, g.pendings.bytes.Load())
			}
			return nil
		})
	}
	send(1, wire.AckNone, patience) // nobody asks how many: no read
	if len(phone.took()) != 1 {
		t.Errorf("phone took %v", phone.took())
	}
	send(2, wire.AckOwner, patience)
	if len(phone.took()) != 2 { // at once; only the count waits
		t.Errorf("phone took %v", phone.took())
	}
	refreshed <- nil
	alice.wants(t, "2 delivered reached 2")
	if len(web.took()) != 1 {
		t.Errorf("web took %v", web.took())
	}
	send(3, wire.AckOwner, patience)
	refreshed <- nil
	alice.wants(t, "3 delivered reached 2")
	send(4, wire.AckOwner, patience)
	refreshed <- errors.New("no quorum")
	alice.wants(t, "4 delivered reached 2") // of those that are known
	send(5, wire.AckOwner, 100*time.Millisecond)
	alice.wants(t, "5 delivered reached 2") // the read gets half of the time
	if len(phone.took()) != 5 || len(web.took()) != 4 {
		t.Errorf("twice to one of them: %v, %v", phone.took(), web.took())
	}
	quiet()

	send(6, wire.AckOwner, patience) // the node ends while it reads
	g.close()
	alice.wants(t, "6 delivered reached 2")
	quiet()
}
