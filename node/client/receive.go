package client

import (
	"context"
	"errors"

	"imroute/mesh/wire"
)

// Message is one received message. It belongs to the receiver; its payload may share a larger allocation with the payloads
// of its neighbours, so clone one that is kept for long.
type Message struct {
	From    string         // the sender's client id
	ID      wire.MessageID // names it for ever
	Epoch   wire.Epoch     // of the session it came over
	Payload []byte

	Kind  wire.Kind // how it was addressed; ToClient also for what was sent to all devices of a user
	Group string    // ToGroup: which one

	c   *Client // set if the sender waits for an acknowledgement
	via *Client // for an answer
}

// Ack tells the sender that the message was dealt with, if it asked for that; needed only with Config.ManualAck. It does
// not wait, may be called from any goroutine, and is harmless for a message that did not ask, the second time, and after Close.
func (m Message) Ack() {
	if m.c != nil {
		m.c.acknowledge(m.ID)
	}
}

var errHandler = errors.New("client: Receive is not to be used together with Config.OnMessage")

// Receive returns the next message, in order; several goroutines may share the work. After the Client ended it returns
// what had arrived before, then Err. ctx's error if that ends first.
func (c *Client) Receive(ctx context.Context) (Message, error) {
	if c.cfg.OnMessage != nil {
		return Message{}, errHandler
	}
	m, ok := c.in.takeOne(ctx.Done())
	if !ok {
		if err := context.Cause(ctx); err != nil {
			return Message{}, err
		}
		<-c.done // follows at once
		return Message{}, c.Err()
	}
	if !c.cfg.ManualAck {
		m.Ack()
	}
	return m, nil
}

// dispatch calls OnMessage until the inbox has ended and is empty, or the application closes the Client.
func (c *Client) dispatch() {
	defer close(c.dispatched)
	for {
		b := c.in.take(c.closing)
		if b == nil {
			return
		}
		for i := b.from; i < b.to; i++ {
			select {
			case <-c.closing:
				return
			default:
			}
			c.cfg.OnMessage(b.m[i])
			if !c.cfg.ManualAck {
				b.m[i].Ack()
			}
		}
		b.free()
	}
}

func (c *Client) acknowledge(id wire.MessageID) {
	// Marked first: should the message come again over a new session in between, it is acknowledged there.
	c.in.mu.Lock()
	c.in.seen.markAcked(id.Instance, id.Counter)
	c.in.mu.Unlock()
	c.writeAck(id)
}

// writeAck queues an acknowledgement on the present session, if there is one with room. One that is lost costs its sender
// a time-out, which says just that: outcome not known.
func (c *Client) writeAck(id wire.MessageID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.cur; s != nil && s.out.bytes < 2*c.cfg.QueueBytes {
		s.out.append(&wire.Frame{Type: wire.TypeAck, Instance: id.Instance, ID: id.Counter})
		s.kickLocked()
	}
}
