package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// Result is how a send ended.
type Result struct {
	Code  wire.Code
	Text  string // for people, often empty
	Owner string // the name of the node that delivered it, if there is one
	Count int    // how many recipients were reached, of a message to many; what is not Delivered may have reached some too
	// Missed is how many others there were, of a message to many: they refused it, ended before they had it, or did not do in time
	// what was asked for. MissedIDs are some of them, 16 at most. With AckNone nobody counts.
	Missed    int
	MissedIDs []string
	RTT       time.Duration  // from the call to the result
	Retry     time.Duration  // with RateLimited: not before this is over
	ID        wire.MessageID // of the message
	err       error
}

// Err is nil for Delivered, Accepted and None (an ack=none message that was taken), otherwise an error that holds a
// *wire.Error with the code, and ErrClosed or the reason if the Client ended meanwhile.
func (r Result) Err() error {
	switch r.Code {
	case wire.Delivered, wire.Accepted, wire.None:
		return nil
	}
	if r.err != nil {
		return fmt.Errorf("%w: %w", &wire.Error{Code: r.Code}, r.err)
	}
	return &wire.Error{Code: r.Code, Text: r.Text}
}

// SendOption changes one Send.
type SendOption func(*sendOptions)

type sendOptions struct {
	ack     wire.AckMode
	timeout time.Duration
}

// WithAck says what to wait for. Default: wire.AckOwner.
func WithAck(m wire.AckMode) SendOption { return func(o *sendOptions) { o.ack = m } }

// WithTimeout says how long. 0: Config.Timeout.
func WithTimeout(d time.Duration) SendOption { return func(o *sendOptions) { o.timeout = d } }

// Send sends one message and waits for its result; with AckNone it returns once the message is queued for writing. The
// payload is copied. While QueueBytes or MaxInFlight is reached it waits for room; while there is no session the message
// waits for one.
//
// The error is Result.Err, or ErrOverloaded, or the Client's own error if that has ended. If ctx ends first, the error
// holds ctx's as well, and the result's code is Timeout (Unknown if it was cancelled), or Unavailable if the message never left.
func (c *Client) Send(ctx context.Context, to string, payload []byte, opts ...SendOption) (Result, error) {
	return c.SendTo(ctx, ToClient(to), payload, opts...)
}

// SendTo is Send to any address.
func (c *Client) SendTo(ctx context.Context, to Address, payload []byte, opts ...SendOption) (Result, error) {
	o := sendOptions{ack: wire.AckOwner}
	for _, opt := range opts {
		opt(&o)
	}
	start := c.now()
	if o.timeout == 0 {
		o.timeout = c.cfg.Timeout
	}
	for {
		p, id, err := c.enqueue(to, payload, o.ack, o.timeout-sinceNanos(start, c.now()), nil, nil)
		switch {
		case err == nil && p == nil:
			return Result{ID: id}, nil
		case err == nil:
			return c.await(ctx, p)
		case !errors.Is(err, ErrOverloaded):
			return Result{Code: codeOf(err)}, err
		}
		if err := c.awaitRoom(ctx, o.timeout-sinceNanos(start, c.now())); err != nil {
			return Result{Code: codeOf(err)}, err
		}
	}
}

// SendAsync sends one message without waiting. done hears its result exactly once, unless SendAsync returns an error or ack
// is AckNone; what becomes of those is told to Config.OnRefused, if it is bad. done runs on the goroutine that reads the
// connection or the one that ends time-outs: it must return soon, and may call SendAsync but not Send. timeout 0:
// Config.Timeout. The payload is copied. Results come in any order.
//
// The error is ErrOverloaded past MaxInFlight or QueueBytes, another *wire.Error for what can never be sent, or the
// Client's own if that has ended.
func (c *Client) SendAsync(to string, payload []byte, ack wire.AckMode, timeout time.Duration, done func(Result)) (wire.MessageID, error) {
	return c.SendToAsync(ToClient(to), payload, ack, timeout, done)
}

// SendToAsync is SendAsync to any address.
func (c *Client) SendToAsync(to Address, payload []byte, ack wire.AckMode, timeout time.Duration, done func(Result)) (wire.MessageID, error) {
	if timeout == 0 {
		timeout = c.cfg.Timeout
	}
	if done == nil {
		done = func(Result) {}
	}
	_, id, err := c.enqueue(to, payload, ack, timeout, done, nil)
	return id, err
}

