package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// session is one connection from dial to end. One goroutine runs it: dial, login, read until it ends.
type session struct {
	// fixed
	c       *Client
	addr    address
	attempt uint64
	ctx     context.Context // ends by abort, with an ending as its cause
	cancel  context.CancelCauseFunc
	goAhead chan struct{} // closed by the loop: deliver now

	// written by the session's goroutine before it reports welcome, then fixed
	epoch      wire.Epoch
	node       string
	idle       time.Duration
	maxPayload int
	groups     []string // that the login named

	// owned by the session's goroutine
	names    map[string]string // senders' ids, so that a message need not allocate one
	slab     []byte            // payloads are cut from it
	slabSize int

	// owned by the loop
	state    phase
	deadline int64 // loggingIn: abort then; superseded: abort then
	up       bool  // it was welcomed
	since    int64 // when
	pinged   int64
	ahead    int64 // bytes that were before the ping and may not have arrived

	// atomics, in Client.now's nanoseconds
	heard  atomic.Int64
	wrote  atomic.Int64
	paused atomic.Bool // the reader waits for the application or for its goAhead, not for the network

	// guarded by c.mu
	t       transport
	out     outbox
	writing bool  // a writer exists
	unheard int64 // bytes written since something was heard
	heardAt int64 // when that was
	dead    bool  // nothing may be queued or written any more
	unsent  *chunk
	sentOff int // of unsent: what was handed over
	writers sync.WaitGroup
}

type phase uint8

const (
	loggingIn phase = iota
	arriving        // welcomed; its predecessor's last frames are still being read
	current
	superseded // another session was welcomed; read until it ends
)

// ending says why a session ended. As an error it is the cause of the session's context.
type ending struct {
	code  wire.Code
	text  string
	told  bool // by the node, not found out here
	final bool // found out here: trying again cannot help
	here  bool // found out here: the node is not to blame
	peer  Peer
	retry time.Duration
	addrs []string
}

func (e *ending) Error() string { return (&wire.Error{Code: e.code, Text: e.text}).Error() }

func lost(err error) *ending {
	e := &ending{code: wire.ConnectionLost, text: err.Error()}
	switch {
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		e.code = wire.ProtocolError
	case errors.Is(err, io.EOF):
		e.text = "the node closed the connection"
	}
	return e
}

func protocolError(format string, args ...any) *ending {
	return &ending{code: wire.ProtocolError, text: fmt.Sprintf(format, args...)}
}

// abort ends the session from outside; the first reason stays. It does not wait.
func (s *session) abort(e *ending) {
	s.cancel(e)
	s.c.mu.Lock()
	t := s.t
	s.c.mu.Unlock()
	if t != nil {
		t.close()
	}
}

func (s *session) run() {
	e := s.serve()
	if cause, ok := context.Cause(s.ctx).(*ending); ok {
		e = cause // what followed is only its consequence
	}
	s.cancel(e)
	s.c.retire(s)
	s.c.events <- event{s: s, kind: evEnded, end: e}
}

// serve returns why it ended, never nil.
func (s *session) serve() *ending {
	token := s.c.cfg.Token
	if s.c.cfg.TokenSource != nil {
		var err error
		if token, err = s.c.cfg.TokenSource(s.ctx); err != nil {
			e := &ending{code: wire.BadToken, text: "asking TokenSource: " + err.Error(), here: true}
			var we *wire.Error
			if errors.As(err, &we) {
				e.code = we.Code
				e.final = we.Code.Class() == wire.Final
			}
			return e
		}
	}
	t, err := dial(s.ctx, &s.c.cfg, s.addr, &s.heard, s.c.now)
	if err != nil {
		return dialEnding(s.addr, err)
	}
	s.c.mu.Lock()
	s.t = t
	s.c.mu.Unlock()
	if s.ctx.Err() != nil {
		t.close()
		return lost(s.ctx.Err())
	}
	login := wire.Frame{
		Type: wire.TypeLogin, Client: s.c.cfg.Client, Tenant: s.c.cfg.Tenant, Instance: s.c.instance, Attempt: s.attempt,
		Version: wire.ProtocolVersion, Token: token, Groups: s.takeGroups(),
	}
	if _, err := t.write(wire.AppendFrame(nil, &login)); err != nil {
		return unanswered(s.addr, err)
	}
	s.wrote.Store(s.c.now())
	f, e := s.login()
	if e != nil {
		return e
	}
	s.paused.Store(true)
	s.c.events <- event{s: s, kind: evWelcome, addrs: cloneAll(f.Addrs)}
	select {
	case <-s.goAhead:
	case <-s.ctx.Done():
		return lost(s.ctx.Err())
	}
	s.resumed()
	for {
		f, err := t.read()
		if err != nil {
			return lost(err)
		}
		if e := s.handle(f); e != nil {
			return e
		}
	}
}

