package client

import (
	"sync"

	"imroute/mesh/wire"
)

// messageCost is counted for each buffered message on top of its payload.
const messageCost = 128

// inbox holds what was received and not yet taken. Who takes gets a block at a time, so that messages are not copied about and
// a Client that waits for messages holds no room for any.
type inbox struct {
	limit int           // bytes
	ready chan struct{} // capacity 1: there may be something to take
	room  chan struct{} // capacity 1: there may be room again

	mu          sync.Mutex
	first, last *block // none of them empty
	bytes       int
	ended       bool       // nothing is put any more
	epoch       wire.Epoch // the highest seen
	seen        dedupe
}

// block is some messages in their order: m[from:to].
type block struct {
	next     *block
	from, to int
	m        [32]Message
}

var blocks = sync.Pool{New: func() any { return new(block) }}

func (b *block) free() {
	clear(b.m[b.from:b.to])
	b.next, b.from, b.to = nil, 0, 0
	blocks.Put(b)
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
	return q.admitLocked(epoch, id, ack)
}

func (q *inbox) admitLocked(epoch wire.Epoch, id wire.MessageID, ack wire.AckMode) verdict {
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

// put admits a message and takes it in, and says whether there is room for another; if not, wait before reading on. So what
// was read is never lost, and the bound is exceeded by one message at most.
func (q *inbox) put(m *Message, ack wire.AckMode) (v verdict, room bool) {
	q.mu.Lock()
	if v = q.admitLocked(m.Epoch, m.ID, ack); v != taken {
		q.mu.Unlock()
		return v, true
	}
	empty := q.first == nil
	b := q.last
	if b == nil || b.to == len(b.m) {
		b = blocks.Get().(*block)
		if empty {
			q.first = b
		} else {
			q.last.next = b
		}
		q.last = b
	}
	b.m[b.to] = *m
	b.to++
	q.bytes += len(m.Payload) + messageCost
	room = q.bytes < q.limit
	q.mu.Unlock()
	if empty {
		signal(q.ready) // whoever takes and leaves some says so to the next
	}
	return taken, room
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

// take waits for messages and returns the oldest ones as a block, which the caller frees. It returns nil only once the inbox
// has ended or done is closed.
func (q *inbox) take(done <-chan struct{}) *block {
	if !q.lockFilled(done) {
		return nil
	}
	b := q.first
	bytes := 0
	for i := b.from; i < b.to; i++ {
		bytes += len(b.m[i].Payload) + messageCost
	}
	q.unlinkLocked()
	q.unlockLess(bytes)
	return b
}

// takeOne is take for one message.
func (q *inbox) takeOne(done <-chan struct{}) (m Message, ok bool) {
	if !q.lockFilled(done) {
		return m, false
	}
	b := q.first
	m, b.m[b.from] = b.m[b.from], Message{}
	if b.from++; b.from == b.to {
		q.unlinkLocked()
		b.free()
	}
	q.unlockLess(len(m.Payload) + messageCost)
	return m, true
}

// lockFilled waits until there are messages and returns true with q.mu locked.
func (q *inbox) lockFilled(done <-chan struct{}) bool {
	for {
		q.mu.Lock()
		if q.first != nil {
			return true
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			signal(q.ready) // for the next taker
			return false
		}
		select {
		case <-q.ready:
		case <-done:
			return false
		}
	}
}

func (q *inbox) unlinkLocked() {
	if q.first = q.first.next; q.first == nil {
		q.last = nil
	}
}

// unlockLess counts what was taken and wakes whoever waits for that, or for more.
func (q *inbox) unlockLess(bytes int) {
	full := q.bytes >= q.limit
	q.bytes -= bytes
	full = full && q.bytes < q.limit
	more := q.first != nil || q.ended
	q.mu.Unlock()
	if full {
		signal(q.room)
	}
	if more {
		signal(q.ready)
	}
}

func (q *inbox) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	signal(q.ready)
}

// highest is the highest epoch seen.
func (q *inbox) highest() wire.Epoch {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epoch
}
