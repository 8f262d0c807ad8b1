package node

import (
	"context"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// Nobody but who was asked can answer a request: not even a client that knows how the asker's messages are numbered.
func TestForgedAnswers(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	alice := c.dial("alice", n1)
	mallory := rawLogin(t, n2, "mallory", wire.NewID(), 1)
	mallory.want(wire.TypeWelcome)
	alice.send("mallory", "hello", wire.AckOwner, wire.Delivered, patience)
	seen := mallory.want(wire.TypeDeliver) // alice's instance, and where her counter is

	id := uint64(0)
	forged := func() {
		for _, instance := range []uint64{seen.Instance, wire.CastSender(seen.Instance, wire.ToService, "clock")} {
			for re := seen.ID; re < seen.ID+20; re++ {
				id++
				mallory.write(&wire.Frame{Type: wire.TypeSend, To: "alice", ID: id, Ack: wire.AckOwner, Re: re, ReInstance: instance, Payload: []byte("forged")})
				if r := mallory.want(wire.TypeResult); r.Code != wire.Delivered { // it is a message as any other
					t.Errorf("mallory's message: %v %s", r.Code, r.Text)
				}
			}
		}
	}
	clock := c.dial("clock/1", n3)
	clock.serve("clock", func(context.Context, client.Request) ([]byte, error) {
		forged()
		return []byte("noon"), nil
	})
	if r := alice.mustRequest(client.ToService("clock"), "now?", "noon"); r.From != "clock/1" {
		t.Errorf("%+v", r)
	}

	cfg, bob := dialConfig("bob/phone", n3)
	cfg.OnMessage = func(m client.Message) {
		forged()
		m.Reply([]byte("fine"))
	}
	if err := c.dialErr(cfg, bob); err != nil {
		t.Fatal(err)
	}
	if r, err := alice.request(client.ToClient("bob"), "how are you?", 10*time.Second); err != nil || string(r.Payload) != "fine" || r.From != "bob/phone" {
		t.Errorf("%+v, %v", r, err)
	}
}