// login reads until the session holds, and returns its welcome.
func (s *session) login() (*wire.Frame, *ending) {
	for first := true; ; first = false {
		f, err := s.t.read()
		if err != nil {
			if first {
				return nil, unanswered(s.addr, err)
			}
			return nil, lost(err)
		}
		switch f.Type {
		case wire.TypeWaiting:
			s.c.events <- event{s: s, kind: evWaiting, after: time.Duration(f.TimeoutMS) * time.Millisecond}
		case wire.TypeKick:
			return nil, kicked(f)
		case wire.TypePong:
		case wire.TypeWelcome:
			if f.Epoch == 0 {
				return nil, protocolError("welcome without an epoch")
			}
			s.epoch, s.node = f.Epoch, strings.Clone(f.Node)
			s.c.sender.Store(f.Instance)
			s.idle = max(time.Duration(f.IdleMS)*time.Millisecond, minIdle)
			if f.IdleMS == 0 {
				s.idle = defaultIdle
			}
			s.maxPayload = int(f.MaxPayload)
			if f.MaxPayload == 0 {
				s.maxPayload = wire.MaxPayload
			}
			return f, nil
		default:
			return nil, protocolError("%s in answer to login", f.Type)
		}
	}
}

// handle deals with one frame of a session that holds.
func (s *session) handle(f *wire.Frame) *ending {
	switch f.Type {
	case wire.TypeDeliver:
		return s.deliver(f)
	case wire.TypeResult:
		if f.ID == 0 || f.Code == wire.None {
			return protocolError("result without id or code")
		}
		s.c.settle(s, f)
	case wire.TypePresence:
		s.c.saw(s, f)
	case wire.TypeLeave:
		if f.Kind == wire.ToService {
			s.c.noInstance(s, f.To, &wire.Error{Code: f.Code, Text: strings.Clone(f.Text)})
			break
		}
		s.c.left(s, strings.Clone(f.To), &wire.Error{Code: f.Code, Text: strings.Clone(f.Text)})
	case wire.TypePong:
	case wire.TypeKick:
		return kicked(f)
	case wire.TypeGoaway:
		s.c.events <- event{s: s, kind: evGoaway, code: f.Code, addrs: cloneAll(f.Addrs)}
	default:
		if f.Type == 0 || f.Type <= wire.TypeBye {
			return protocolError("%s out of place", f.Type)
		}
		// a type of a later version that we did not ask for says nothing to us
	}
	return nil
}

func kicked(f *wire.Frame) *ending {
	if f.Code == wire.None {
		return protocolError("kick without a code")
	}
	return &ending{
		code: f.Code, text: strings.Clone(f.Text), told: true,
		retry: time.Duration(f.RetryMS) * time.Millisecond, addrs: cloneAll(f.Addrs),
	}
}

func cloneAll(in []string) []string {
	var out []string
	for _, s := range in {
		out = append(out, strings.Clone(s))
	}
	return out
}

