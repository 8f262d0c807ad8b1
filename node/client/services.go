package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// Request is one that an instance of a service was given.
type Request struct {
	Service string
	From    string         // the client that asks
	ID      wire.MessageID // names it for ever
	Payload []byte         // the handler's to keep
}

// Handler answers requests, several at a time. What it returns goes back to whoever asked; a *Fault goes as it is, any other
// error as a Fault of FaultInternal with its text, ctx's own deadline as FaultTimeout. ctx ends when the requester waits no longer, and when the Service is closed or
// the Client ends.
type Handler func(ctx context.Context, r Request) ([]byte, error)

// Fault is the answer to a request that failed where it was handled. Code means what requester and handler agree on; those
// below 100 are the SDK's.
type Fault struct {
	Code uint32 // not 0
	Text string // for people; may be empty
}

func (f *Fault) Error() string {
	if f.Text == "" {
		return fmt.Sprintf("fault %d", f.Code)
	}
	return fmt.Sprintf("fault %d: %s", f.Code, f.Text)
}

// Faults that the SDK itself answers with.
const (
	FaultInternal uint32 = 1 // the handler returned another error, or panicked
	FaultBusy     uint32 = 2 // more requests than the instance takes at a time; nothing was done
	FaultGone     uint32 = 3 // the instance has just ended; nothing was done
	FaultTimeout  uint32 = 4 // the handler did not end before the requester's time did; Request makes a wire.Timeout of it
)

// Service is this Client being an instance of a service.
type Service struct {
	c       *Client
	name    string
	handler Handler
	limit   int
	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	done    chan struct{} // closed when the cluster refused, after a reconnect
	running sync.WaitGroup

	// guarded by Client.mu
	member  bool
	asking  bool
	ended   bool
	open    int
	err     error
	waiters []chan error // capacity 1 each
}

// ServeOption changes one Serve.
type ServeOption func(*Service)

// WithConcurrency says how many requests are handled at a time; the cluster gives the instance no more. 0: 64. At most
// wire.MaxServiceLoad.
func WithConcurrency(n int) ServeOption { return func(s *Service) { s.limit = n } }

// services is what a Client serves and asks. Guarded by Client.mu.
type services struct {
	by    map[string]*Service
	asked map[uint64]*Service // joins without an answer, by id
	left  map[uint64]chan error
	asks  map[uint64]*asking // requests without an answer, by id
}

// Serve makes this Client an instance of a service and returns once the cluster knows: each request to the service goes to one
// of its instances. It stays one over reconnects, until Close. Outside development mode a client may serve the service that
// its user id names.
//
// Requests are handled by goroutines of their own and do not pass through OnMessage or Receive. An answer waits for a session
// like any message, as long as Config.Timeout. Of a request that this process took and did not answer, because it died, the
// requester hears nothing but the end of its time: nothing is handed to another instance that might be done twice.
//
// Close the Service before the Client: a Client that is closing drops what it is sent.
//
// The error holds a *wire.Error if the cluster refused. If ctx ends first the error is ctx's and nothing is served.
func (c *Client) Serve(ctx context.Context, name string, h Handler, opts ...ServeOption) (*Service, error) {
	if err := wire.ToService.ValidateTo(name); err != nil {
		return nil, wire.Errorf(wire.BadRequest, "service: %v", err)
	}
	s := &Service{c: c, name: name, handler: h, limit: 64, done: make(chan struct{})}
	for _, o := range opts {
		o(s)
	}
	if s.limit == 0 {
		s.limit = 64
	}
	if s.limit < 0 || s.limit > wire.MaxServiceLoad || h == nil {
		return nil, wire.Errorf(wire.BadRequest, "concurrency %d: want 1 to %d, and a handler", s.limit, wire.MaxServiceLoad)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	answer := make(chan error, 1)
	c.mu.Lock()
	switch {
	case c.ended != nil:
		err := c.ended
		c.mu.Unlock()
		s.cancel()
		return nil, err
	case c.services.by[name] != nil:
		c.mu.Unlock()
		s.cancel()
		return nil, wire.Errorf(wire.Refused, "this client serves %s already", name)
	}
	if c.services.by == nil {
		c.services.by = map[string]*Service{}
	}
	c.services.by[name] = s
	s.waiters = append(s.waiters, answer)
	if c.cur != nil {
		c.serveLocked(c.cur, s)
	}
	c.mu.Unlock()
	if err := c.answered(ctx, answer); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.Close(closing)
		return nil, err
	}
	return s, nil
}

