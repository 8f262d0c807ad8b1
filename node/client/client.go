package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// Client is one client id's connection to a cluster. All methods may be called from several goroutines.
//
// Lock order: in.mu and mu are never held together; neither is held while a callback runs.
type Client struct {
	// fixed after Dial
	cfg        Config
	log        *slog.Logger
	id         wire.ClientID
	instance   uint64
	sender     atomic.Uint64 // what recipients see in place of instance, as welcome told it; 0: not yet
	base       time.Time
	in         *inbox
	events     chan event    // from sessions to the loop, which takes them until the last session has ended
	wake       chan struct{} // capacity 1: something the loop waits for came closer
	up         chan struct{} // closed at the first welcome
	closing    chan struct{} // closed when the application wants to end
	abandon    chan struct{} // closed when it does not want to wait any more
	done       chan struct{} // closed when the loop has ended
	dispatched chan struct{} // closed when the dispatcher has ended; nil without OnMessage

	// owned by the loop
	loop loop

	// guarded by mu
	mu          sync.Mutex
	cur         *session // takes what is sent; nil while disconnected
	counter     uint64   // of the last message
	maxPayload  int
	pend        pendingList
	late        lateIDs
	groups      groups
	services    services
	watches     watches
	asking      bool // the loop knows that answers are waited for, see askLocked
	askingSince int64
	room        chan struct{} // closed when something is freed; nil: nobody waits
	state       State
	ended       error // nothing is taken any more
	closeOnce   sync.Once
	giveUpOnce  sync.Once

	handlers sync.WaitGroup // of requests
}

// Dial connects and logs in, trying the addresses until one takes it, a node refuses for good, or ctx ends. Only the
// login depends on ctx; the Client lives until Close, which must be called in any case.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := assigned(ctx, &cfg); err != nil {
		return nil, err
	}
	if cfg.random == nil {
		cfg.random = rand.Float64
	}
	book, err := newAddressBook(cfg.Addrs, cfg.random)
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger.With("client", cfg.Client), id: wire.ClientID{Tenant: cfg.Tenant, ID: cfg.Client},
		instance: wire.NewID(), base: time.Now(), in: newInbox(cfg.ReceiveBuffer), maxPayload: wire.MaxPayload,
		events: make(chan event), wake: make(chan struct{}, 1), up: make(chan struct{}),
		closing: make(chan struct{}), abandon: make(chan struct{}), done: make(chan struct{}),
	}
	c.pend.soonest = never
	for _, g := range cfg.Groups {
		c.groups.wantLocked(g) // nobody else has c yet
	}
	c.loop = loop{book: book, plan: book.all(), byeBy: never}
	go c.run()
	if cfg.OnMessage != nil {
		c.dispatched = make(chan struct{})
		go c.dispatch()
	}
	select {
	case <-c.up:
		return c, nil
	case <-c.done:
		err = c.Err()
	case <-ctx.Done():
		last := c.State()
		err = fmt.Errorf("login did not succeed in time: %w", context.Cause(ctx))
		if last.Kind == Waiting || last.Code != wire.None {
			err = fmt.Errorf("%w; last: %s", err, last)
		}
	}
	c.giveUp()
	c.wait()
	return nil, err
}

// Close says bye, writes what was queued before within ctx, ends every pending send with an error that holds ErrClosed,
// and returns when every goroutine has ended. Messages that were not yet handed to OnMessage are dropped; Receive still
// returns the ones that arrived. Called again, or at the same time, it waits as well.
//
// The error is ctx's if it ended before everything was written. Only an OnMessage that has not returned by then may
// outlive Close.
func (c *Client) Close(ctx context.Context) error {
	c.beginClose()
	select {
	case <-c.done:
	case <-ctx.Done():
		c.giveUp()
		<-c.done
		c.waitDispatcher(ctx)
		return context.Cause(ctx)
	}
	if err := c.waitDispatcher(ctx); err != nil {
		return err
	}
	return c.waitHandlers(ctx)
}

func (c *Client) beginClose() {
	c.setEnded(ErrClosed)
	c.closeOnce.Do(func() { close(c.closing) })
}

func (c *Client) giveUp() {
	c.beginClose()
	c.giveUpOnce.Do(func() { close(c.abandon) })
}

func (c *Client) wait() {
	<-c.done
	_ = c.waitDispatcher(context.Background())
}

func (c *Client) waitDispatcher(ctx context.Context) error {
	if c.dispatched == nil {
		return nil
	}
	select {
	case <-c.dispatched:
		return nil
	default:
	}
	select {
	case <-c.dispatched:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("OnMessage has not returned: %w", context.Cause(ctx))
	}
}

// Done is closed when the Client has ended: by Close, or because a node told it to stop. Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil until Done is closed; then ErrClosed after Close, and otherwise an error that holds the *wire.Error that
// ended the Client.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// State is the one last reported. Before the first it is the zero State.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// ID is the client id as configured.
func (c *Client) ID() wire.ClientID { return c.id }

// Instance is the first half of the ids of all this Client's messages, as their recipients see it. The node makes it of the
// Client's random number and its client id.
func (c *Client) Instance() uint64 {
	if v := c.sender.Load(); v != 0 {
		return v
	}
	return c.instance
}

// now is monotonic, in nanoseconds.
func (c *Client) now() int64 { return int64(time.Since(c.base)) }

// poke makes the loop look again.
func (c *Client) poke() { signal(c.wake) }

// setEnded refuses everything from now on; the first reason stays.
func (c *Client) setEnded(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = err
	}
	c.freedLocked()
}

// retire ends what a session does with what is sent and takes back what it did not write. Called once, by the session's
// goroutine, when it has stopped reading.
func (c *Client) retire(s *session) {
	c.mu.Lock()
	s.dead = true
	if c.cur == s {
		c.cur = nil
	}
	t := s.t
	c.mu.Unlock()
	if t != nil {
		t.close()
	}
	s.writers.Wait()
	c.mu.Lock()
	if c.cur == nil {
		c.recoverLocked(s.unsent, s.sentOff, s.out.drain())
	}
	lost := c.pend.lostWith(s)
	c.freedLocked()
	c.mu.Unlock()
	for _, p := range lost {
		c.finish(p, Result{Code: wire.Unknown, Text: "the connection ended before anybody told whether an instance had the request"})
	}
}

// activate makes s the session that takes what is sent, and hands it everything pending.
func (c *Client) activate(s *session) {
	c.mu.Lock()
	if old := c.cur; old != nil {
		old.dead = true // its writer, if any, finishes the chunk it has
		c.recoverLocked(nil, 0, old.out.drain())
	}
	c.cur = s
	c.maxPayload = s.maxPayload
	c.serveAllLocked(s)
	c.watchAllLocked(s)
	c.joinAllLocked(s) // before what is sent to groups that it is in
	tooLarge := c.resendLocked(s)
	c.mu.Unlock()
	for _, p := range tooLarge {
		c.finish(p, Result{Code: wire.TooLarge, Text: fmt.Sprintf("the cluster takes %d bytes at most", s.maxPayload)})
	}
}

// endError makes an ending what Err returns.
func endError(e *ending) error {
	return fmt.Errorf("session ended: %w", &wire.Error{Code: e.code, Text: e.text})
}

var errAbandoned = errors.New("the application did not wait")
