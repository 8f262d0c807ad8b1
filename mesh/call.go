package mesh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

const (
	callHead  = 1 + 4 + 4 // kind, timeout in ms, length
	replyHead = 2 + 4     // code, length
	// callUrgency lets calls pass the lanes' data on their connection (0 to 7, lower first, 3 by default).
	callUrgency = 1
)

// connFor says which connection carries a kind of call.
func connFor(kind wire.CallKind) connKind {
	switch kind {
	case wire.CallConfirm, wire.CallRenew, wire.CallRevoke, wire.CallProbe, wire.CallHash:
		return kindRaft
	}
	return kindData
}

// Call asks a member and waits for its answer, which the caller owns; req is only read, and free again when Call returns.
// For this node itself the handler is called directly.
//
// Errors: *wire.Error is the answer of the other node's handler, or TooLarge or Overloaded made on the way. ErrNotMember:
// not asked at all. ErrUnreachable: a *CallError, whose Sent says whether the request may have taken effect. The context's
// own error is wrapped; after it, too, the request may have taken effect. A context without deadline gets Config.CallTimeout.
func (m *Mesh) Call(ctx context.Context, to wire.NodeID, kind wire.CallKind, req []byte) ([]byte, error) {
	if len(req) > m.cfg.MaxMessage {
		return nil, wire.Errorf(wire.TooLarge, "request of %d bytes: at most %d", len(req), m.cfg.MaxMessage)
	}
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.cfg.CallTimeout)
		defer cancel()
	}
	if to == m.self {
		return m.callSelf(ctx, kind, req)
	}
	p := m.member(to)
	if p == nil {
		if m.Addr() == nil || m.ctx.Err() != nil {
			return nil, ErrClosed
		}
		return nil, fmt.Errorf("node %v: %w", to, ErrNotMember)
	}
	l, st, err := p.openStream(ctx, connFor(kind))
	if err != nil {
		return nil, m.callFailed(ctx, to, false, err)
	}
	l.active.Add(1)
	defer l.active.Add(-1)
	answer, err := m.ask(ctx, st, kind, req)
	if err == nil {
		return answer, nil
	}
	resetStream(st)
	if remote, ok := errors.AsType[*wire.Error](err); ok {
		return nil, remote
	}
	if cause := context.Cause(l.conn.Context()); cause != nil {
		err = closedBecause(cause)
	}
	return nil, m.callFailed(ctx, to, true, err)
}

// callFailed gives a failure on the way its type.
func (m *Mesh) callFailed(ctx context.Context, to wire.NodeID, sent bool, err error) error {
	switch {
	case m.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("call to node %v: %w", to, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded): // the stream's deadline was a moment earlier than the context's
		return fmt.Errorf("call to node %v: %w", to, context.DeadlineExceeded)
	}
	return &CallError{to, sent, err}
}

// openStream opens a stream on the peer's connection of that kind, which is made if there is none.
func (p *peer) openStream(ctx context.Context, kind connKind) (*link, *quic.Stream, error) {
	for {
		l, err := p.slots[kind].get(ctx)
		if err != nil {
			return nil, nil, err
		}
		st, err := l.conn.OpenStreamSync(ctx)
		if err == nil {
			return l, st, nil
		}
		if l.conn.Context().Err() == nil {
			return nil, nil, err
		}
		p.slots[kind].lost(l) // nothing was sent yet: take the next connection
	}
}

func (m *Mesh) ask(ctx context.Context, st *quic.Stream, kind wire.CallKind, req []byte) ([]byte, error) {
	st.SetPriority(callUrgency, true)
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { resetStream(st) })
	defer stop()
	left := max(time.Until(deadline).Milliseconds(), 1)
	b := make([]byte, 0, 1+callHead+len(req))
	b = append(b, streamCall)
	b = appendCallHead(b, kind, uint32(min(left, maxCallTimeout.Milliseconds())), len(req))
	if _, err := st.Write(append(b, req...)); err != nil {
		// A refusal may come before the request was read to its end.
		if _, reset := errors.AsType[*quic.StreamError](err); !reset {
			return nil, err
		}
	}
	_ = st.Close()
	code, answer, err := readReply(st, m.cfg.MaxMessage)
	if err != nil {
		return nil, err
	}
	if code != wire.OK {
		return nil, &wire.Error{Code: code, Text: string(answer)}
	}
	return answer, nil
}

func (m *Mesh) callSelf(ctx context.Context, kind wire.CallKind, req []byte) ([]byte, error) {
	h := m.handlers[kind]
	if h == nil {
		return nil, unknownCall(kind)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(m.ctx, func() { cancel(ErrClosed) })
	defer stop()
	answer, err := h(ctx, m.self, req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, m.callFailed(ctx, m.self, true, err)
		}
		return nil, asWireError(err)
	}
	if len(answer) > m.cfg.MaxMessage {
		return nil, answerTooLarge(len(answer), m.cfg.MaxMessage)
	}
	return bytes.Clone(answer), nil
}

func unknownCall(kind wire.CallKind) *wire.Error {
	return wire.Errorf(wire.Refused, "calls of kind %d are not answered here: is that node's version older?", kind)
}

func answerTooLarge(n, limit int) *wire.Error {
	return wire.Errorf(wire.TooLarge, "answer of %d bytes: at most %d", n, limit)
}

func asWireError(err error) *wire.Error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	return &wire.Error{Code: wire.Internal, Text: err.Error()}
}

func appendCallHead(b []byte, kind wire.CallKind, timeoutMS uint32, n int) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, timeoutMS)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

type callHeader struct {
	kind    wire.CallKind
	timeout time.Duration
	length  int
}

func parseCallHead(b [callHead]byte) callHeader {
	timeout := time.Duration(binary.BigEndian.Uint32(b[1:])) * time.Millisecond
	return callHeader{wire.CallKind(b[0]), min(timeout, maxCallTimeout), int(binary.BigEndian.Uint32(b[5:]))}
}

// readReply reads an answer, or an error's code and text, of at most limit bytes.
func readReply(r io.Reader, limit int) (wire.Code, []byte, error) {
	var head [replyHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	code := wire.Code(binary.BigEndian.Uint16(head[:]))
	n := int64(binary.BigEndian.Uint32(head[2:]))
	if n > int64(limit) {
		return 0, nil, answerTooLarge(int(n), limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, noEOF(err)
	}
	return code, b, nil
}

// noEOF: a stream that ends early is a broken one, not the end of something.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