// Done is closed when the cluster does not let this Client serve any more; Err then says why.
func (s *Service) Done() <-chan struct{} { return s.done }

// Err is nil until Done is closed.
func (s *Service) Err() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err
}

// Close ends it: the cluster sends no more requests, and those that are being handled are waited for, until ctx ends; then
// their own contexts end, and the error is ctx's.
func (s *Service) Close(ctx context.Context) error {
	c := s.c
	answer := make(chan error, 1)
	c.mu.Lock()
	if s.ended {
		answer <- nil
	} else {
		s.ended = true
		if c.services.by[s.name] == s {
			delete(c.services.by, s.name)
		}
		if c.cur != nil && c.ended == nil {
			c.counter++
			if c.services.left == nil {
				c.services.left = map[uint64]chan error{}
			}
			c.services.left[c.counter] = answer
			c.cur.out.append(&wire.Frame{Type: wire.TypeLeave, Kind: wire.ToService, To: s.name, ID: c.counter})
			c.cur.kickLocked()
		} else {
			answer <- nil
		}
	}
	c.mu.Unlock()
	err := c.answered(ctx, answer)
	if errors.Is(err, ErrClosed) {
		err = nil // over in any case
	}
	handled := make(chan struct{})
	go func() {
		s.running.Wait()
		close(handled)
	}()
	select {
	case <-handled:
	case <-ctx.Done():
		err = fmt.Errorf("requests are being handled still: %w", context.Cause(ctx))
	}
	s.cancel()
	return err
}

func (c *Client) serveLocked(sess *session, s *Service) {
	c.counter++
	if c.services.asked == nil {
		c.services.asked = map[uint64]*Service{}
	}
	c.services.asked[c.counter] = s
	s.asking, s.member = true, false
	sess.out.append(&wire.Frame{Type: wire.TypeJoin, Kind: wire.ToService, To: s.name, ID: c.counter, Count: uint32(s.limit)})
	sess.kickLocked()
}

// serveAllLocked makes a new session an instance of everything that this Client serves.
func (c *Client) serveAllLocked(sess *session) {
	sv := &c.services
	for _, left := range sv.left {
		left <- nil // with the session
	}
	sv.left, sv.asked = nil, nil
	for _, s := range sv.by {
		c.serveLocked(sess, s)
	}
}

// settleLocked takes a result; false: it is none of a service.
func (sv *services) settleLocked(f *wire.Frame) bool {
	if left, ok := sv.left[f.ID]; ok {
		delete(sv.left, f.ID)
		left <- nil
		return true
	}
	s, ok := sv.asked[f.ID]
	if !ok {
		return false
	}
	delete(sv.asked, f.ID)
	s.asking = false
	switch f.Code {
	case wire.Joined:
		s.member = true
		s.tellLocked(nil)
	case wire.Unavailable: // the session is about to end; the next one will ask again
	default:
		sv.refusedLocked(s, &wire.Error{Code: f.Code, Text: cloneText(f.Text)})
	}
	return true
}

func (sv *services) refusedLocked(s *Service, why error) {
	if sv.by[s.name] == s {
		delete(sv.by, s.name)
	}
	s.ended = true // the node knows
	s.tellLocked(why)
	if s.err == nil {
		s.err = why
		close(s.done)
	}
}

