package lane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// attachment is one stream's life on a session.
type attachment struct {
	// Fixed after construction.
	s      *Session
	stream Stream
	try    tryStream // stream, if it is one
	opener bool
	done   chan struct{} // closed by stop
	ended  chan struct{} // closed when nothing of this attachment runs any more
	timer  *time.Timer   // of a put off ack; the reader arms it, the writer listens

	// Owned by the reading side, the goroutine of Attach.
	in                      recordReader
	nextMessage, nextStatus uint64 // sequence numbers of what comes next; 0 before resume
	batch                   batch
	full                    bool // not even a refusal has room, as of the last time the lock was held

	// Owned by the writer; by sayLocked while Session.idle is set.
	scratch []byte
	rest    bool // scratch holds what sayLocked could not write

	statusLimit int // guarded by s.mu: more statuses than this cut the stream; 0 before the hellos

	mu      sync.Mutex // a leaf; orders deadlines
	stopped bool
	cause   error
}

// batch counts what the reader did since it last took the lock.
type batch struct {
	bytes                            int
	received, refused, dup, statuses uint64
	nacked                           uint64
}

// Attach runs the session over stream until that ends, and says why it ended; the error is never nil. It closes the
// stream. The opener is the side that opened the stream: it speaks first.
//
// A second Attach ends the first (ErrSuperseded), waits until it has ended, and takes over; only the newest ever runs.
// Cancelling ctx ends the stream, with context.Cause as the error. ErrMalformed says that the peer broke the protocol.
func (s *Session) Attach(ctx context.Context, stream Stream, opener bool) error {
	a := &attachment{
		s: s, stream: stream, opener: opener,
		done: make(chan struct{}), ended: make(chan struct{}),
		timer: time.NewTimer(time.Hour),
	}
	a.timer.Stop()
	a.try, _ = stream.(tryStream)
	a.in.init(stream, s.cfg.MaxPayload)

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = stream.Close()
		return ErrClosed
	}
	prev := s.cur
	s.cur = a
	s.mu.Unlock()
	if prev != nil {
		prev.stop(ErrSuperseded)
		<-prev.ended
	}

	cancelled := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		a.stop(context.Cause(ctx))
	})
	err := a.run()
	a.stop(err) // for its cause: the first one stands
	if !release() {
		<-cancelled
	}
	_ = stream.Close() // it failed, or we are done with it: nothing is left to flush
	a.in.release()
	err = a.cause

	s.mu.Lock()
	if s.cur == a {
		s.cur = nil
	}
	s.stats.Attached = false
	if errors.Is(err, ErrStatusFull) {
		s.stats.StatusCuts++
	}
	s.mu.Unlock()
	if errors.Is(err, ErrMalformed) {
		s.cfg.Logger.Warn("peer broke the lane protocol", "err", err)
	} else {
		s.cfg.Logger.Debug("lane stream ended", "err", err)
	}
	close(a.ended)
	return err
}

// stop ends whatever the attachment waits for. The first cause is kept.
func (a *attachment) stop(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	a.stopped, a.cause = true, cause
	close(a.done)
	past := time.Unix(1, 0)
	_ = a.stream.SetReadDeadline(past) // not Close: a QUIC stream must not be closed under a Write
	_ = a.stream.SetWriteDeadline(past)
}

// deadline sets both deadlines, unless stop has.
func (a *attachment) deadline(t time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return a.cause
	}
	return errors.Join(a.stream.SetReadDeadline(t), a.stream.SetWriteDeadline(t))
}

func (a *attachment) run() error {
	theirs, err := a.hellos()
	if err != nil {
		return fmt.Errorf("lane: hello: %w", err)
	}
	resume, err := a.meet(theirs)
	if err != nil {
		return err
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := a.write(resume); err != nil {
			a.stop(fmt.Errorf("lane: write: %w", err))
		}
	})
	err = a.read()
	a.s.cfg.Handler.Handled(a.s)
	a.publish() // what was handled is handled, also if it was the last
	a.stop(err)
	writer.Wait()
	return err
}