// enqueue gives a message its id and hands it to the session, if there is one. The pending message is returned if the
// caller is to wait for it, which is when it gives no done. a, if not nil, hears the answer to it.
func (c *Client) enqueue(to Address, payload []byte, ack wire.AckMode, timeout time.Duration, done func(Result), a *asking) (*pending, wire.MessageID, error) {
	if err := to.kind.ValidateTo(to.to); err != nil {
		return nil, wire.MessageID{}, wire.Errorf(wire.BadRequest, "recipient: %v", err)
	}
	if timeout <= 0 || timeout > maxTimeout {
		return nil, wire.MessageID{}, wire.Errorf(wire.BadRequest, "time-out is %s: must be above 0 and at most %s", timeout, maxTimeout)
	}
	if ack > wire.AckClient {
		return nil, wire.MessageID{}, wire.Errorf(wire.BadRequest, "ack mode %d is not known", ack)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return nil, wire.MessageID{}, c.ended
	}
	if len(payload) > c.maxPayload {
		return nil, wire.MessageID{}, wire.Errorf(wire.TooLarge, "payload of %d bytes: the cluster takes %d at most", len(payload), c.maxPayload)
	}
	cost := len(payload) + len(to.to) + pendingCost
	if held := c.heldLocked(); held > 0 && held+cost > c.cfg.QueueBytes || ack != wire.AckNone && len(c.pend.byID) >= c.cfg.MaxInFlight {
		return nil, wire.MessageID{}, ErrOverloaded
	}
	c.counter++
	id := c.messageID(to, c.counter)
	if a != nil {
		if c.services.asks == nil {
			c.services.asks = map[uint64]*asking{}
		}
		c.services.asks[c.counter] = a
	}
	s := c.cur
	if s != nil {
		c.appendSend(s, id.Counter, to, payload, ack, int64(timeout))
		s.kickLocked()
		if ack == wire.AckNone {
			return nil, id, nil
		}
	}
	now := c.now()
	p := pendings.Get().(*pending)
	p.id, p.to, p.ack, p.done = id.Counter, to, ack, done
	p.start, p.deadline = now, now+int64(timeout)
	p.payload = append(p.payload, payload...)
	if s != nil {
		p.tries, p.over = 1, s
	}
	c.pend.push(p)
	c.noteDeadlineLocked(p.deadline)
	if s != nil && !c.asking && ack != wire.AckNone {
		c.askLocked(true)
	}
	if done != nil || ack == wire.AckNone {
		return nil, id, nil // it may be finished and reused at any moment
	}
	p.answer = make(chan Result, 1)
	return p, id, nil
}

func (c *Client) appendSend(s *session, id uint64, to Address, payload []byte, ack wire.AckMode, left int64) {
	// The node gives up a little sooner, so that its answer, which knows more than "no answer", is here in time.
	left -= min(left/8, int64(250*time.Millisecond))
	ms := uint32((left + 1e6 - 1) / 1e6)
	if to == ToClient(to.to) {
		s.out.appendSend(to.to, id, ack, ms, payload)
		return
	}
	s.out.append(&wire.Frame{Type: wire.TypeSend, Kind: to.kind, To: to.to, ID: id, Ack: ack, TimeoutMS: ms, Re: to.re, ReInstance: to.reInstance, Fault: to.fault, Payload: payload})
}

func (c *Client) await(ctx context.Context, p *pending) (Result, error) {
	var r Result
	select {
	case r = <-p.answer:
	case <-ctx.Done():
		id := c.messageID(p.to, p.id)
		c.mu.Lock()
		mine := c.pend.byID[id.Counter] == p
		if mine {
			c.pend.unlink(p)
			c.late.addIf(p)
			c.freedLocked()
		}
		c.mu.Unlock()
		if mine {
			if r = timedOut(p); errors.Is(ctx.Err(), context.Canceled) && r.Code == wire.Timeout {
				r.Code, r.Text = wire.Unknown, "given up before the result came"
			}
			r.ID = id
			r.RTT = sinceNanos(p.start, c.now())
			r.err = context.Cause(ctx)
		} else {
			r = <-p.answer // somebody else unlinked it and is about to say so
		}
	}
	p.free()
	return r, r.Err()
}

// awaitRoom returns nil once something was freed since the last look.
func (c *Client) awaitRoom(ctx context.Context, left time.Duration) error {
	if left <= 0 {
		return ErrOverloaded
	}
	c.mu.Lock()
	if c.ended != nil {
		defer c.mu.Unlock()
		return c.ended
	}
	if c.heldLocked() == 0 { // freed in between
		c.mu.Unlock()
		return nil
	}
	if c.room == nil {
		c.room = make(chan struct{})
	}
	room := c.room
	c.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-room:
		return nil
	case <-timer.C:
		return ErrOverloaded
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrOverloaded, context.Cause(ctx))
	}
}

// heldLocked is what QueueBytes bounds.
func (c *Client) heldLocked() int {
	n := c.pend.bytes
	if c.cur != nil {
		n += c.cur.out.bytes
	}
	return n
}

// freedLocked wakes senders that wait for room.
func (c *Client) freedLocked() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// noteDeadlineLocked makes sure that the loop wakes up in time.
func (c *Client) noteDeadlineLocked(deadline int64) {
	if deadline < c.pend.soonest {
		c.pend.soonest = deadline
		c.poke()
	}
}

func codeOf(err error) wire.Code {
	var we *wire.Error
	if errors.As(err, &we) {
		return we.Code
	}
	return wire.Unavailable
}

func cloneText(s string) string {
	if s == "" {
		return ""
	}
	return strings.Clone(s)
}

// nodeName avoids an allocation for the names that results repeat. Owned by the session's goroutine.
func (s *session) nodeName(n string) string {
	switch n {
	case "":
		return ""
	case s.node:
		return s.node
	}
	return s.name(n)
}

// sinceNanos is the duration between two of Client.now's readings.
func sinceNanos(from, to int64) time.Duration { return time.Duration(to - from) }
