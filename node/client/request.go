package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"imroute/mesh/wire"
)

// Reply is the answer to a request.
type Reply struct {
	From    string         // who answered
	ID      wire.MessageID // of the request
	Payload []byte
	RTT     time.Duration // from the call to the answer
}

// asking is a request without an answer. Guarded by Client.mu.
type asking struct {
	to     Address
	answer chan Reply // capacity 1
	fault  chan *Fault
}

// ToService is one instance of a service, whichever has least to do.
func ToService(name string) Address { return Address{kind: wire.ToService, to: name} }

// Request sends a request to a service, or to a client, and waits for the answer. A service's request goes to one live instance;
// if that refuses it, or is gone before it was written to its connection, another one gets it, within the time-out
// (Config.Timeout unless WithTimeout says otherwise; WithAck means nothing here). A client gets it as a message, and answers
// with Message.Reply.
//
// The error holds
//   - a *Fault: it was handled, and failed there;
//   - a *wire.Error with Offline (no instance, or the client is not there), Overloaded (every instance is busy) or Unavailable:
//     nobody had it, try again;
//   - a *wire.Error with Timeout or Unknown: an instance may have done it, or may yet do it, and nobody says so. A request to a
//     service is never done twice, so only the application knows whether it may be asked again;
//   - ctx's error as well, if that ended first: with Unknown if it was cancelled, with Timeout if its deadline passed.
//
// It may be called in OnMessage and in handlers: answers do not wait for what was received before.
func (c *Client) Request(ctx context.Context, to Address, payload []byte, opts ...SendOption) (Reply, error) {
	if to.kind != wire.ToService && to.kind != wire.ToClient {
		return Reply{}, wire.Errorf(wire.BadRequest, "a request goes to a service or a client, not to %s", to)
	}
	var o sendOptions
	for _, opt := range opts {
		opt(&o)
	}
	if o.timeout == 0 {
		o.timeout = c.cfg.Timeout
	}
	start := c.now()
	a := &asking{to: to, answer: make(chan Reply, 1), fault: make(chan *Fault, 1)}
	result := make(chan Result, 1)
	timer := time.NewTimer(o.timeout)
	defer timer.Stop()
	var id wire.MessageID
	for {
		var err error
		_, id, err = c.enqueue(to, payload, wire.AckOwner, o.timeout-sinceNanos(start, c.now()), func(r Result) { result <- r }, a)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrOverloaded) {
			return Reply{}, err
		}
		if err := c.awaitRoom(ctx, o.timeout-sinceNanos(start, c.now())); err != nil {
			return Reply{}, err
		}
	}
	defer c.forgetAsking(id.Counter)
	had := false
	for {
		select {
		case r := <-a.answer:
			r.RTT = sinceNanos(start, c.now())
			return r, nil
		case f := <-a.fault:
			return Reply{ID: id}, faultError(f)
		case r := <-result:
			if r.Code != wire.Delivered {
				select { // it may have come in between
				case r := <-a.answer:
					r.RTT = sinceNanos(start, c.now())
					return r, nil
				case f := <-a.fault:
					return Reply{ID: id}, faultError(f)
				default:
				}
				return Reply{ID: id}, r.Err()
			}
			had = true
			result = nil
		case <-timer.C:
			return Reply{ID: id}, noAnswer(had)
		case <-ctx.Done():
			return Reply{ID: id}, fmt.Errorf("%w: %w", givenUp(ctx, had), context.Cause(ctx))
		case <-c.done:
			return Reply{ID: id}, fmt.Errorf("%w: %w", &wire.Error{Code: wire.Unknown}, c.Err())
		}
	}
}

// givenUp is noAnswer for a context that ended before the time-out did.
func givenUp(ctx context.Context, had bool) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return noAnswer(had)
	}
	text := "given up before it was known whether it arrived"
	if had {
		text = "it was handed over, and given up before the answer came"
	}
	return &wire.Error{Code: wire.Unknown, Text: text}
}

func noAnswer(had bool) error {
	text := "no answer within the time-out"
	if had {
		text = "it was handed over, but not answered within the time-out"
	}
	return &wire.Error{Code: wire.Timeout, Text: text}
}

// faultError is what Request returns of a fault: that a handler ran out of time is no word of the application's.
func faultError(f *Fault) error {
	if f.Code == FaultTimeout {
		return &wire.Error{Code: wire.Timeout, Text: "the handler did not end within the time-out"}
	}
	return f
}

func (c *Client) forgetAsking(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.services.asks, id)
}

// mayAnswer says whether an answer may come from that client. What a request to a service is called by, only its instances know;
// what messages to a client are called by, everybody knows whom this one has ever sent any.
func (a *asking) mayAnswer(from string) bool {
	return a.to.kind == wire.ToService || from == a.to.to || wire.ClientID{ID: from}.User() == a.to.to
}

// replied takes an answer. One that nobody waits for any more, or of somebody who was not asked, is dropped.
func (c *Client) replied(s *session, f *wire.Frame) {
	c.mu.Lock()
	a := c.services.asks[f.Re]
	if a == nil || c.messageID(a.to, f.Re).Instance != f.ReInstance || !a.mayAnswer(f.From) {
		c.mu.Unlock()
		c.log.Debug("an answer that nobody waits for", "from", f.From, "re", f.Re)
		return
	}
	delete(c.services.asks, f.Re)
	c.mu.Unlock()
	if f.Fault != 0 {
		a.fault <- &Fault{f.Fault, string(f.Payload)}
		return
	}
	a.answer <- Reply{From: s.name(f.From), ID: wire.MessageID{Instance: f.ReInstance, Counter: f.Re}, Payload: slices.Clone(f.Payload)}
}

// lostWith takes out the requests to services that went over a session which has ended and are not settled: they must not be
// repeated, and nobody will say any more how they went.
func (l *pendingList) lostWith(s *session) (lost []*pending) {
	for p := l.head; p != nil; {
		next := p.next
		if p.to.kind == wire.ToService && p.tries > 0 && p.over == s {
			l.unlink(p)
			lost = append(lost, p)
		}
		p = next
	}
	return lost
}
