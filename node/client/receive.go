package client

import (
	"context"
	"errors"
	"sync"

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

// messageCost is counted for each buffered message on top of its payload.
const messageCost = 128

// inbox holds what was received and not yet taken.
type inbox struct {
	limit int           // bytes
	ready chan struct{} // capacity 1: there may be something to take
	room  chan struct{} // capacity 1: there may be room again

	mu    sync.Mutex
	queue []Message // queue[head:] is waiting
	head  int
	bytes int
	ended bool       // nothing is put any more
	epoch wire.Epoch // the highest seen
	seen  dedupe
}

func newInbox(limit int) *inbox {
	return &inbox{limit: limit, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// verdict says what became of a frame.
type verdict uint8

const (
	taken     verdict = iota
	stale             // its epoch is below one already seen
	duplicate         // seen before and not yet acknowledged
	acked             // seen before and acknowledged
)

// admit checks the fence and the ids without taking anything in.
func (q *inbox) admit(epoch wire.Epoch, id wire.MessageID, ack wire.AckMode) verdict {
	q.mu.Lock()
	defer q.mu.Unlock()
	if epoch < q.epoch {
		return stale
	}
	q.epoch = epoch
	if ack == wire.AckNone {
		if q.seen.pass(id.Instance, id.Counter) {
			return taken
		}
		return duplicate
	}
	switch fresh, done := q.seen.add(id.Instance, id.Counter); {
	case fresh:
		return taken
	case done:
		return acked
	}
	return duplicate
}

// raise moves the fence for a new session; false if a higher epoch was seen.
func (q *inbox) raise(epoch wire.Epoch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if epoch < q.epoch {
		return false
	}
	q.epoch = epoch
	return true
}

// put takes a message in and says whether there is room for another; if not, wait before reading on. So what was read is
// never lost, and the bound is exceeded by one message at most.
func (q *inbox) put(m Message) bool {
	q.mu.Lock()
	if q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
	} else if q.head > 64 && q.head > len(q.queue)/2 {
		n := copy(q.queue, q.queue[q.head:])
		clear(q.queue[n:])
		q.queue, q.head = q.queue[:n], 0
	}
	q.queue = append(q.queue, m)
	q.bytes += len(m.Payload) + messageCost
	ok := q.bytes < q.limit
	q.mu.Unlock()
	signal(q.ready)
	return ok
}

// wait returns once there is room or stop is closed.
func (q *inbox) wait(stop <-chan struct{}) {
	for {
		q.mu.Lock()
		ok := q.bytes < q.limit
		q.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-q.room:
		case <-stop:
			return
		}
	}
}

// take moves up to n messages into dst. It returns none only once the inbox has ended or done is closed.
func (q *inbox) take(done <-chan struct{}, dst []Message, n int) []Message {
	for {
		q.mu.Lock()
		full := q.bytes >= q.limit
		for q.head < len(q.queue) && len(dst) < n {
			m := q.queue[q.head]
			q.queue[q.head] = Message{}
			q.head++
			q.bytes -= len(m.Payload) + messageCost
			dst = append(dst, m)
		}
		more, ended := q.head < len(q.queue), q.ended
		if !more && cap(q.queue) > 1024 {
			q.queue, q.head = nil, 0 // a burst is over
		}
		full = full && q.bytes < q.limit
		q.mu.Unlock()
		if full {
			signal(q.room)
		}
		if more || ended {
			signal(q.ready) // for the next taker
		}
		if len(dst) > 0 || ended {
			return dst
		}
		select {
		case <-q.ready:
		case <-done:
			return dst
		}
	}
}

func (q *inbox) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	signal(q.ready)
}

var errHandler = errors.New("client: Receive is not to be used together with Config.OnMessage")

// Receive returns the next message, in order; several goroutines may share the work. After the Client ended it returns
// what had arrived before, then Err. ctx's error if that ends first.
func (c *Client) Receive(ctx context.Context) (Message, error) {
	if c.cfg.OnMessage != nil {
		return Message{}, errHandler
	}
	var one [1]Message
	got := c.in.take(ctx.Done(), one[:0], 1)
	if len(got) == 0 {
		if err := context.Cause(ctx); err != nil {
			return Message{}, err
		}
		<-c.done // follows at once
		return Message{}, c.Err()
	}
	if !c.cfg.ManualAck {
		got[0].Ack()
	}
	return got[0], nil
}

// handlerBatch is how many messages the dispatcher takes at once.
const handlerBatch = 32

// dispatch calls OnMessage until the inbox has ended and is empty, or the application closes the Client.
func (c *Client) dispatch() {
	defer close(c.dispatched)
	var batch []Message
	for {
		batch = c.in.take(c.closing, batch[:0], handlerBatch)
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			select {
			case <-c.closing:
				return
			default:
			}
			c.cfg.OnMessage(batch[i])
			if !c.cfg.ManualAck {
				batch[i].Ack()
			}
			batch[i] = Message{}
		}
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

// highest is the highest epoch seen.
func (q *inbox) highest() wire.Epoch {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epoch
}