func (s *session) deliver(f *wire.Frame) *ending {
	if f.From == "" || f.Instance == 0 || f.ID == 0 || f.Epoch == 0 {
		return protocolError("deliver without from, instance, id or epoch")
	}
	select {
	case <-s.c.closing:
		return nil // nobody will take it; results are still welcome
	default:
	}
	id := wire.MessageID{Instance: f.Instance, Counter: f.ID}
	if f.Re != 0 || f.Kind == wire.ToService { // these wait for nobody who is slow to take messages
		if v := s.c.in.admit(f.Epoch, id, f.Ack); v != taken {
			s.refused(v, f, id)
			return nil
		}
		if f.Ack == wire.AckClient {
			s.c.acknowledge(id)
		}
		if f.Re != 0 {
			s.c.replied(s, f)
		} else {
			s.c.given(s, f)
		}
		return nil
	}
	m := Message{via: s.c, From: s.name(f.From), ID: id, Epoch: f.Epoch, Payload: s.keep(f.Payload), Kind: f.Kind}
	if f.Kind == wire.ToGroup {
		m.Group = s.name(f.To)
	}
	if f.Ack == wire.AckClient {
		m.c = s.c
	}
	v, room := s.c.in.put(&m, f.Ack)
	if v != taken {
		s.refused(v, f, id)
	}
	if !room {
		s.paused.Store(true)
		s.c.in.wait(s.ctx.Done())
		s.resumed()
	}
	return nil
}

// refused deals with a message that is not to be taken in.
func (s *session) refused(v verdict, f *wire.Frame, id wire.MessageID) {
	switch {
	case v == stale:
		s.c.log.Debug("dropped a message of a past epoch", "id", id, "epoch", uint64(f.Epoch))
	case v == acked && f.Ack == wire.AckClient:
		s.c.writeAck(id)
	}
}

// resumed counts as a sign of life: silence while we did not read says nothing about the node.
func (s *session) resumed() {
	s.heard.Store(s.c.now())
	s.paused.Store(false)
}

// name returns from as a string of its own, the same one for the same sender while there are not too many.
func (s *session) name(from string) string {
	if n, ok := s.names[from]; ok {
		return n
	}
	if s.names == nil || len(s.names) >= 4096 {
		s.names = make(map[string]string)
	}
	from = strings.Clone(from)
	s.names[from] = from
	return from
}

// keep copies a payload. Small ones share an allocation that grows with the traffic.
func (s *session) keep(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	if len(p) > 2048 {
		return append([]byte(nil), p...)
	}
	if len(p) > cap(s.slab)-len(s.slab) {
		s.slabSize = min(max(2*s.slabSize, 256), 16<<10)
		s.slab = make([]byte, 0, max(s.slabSize, len(p)))
	}
	n := len(s.slab)
	s.slab = append(s.slab, p...)
	return s.slab[n:len(s.slab):len(s.slab)]
}

// kickLocked makes sure that a writer is at work.
func (s *session) kickLocked() {
	if s.writing || s.dead || len(s.out.chunks) == 0 {
		return
	}
	s.writing = true
	s.writers.Add(1)
	go s.write()
}

// write takes what has gathered until nothing is left.
func (s *session) write() {
	defer s.writers.Done()
	runtime.Gosched() // whoever is ready to send goes into the same write
	c := s.c
	c.mu.Lock()
	for !s.dead {
		ch := s.out.take()
		if ch == nil {
			break
		}
		c.mu.Unlock()
		n, err := s.t.write(ch.b)
		s.wrote.Store(c.now())
		c.mu.Lock()
		s.out.bytes -= len(ch.b)
		s.wroteLocked(n)
		c.freedLocked()
		if err != nil {
			s.dead, s.writing = true, false
			s.unsent, s.sentOff = ch, n
			c.mu.Unlock()
			s.abort(lost(err))
			return
		}
		freeChunk(ch)
	}
	s.writing = false
	c.mu.Unlock()
	select {
	case <-c.closing:
		c.poke() // Close waits for this
	default:
	}
}