// hellos exchanges hellos within HelloWait.
func (a *attachment) hellos() (hello, error) {
	var theirs hello
	if err := a.deadline(time.Now().Add(a.s.cfg.HelloWait)); err != nil {
		return theirs, err
	}
	say := func() error {
		_, err := a.stream.Write(a.s.hello().append(nil))
		return err
	}
	if a.opener {
		if err := say(); err != nil {
			return theirs, err
		}
	}
	kind, body, err := a.in.next()
	for err == nil && kind == 0 {
		if err = a.in.fill(); err == nil {
			kind, body, err = a.in.next()
		}
	}
	if err != nil {
		return theirs, err
	}
	if kind != kindHello {
		return theirs, fmt.Errorf("%w: the first record is of kind %d", ErrMalformed, kind)
	}
	if err := theirs.parse(body); err != nil {
		return theirs, err
	}
	if int(theirs.lane) != a.s.cfg.Lane {
		return theirs, fmt.Errorf("%w: the peer means lane %d, this is lane %d", ErrMalformed, theirs.lane, a.s.cfg.Lane)
	}
	if !a.opener {
		if err := say(); err != nil {
			return theirs, err
		}
	}
	return theirs, a.deadline(time.Time{})
}

// hello is what this side says first.
func (s *Session) hello() hello {
	h := hello{lane: uint16(s.cfg.Lane), process: s.cfg.Process, life: s.life, flags: helloContexts}
	if s.peer.resumed { // otherwise nothing was taken, and nobody said yet from which number on
		h.known, h.message, h.status = s.peer.life, s.peer.message, s.peer.status
	}
	return h
}

// meet compares the peer with the one known and puts both directions where they belong. It returns our resume record.
func (a *attachment) meet(h hello) ([]byte, error) {
	s := a.s
	known := h.known == s.life
	another := s.peer.life != 0 && (h.process != s.peer.process || h.life != s.peer.life)
	if another || s.peer.knewUs && !known {
		s.lose()
		s.peer = peerState{}
		s.mu.Lock()
		s.stats.PeerRestarts++
		s.mu.Unlock()
		s.cfg.Handler.PeerRestarted(s)
	}
	s.peer.process, s.peer.life = h.process, h.life

	s.mu.Lock()
	defer s.mu.Unlock()
	message, status := s.msgs.acked, s.statuses.acked
	if known && !another {
		s.peer.knewUs = true
		if h.message < message || h.message > s.msgs.sentEver || h.status < status || h.status > s.statuses.sentEver {
			return nil, fmt.Errorf("%w: the peer says it took messages up to %d and statuses up to %d", ErrMalformed, h.message, h.status)
		}
		message, status = h.message, h.status
	}
	s.short = h.flags&helloContexts != 0
	s.msgs.restart(message)
	s.statuses.restart(status)
	// A status that was taken is done with. A message is not: its refusal may still be on the way to us.
	s.statuses.ack(status)

	// The peer may be far behind with its statuses already. Some slack on top lets every stream make progress.
	limit := s.cfg.StatusBytes
	a.statusLimit = min(max(limit, s.statuses.bytes+limit/8), 2*limit)
	a.full = s.statusesFullLocked()
	s.taken = taken{message: s.peer.message, status: s.peer.status, due: true}
	s.idle = false
	select {
	case <-s.wake: // left by the former stream
	default:
	}
	s.stats.Attached = true
	s.stats.Streams++
	s.cfg.Logger.Debug("lane stream attached", "message", message, "status", status)
	return appendResume(nil, s.msgs.sent+1, s.statuses.sent+1), nil
}

// checkStatusesLocked cuts the stream of a peer that lets statuses pile up.
func (a *attachment) checkStatusesLocked() {
	if a.statusLimit > 0 && a.s.statuses.bytes > a.statusLimit {
		a.stop(ErrStatusFull)
	}
}

// endOfStream makes a plain EOF say what it means here.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("lane: the peer ended the stream: %w", err)
	}
	return fmt.Errorf("lane: read: %w", err)
}
