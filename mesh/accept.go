package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"
)

// acceptLoop hands every finished handshake to a goroutine of its own.
func (m *Mesh) acceptLoop() {
	for {
		conn, err := m.listener.Accept(m.ctx)
		if err != nil {
			return // only closing ends a listener
		}
		select {
		case m.admits <- struct{}{}:
		default:
			_ = conn.CloseWithError(closeBusy, "too many new connections at once; try again in a second")
			continue
		}
		if !m.spawn(func() { m.admit(conn) }) {
			<-m.admits
			_ = conn.CloseWithError(closeBye, "shutting down")
		}
	}
}

// arrivedKey finds the time of a connection's first packet in its context. Later would be too late to tell whether two
// dials overlapped: between then and the hello a busy machine may do much else.
type arrivedKey struct{}

func arrival(conn *quic.Conn) time.Time {
	t, _ := conn.Context().Value(arrivedKey{}).(time.Time)
	return t
}

// admit finds out who dialled and gives the connection its place, or closes it with the reason. It holds a place in
// m.admits until then.
func (m *Mesh) admit(conn *quic.Conn) {
	defer func() { <-m.admits }()
	ctx, cancel := context.WithTimeoutCause(m.ctx, m.cfg.DialTimeout, errors.New("no hello in time"))
	defer cancel()
	proto := conn.ConnectionState().TLS.NegotiatedProtocol
	if proto == alpnJoin {
		m.serveJoin(conn)
		return
	}
	code, err := m.admitMember(ctx, conn)
	if err == nil {
		return
	}
	if code != closeCrossed && m.worthTelling(err) { // strangers must not be able to fill the log
		m.log.Warn("connection refused", "addr", conn.RemoteAddr().String(), "proto", proto, "reason", err)
	}
	_ = conn.CloseWithError(code, closeText(err))
}

func (m *Mesh) admitMember(ctx context.Context, conn *quic.Conn) (quic.ApplicationErrorCode, error) {
	state := conn.ConnectionState().TLS
	kind, ok := kindOfALPN(state.NegotiatedProtocol)
	if !ok {
		return closeProtocol, fmt.Errorf("protocol %q is not spoken here", state.NegotiatedProtocol)
	}
	id, err := m.identity.Load().verifyPeer(state.PeerCertificates)
	if err != nil {
		return closeIdentity, err
	}
	if id == m.self {
		return closeIdentity, fmt.Errorf("node %v dialled itself, or its certificate is used twice: %w", id, ErrIdentity)
	}
	if _, member := m.cfg.Members(id); !member {
		return closeNotMember, fmt.Errorf("node %v is not a member (removed, or node %v has not heard of it yet)", id, m.self)
	}
	st, theirs, err := takeHello(ctx, conn)
	if err != nil {
		return closeProtocol, err
	}
	if theirs.Node != id {
		return closeProtocol, fmt.Errorf("hello names node %v, the certificate node %v", theirs.Node, id)
	}
	if !theirs.Probe {
		p := m.member(id)
		if p == nil {
			return closeNotMember, fmt.Errorf("node %v is not a member any more", id)
		}
		l := &link{conn: conn, kind: kind, process: theirs.Process, lanes: theirs.Lanes, arrived: arrival(conn)}
		if err := p.slots[kind].offer(l); errors.Is(err, errCrossed) {
			return closeCrossed, err
		} else if errors.Is(err, ErrTwin) {
			return closeTwin, err
		} else if err != nil {
			return closeBye, err
		}
	}
	mine := &hello{Node: m.self, Process: m.cfg.Process, Lanes: m.cfg.Lanes, Probe: theirs.Probe}
	if err := writeHello(st, mine, false); err != nil {
		return closeProtocol, err
	}
	_ = st.Close()
	if theirs.Probe {
		select {
		case <-conn.Context().Done():
		case <-ctx.Done():
		}
		_ = conn.CloseWithError(closeBye, "")
	}
	return 0, nil
}

func takeHello(ctx context.Context, conn *quic.Conn) (*quic.Stream, *hello, error) {
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	var kind [1]byte
	if _, err := io.ReadFull(st, kind[:]); err != nil {
		return nil, nil, fmt.Errorf("no hello: %w", err)
	}
	if kind[0] != streamHello {
		return nil, nil, fmt.Errorf("first stream is of kind %d, want a hello", kind[0])
	}
	h, err := readHello(st)
	if err != nil {
		return nil, nil, err
	}
	return st, h, nil
}

// closeText shortens a reason so that it fits into the packet that closes a connection.
func closeText(err error) string {
	s := err.Error()
	if len(s) > 400 {
		s = s[:400]
	}
	return s
}
