package client

import (
	"math"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// never is a time that does not come.
const never = math.MaxInt64

// pendingCost is counted for each kept message on top of payload and recipient.
const pendingCost = 64

// pending is one message that the Client still has to do with: an acknowledged one without a result, or an
// unacknowledged one that no session took yet. Whoever unlinks it, under Client.mu, finishes it.
type pending struct {
	id         uint64
	to         Address
	payload    []byte // its own
	ack        wire.AckMode
	start      int64
	deadline   int64
	tries      int          // sessions it was handed to
	over       *session     // the last of these
	done       func(Result) // nil: result goes to answer
	answer     chan Result  // capacity 1; nil with done
	prev, next *pending
}

var pendings = sync.Pool{New: func() any { return new(pending) }}

func (p *pending) cost() int { return len(p.payload) + len(p.to.to) + pendingCost }

// free gives p back. Nobody may refer to it any more.
func (p *pending) free() {
	payload := p.payload[:0]
	if cap(payload) > 4096 {
		payload = nil
	}
	*p = pending{payload: payload}
	pendings.Put(p)
}

// pendingList keeps pending messages in the order of their ids. Guarded by Client.mu.
type pendingList struct {
	head, tail *pending
	byID       map[uint64]*pending // acknowledged ones
	bytes      int
	soonest    int64 // no deadline is earlier; may itself be too early
}

func (l *pendingList) push(p *pending) { l.insert(p, l.tail) }

// insert links p behind prev, nil meaning at the head.
func (l *pendingList) insert(p, prev *pending) {
	p.prev = prev
	if prev == nil {
		p.next, l.head = l.head, p
	} else {
		p.next, prev.next = prev.next, p
	}
	if p.next == nil {
		l.tail = p
	} else {
		p.next.prev = p
	}
	l.bytes += p.cost()
	if p.ack != wire.AckNone {
		if l.byID == nil {
			l.byID = make(map[uint64]*pending)
		}
		l.byID[p.id] = p
	}
}

func (l *pendingList) unlink(p *pending) {
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
	l.bytes -= p.cost()
	if p.ack != wire.AckNone {
		delete(l.byID, p.id)
	}
}

// finish tells whoever waits for p, which is unlinked. Not to be called with Client.mu held.
func (c *Client) finish(p *pending, r Result) {
	r.ID = c.messageID(p.to, p.id)
	r.RTT = max(0, sinceNanos(p.start, c.now()))
	switch {
	case p.ack == wire.AckNone:
		p.free()
		c.refused(r)
	case p.done != nil:
		done := p.done
		p.free()
		done(r)
	default:
		p.answer <- r // the sender frees it
	}
}

func (c *Client) refused(r Result) {
	if c.cfg.OnRefused != nil {
		c.cfg.OnRefused(r)
	}
}

// settle takes the result that a node sent.
func (c *Client) settle(s *session, f *wire.Frame) {
	c.mu.Lock()
	if p := c.pend.byID[f.ID]; c.cur != s && f.Code != wire.Delivered && (p == nil || p.over != s || p.to.kind != wire.ToService) {
		c.mu.Unlock() // this session was superseded: its refusals say nothing about the repetition over the new one
		return
	}
	if c.groups.settleLocked(f) || c.services.settleLocked(f) || c.watches.settleLocked(f) {
		c.mu.Unlock()
		return
	}
	p := c.pend.byID[f.ID]
	if p != nil {
		c.pend.unlink(p)
		c.freedLocked()
	}
	late := p == nil && c.late.remove(f.ID)
	c.mu.Unlock()
	r := Result{Code: f.Code, Count: int(f.Count), Missed: int(f.Missed), Retry: time.Duration(f.RetryMS) * time.Millisecond, Text: cloneText(f.Text), Owner: s.nodeName(f.Node)}
	for _, id := range f.MissedIDs {
		r.MissedIDs = append(r.MissedIDs, cloneText(id))
	}
	switch {
	case p != nil:
		c.finish(p, r)
	case late, f.Code == wire.Delivered, f.Code == wire.Accepted:
	default:
		r.ID = wire.MessageID{Instance: c.Instance(), Counter: f.ID}
		c.refused(r)
	}
}

// expire ends what has passed its deadline. Called by the loop.
func (c *Client) expire() {
	now := c.now()
	var over []*pending
	c.mu.Lock()
	if now < c.pend.soonest {
		c.mu.Unlock()
		return
	}
	soonest := int64(never)
	for p := c.pend.head; p != nil; {
		next := p.next
		if p.deadline <= now {
			c.pend.unlink(p)
			c.late.addIf(p)
			over = append(over, p)
		} else {
			soonest = min(soonest, p.deadline)
		}
		p = next
	}
	if soonest != never {
		soonest = max(soonest, now+sweepEvery) // many deadlines close together share one walk
	}
	c.pend.soonest = soonest
	if len(over) > 0 {
		c.freedLocked()
	}
	c.mu.Unlock()
	for _, p := range over {
		c.finish(p, timedOut(p))
	}
}

const sweepEvery = int64(2e6)

func timedOut(p *pending) Result {
	if p.tries == 0 {
		return Result{Code: wire.Unavailable, Text: "no connection within the time-out"}
	}
	return Result{Code: wire.Timeout, Text: "no answer within the time-out"}
}

// failAll ends everything that is pending, because the Client did.
func (c *Client) failAll(err error) {
	c.mu.Lock()
	c.endServicesLocked()
	var all []*pending
	for p := c.pend.head; p != nil; p = c.pend.head {
		c.pend.unlink(p)
		all = append(all, p)
	}
	c.freedLocked()
	c.mu.Unlock()
	for _, p := range all {
		r := Result{Code: wire.Unknown, err: err, Text: err.Error()}
		if p.tries == 0 {
			r.Code = wire.Unavailable
		}
		c.finish(p, r)
	}
}

// resendLocked hands everything pending to a new session, in order.
func (c *Client) resendLocked(s *session) (tooLarge []*pending) {
	now := c.now()
	for p := c.pend.head; p != nil; {
		next := p.next
		switch {
		case p.deadline <= now: // the loop is about to end it
		case p.to.kind == wire.ToService && p.tries > 0: // never repeated: its session tells, or its end does
		case len(p.payload) > s.maxPayload:
			c.pend.unlink(p)
			tooLarge = append(tooLarge, p)
		default:
			c.appendSend(s, p.id, p.to, p.payload, p.ack, p.deadline-now)
			p.over = s
			if p.tries++; p.ack == wire.AckNone {
				c.pend.unlink(p)
				p.free()
			}
		}
		p = next
	}
	s.kickLocked()
	c.freedLocked()
	return tooLarge
}

// recoverLocked takes back what a session was given and surely did not hand over: unacknowledged messages wait for the
// next session, acknowledged ones are pending anyway.
func (c *Client) recoverLocked(unsent *chunk, off int, rest []*chunk) {
	at := c.pend.head
	now := c.now()
	var f wire.Frame
	take := func(body []byte) error {
		if err := wire.DecodeFrame(body, &f); err != nil || f.Type != wire.TypeSend {
			return err
		}
		if f.Ack != wire.AckNone {
			if p := c.pend.byID[f.ID]; p != nil {
				p.tries--
			}
			return nil
		}
		p := pendings.Get().(*pending)
		p.id, p.to, p.ack, p.start = f.ID, Address{kind: f.Kind, to: cloneText(f.To), re: f.Re, reInstance: f.ReInstance, fault: f.Fault}, wire.AckNone, now
		p.deadline = now + int64(f.TimeoutMS)*1e6
		p.payload = append(p.payload, f.Payload...)
		for at != nil && at.id < p.id {
			at = at.next
		}
		if at == nil {
			c.pend.push(p)
		} else {
			c.pend.insert(p, at.prev)
		}
		c.noteDeadlineLocked(p.deadline)
		return nil
	}
	if unsent != nil {
		_ = eachFrame(unsent.b, off, take) // we wrote them, so they can be read
		freeChunk(unsent)
	}
	for _, ch := range rest {
		_ = eachFrame(ch.b, 0, take)
		freeChunk(ch)
	}
}

// lateIDs remembers acknowledged messages that were given up here, so that a result that comes later is not taken for the
// refusal of an unacknowledged one. Guarded by Client.mu.
type lateIDs struct {
	ids  []uint64 // a ring
	next int
}

const maxLate = 1024

func (l *lateIDs) addIf(p *pending) {
	switch {
	case p.ack == wire.AckNone || p.tries == 0:
	case len(l.ids) < maxLate:
		l.ids = append(l.ids, p.id)
	default:
		l.ids[l.next] = p.id
		l.next = (l.next + 1) % maxLate
	}
}

func (l *lateIDs) remove(id uint64) bool {
	for i, v := range l.ids {
		if v == id {
			l.ids[i] = 0
			return true
		}
	}
	return false
}
