package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// exampleNode listens like a node would, lets one client in and delivers back what it sends.
func exampleNode() (addr string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		say := func(f wire.Frame) { conn.Write(wire.AppendFrame(nil, &f)) }
		r := wire.NewFrameReader(conn, 0)
		var f wire.Frame
		var who wire.Frame
		for r.Next(&f) == nil && f.Type != wire.TypeBye {
			switch f.Type {
			case wire.TypeLogin:
				who = *f.Clone()
				say(wire.Frame{Type: wire.TypeWelcome, Epoch: 1, Node: "n1", IdleMS: 30000, MaxPayload: wire.MaxPayload})
			case wire.TypeSend:
				if f.To != who.Client {
					say(wire.Frame{Type: wire.TypeResult, ID: f.ID, Code: wire.Offline})
					continue
				}
				say(wire.Frame{Type: wire.TypeDeliver, From: who.Client, Instance: who.Instance, ID: f.ID, Epoch: 1, Payload: f.Payload})
				say(wire.Frame{Type: wire.TypeResult, ID: f.ID, Code: wire.Delivered, Node: "n1"})
			}
		}
	}()
	return ln.Addr().String(), func() { ln.Close(); <-ended }
}

func Example() {
	addr, stop := exampleNode()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := client.Dial(ctx, client.Config{Addrs: []string{addr}, Client: "alice"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close(ctx)

	res, err := c.Send(ctx, "alice", []byte("note to self"))
	fmt.Println(res.Code, "by", res.Owner, err)

	msg, err := c.Receive(ctx)
	fmt.Printf("%s: %s, %v\n", msg.From, msg.Payload, err)

	_, err = c.Send(ctx, "bob", []byte("hello"), client.WithTimeout(time.Second))
	var refused *wire.Error
	if errors.As(err, &refused) {
		fmt.Println("bob is", refused.Code)
	}
	// Output:
	// delivered by n1 <nil>
	// alice: note to self, <nil>
	// bob is offline
}

func ExampleClient_SendAsync() {
	addr, stop := exampleNode()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	received := make(chan string, 3)
	c, err := client.Dial(ctx, client.Config{
		Addrs: []string{addr}, Client: "alice",
		OnMessage: func(m client.Message) { received <- string(m.Payload) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close(ctx)

	results := make(chan client.Result, 3)
	for _, word := range []string{"one", "two", "three"} {
		if _, err := c.SendAsync("alice", []byte(word), wire.AckOwner, 0, func(r client.Result) { results <- r }); err != nil {
			fmt.Println(err) // ErrOverloaded: wait for results
		}
	}
	for range 3 {
		fmt.Println(<-received, (<-results).Code)
	}
	// Output:
	// one delivered
	// two delivered
	// three delivered
}