func (s *Service) tellLocked(err error) {
	for _, w := range s.waiters {
		w <- err
	}
	s.waiters = nil
}

// noInstance takes a node's word that this Client serves something no more.
func (c *Client) noInstance(sess *session, name string, why *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.services.by[name]; c.cur == sess && s != nil && !s.asking {
		c.services.refusedLocked(s, why)
	}
}

// endServicesLocked ends the handlers' contexts with the Client.
func (c *Client) endServicesLocked() {
	for _, s := range c.services.by {
		s.cancel()
	}
	for _, left := range c.services.left {
		left <- nil
	}
	c.services.left = nil
}

// given has a request handled. It runs on the session's goroutine.
func (c *Client) given(sess *session, f *wire.Frame) {
	r := Request{
		Service: strings.Clone(f.To), From: sess.name(f.From), ID: wire.MessageID{Instance: f.Instance, Counter: f.ID}, Payload: slices.Clone(f.Payload),
	}
	timeout := time.Duration(f.TimeoutMS) * time.Millisecond
	if timeout == 0 {
		timeout = c.cfg.Timeout
	}
	c.mu.Lock()
	s := c.services.by[r.Service]
	var fault *Fault
	switch {
	case s == nil:
		fault = &Fault{FaultGone, "this instance does not serve " + r.Service + " any more"}
	case s.open >= s.limit:
		fault = &Fault{FaultBusy, "this instance has as many requests as it takes"}
	default:
		s.open++
		s.running.Add(1)
		c.handlers.Add(1)
	}
	c.mu.Unlock()
	if fault != nil {
		c.reply(r.From, r.ID, nil, fault)
		return
	}
	go func() {
		defer c.handlers.Done()
		defer s.running.Done()
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		payload, err := s.handle(ctx, r)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && s.ctx.Err() == nil {
			err = &Fault{FaultTimeout, "the handler did not end within the time-out"}
		}
		cancel()
		c.mu.Lock()
		s.open--
		c.mu.Unlock()
		c.reply(r.From, r.ID, payload, err)
	}()
}

// handle calls the handler; a panic in it is a fault of its own and no reason to end the program.
func (s *Service) handle(ctx context.Context, r Request) (payload []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.c.log.Error("a request's handler panicked", "service", s.name, "panic", p)
			err = &Fault{FaultInternal, "the handler failed"}
		}
	}()
	return s.handler(ctx, r)
}

// reply answers a request. What becomes of the answer is told to nobody: who asked has a time-out.
func (c *Client) reply(to string, id wire.MessageID, payload []byte, err error) {
	a := Address{kind: wire.ToClient, to: to, re: id.Counter, reInstance: id.Instance}
	if err != nil {
		var f *Fault
		if !errors.As(err, &f) {
			f = &Fault{FaultInternal, err.Error()}
		}
		a.fault, payload = max(f.Code, 1), []byte(f.Text)
	}
	if _, err := c.SendToAsync(a, payload, wire.AckOwner, 0, nil); err != nil {
		c.log.Warn("a request could not be answered", "from", to, "err", err)
		if a.fault == 0 { // too large, say: the requester should hear of it at once
			a.fault = FaultInternal
			_, _ = c.SendToAsync(a, []byte("the answer could not be sent: "+err.Error()), wire.AckOwner, 0, nil)
		}
	}
}

// Reply answers a message as a request: whoever sent it with Request hears it. It does not wait.
func (m Message) Reply(payload []byte) {
	if m.via != nil {
		m.via.reply(m.From, m.ID, payload, nil)
	}
}

// ReplyFault is Reply for what failed.
func (m Message) ReplyFault(f *Fault) {
	if m.via != nil {
		m.via.reply(m.From, m.ID, nil, f)
	}
}

// waitHandlers returns when no request is handled any more.
func (c *Client) waitHandlers(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		c.handlers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a request's handler has not returned: %w", context.Cause(ctx))
	}
}
