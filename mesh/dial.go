package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

type attachFunc func(ctx context.Context, stream lane.Stream, opener bool) error

// dial makes one connection to a member and waits until it is accepted.
func (m *Mesh) dial(ctx context.Context, kind connKind, id wire.NodeID, addr string) (*link, error) {
	h := &hello{Node: m.self, Process: m.cfg.Process, Lanes: m.cfg.Lanes}
	conn, theirs, err := dialHello(ctx, m.transport, m.udp.LocalAddr(), quicConfig(&m.cfg), m.identity.Load(), kind, id, addr, h)
	if err != nil {
		if e, ok := errors.AsType[*elsewhereError](err); ok && m.cfg.Elsewhere != nil {
			m.cfg.Elsewhere(e.node, addr)
		}
		return nil, err
	}
	return &link{conn: conn, kind: kind, process: theirs.Process, lanes: theirs.Lanes, dialled: true, arrived: time.Now()}, nil
}

// dialHello connects, checks who answers and exchanges hellos. want zero takes any member of this cluster.
func dialHello(ctx context.Context, t *quic.Transport, local net.Addr, conf *quic.Config, id *Identity, kind connKind,
	want wire.NodeID, addr string, mine *hello,
) (*quic.Conn, *hello, error) {
	udp, _ := local.(*net.UDPAddr)
	to, err := resolve(ctx, addr, udp)
	if err != nil {
		return nil, nil, err
	}
	tlsConf, v := clientTLS(id, kind.alpn(), want)
	conn, err := t.Dial(ctx, to, tlsConf, conf)
	if err != nil {
		if v.err != nil { // written before Dial's error was made, by the same handshake
			err = v.err
		}
		if v.elsewhere {
			err = &elsewhereError{v.node, err}
		}
		return nil, nil, fmt.Errorf("dial %s: %w", addr, closedBecause(err))
	}
	theirs, err := askHello(ctx, conn, mine)
	if err == nil && theirs.Node != v.node {
		err = fmt.Errorf("its hello names node %v, its certificate node %v: %w", theirs.Node, v.node, ErrIdentity)
	}
	if err != nil {
		_ = conn.CloseWithError(closeHelloUnread, "hello was not answered")
		return nil, nil, fmt.Errorf("dial %s: %w", addr, closedBecause(err))
	}
	return conn, theirs, nil
}

// elsewhereError names the member that answered where another one was expected.
type elsewhereError struct {
	node wire.NodeID
	error
}

func (e *elsewhereError) Unwrap() error { return e.error }

func askHello(ctx context.Context, conn *quic.Conn, mine *hello) (*hello, error) {
	st, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	theirs, err := func() (*hello, error) {
		if err := writeHello(st, mine, true); err != nil {
			return nil, err
		}
		return readHello(st)
	}()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		resetStream(st)
		return nil, err
	}
	_ = st.Close()
	return theirs, nil
}

// Probe dials an address with our own certificate and tells which member of our cluster answers and accepts us. It uses a
// socket of its own, and the connections of a mesh that runs at the same time are not touched. The context must bound it.
func Probe(ctx context.Context, addr string, id *Identity) (wire.NodeID, error) {
	return ProbeOver(ctx, nil, addr, id)
}

// ProbeOver is Probe with a socket of that listener; nil: a UDP socket of the system.
func ProbeOver(ctx context.Context, listen PacketListener, addr string, id *Identity) (wire.NodeID, error) {
	var cfg Config
	cfg.setDefaults()
	t, err := dialSocket(listen, "")
	if err != nil {
		return 0, err
	}
	defer t.close()
	h := &hello{Node: id.Node, Process: cfg.Process, Probe: true}
	conn, theirs, err := dialHello(ctx, t.Transport, nil, quicConfig(&cfg), id, kindData, 0, addr, h)
	if err != nil {
		return 0, fmt.Errorf("probe: %w", err)
	}
	_ = conn.CloseWithError(closeBye, "")
	return theirs.Node, nil
}
