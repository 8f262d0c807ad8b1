package mesh

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

// callSlack keeps this side from giving up before the caller does: normally it is the caller's leaving that ends a handler's
// context, and the deadline here stands behind it.
const callSlack = 100 * time.Millisecond

// serveCall reads one call, has it answered and writes the answer.
func (m *Mesh) serveCall(p *peer, st *quic.Stream) {
	st.SetPriority(callUrgency, true)
	var head [callHead]byte
	if _, err := io.ReadFull(st, head[:]); err != nil { // the deadline for a stream's first bytes still stands
		resetStream(st)
		return
	}
	call := parseCallHead(head)
	if call.timeout == 0 {
		call.timeout = m.cfg.CallTimeout
	}
	deadline := time.Now().Add(call.timeout + callSlack)
	_ = st.SetDeadline(deadline)

	answer, refusal := m.answer(p, st, call, deadline)
	code := wire.OK
	if refusal != nil {
		code, answer = refusal.Code, []byte(refusal.Text)
		st.CancelRead(1) // what is left of the request
	}
	b := make([]byte, 0, replyHead+len(answer))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	b = binary.BigEndian.AppendUint32(b, uint32(len(answer)))
	if _, err := st.Write(append(b, answer...)); err != nil {
		resetStream(st)
		return
	}
	_ = st.Close()
	st.CancelRead(0)
}

func (m *Mesh) answer(p *peer, st *quic.Stream, call callHeader, deadline time.Time) ([]byte, *wire.Error) {
	h := m.handlers[call.kind]
	if h == nil {
		return nil, unknownCall(call.kind)
	}
	if call.length > m.cfg.MaxMessage {
		return nil, wire.Errorf(wire.TooLarge, "request of %d bytes: at most %d", call.length, m.cfg.MaxMessage)
	}
	select {
	case p.calls <- struct{}{}:
		defer func() { <-p.calls }()
	default:
		return nil, wire.Errorf(wire.Overloaded, "%d calls of this node run already", cap(p.calls))
	}
	req := make([]byte, call.length)
	if _, err := io.ReadFull(st, req); err != nil {
		return nil, wire.Errorf(wire.BadRequest, "request broke off: %v", err)
	}
	// The stream's context ends when the caller gives the stream up and when the connection breaks.
	ctx, cancel := context.WithDeadline(st.Context(), deadline)
	defer cancel()
	answer, err := h(ctx, p.id, req)
	if err != nil {
		return nil, asWireError(err)
	}
	if len(answer) > m.cfg.MaxMessage {
		return nil, answerTooLarge(len(answer), m.cfg.MaxMessage)
	}
	return answer, nil
}
