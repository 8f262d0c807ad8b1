package node

import (
	"net"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// raw is a client without an SDK, for what the SDK would never do.
type raw struct {
	t    testing.TB
	conn net.Conn
	in   *wire.FrameReader
}

func rawLogin(t testing.TB, at *Node, id string, instance, attempt uint64) *raw {
	t.Helper()
	conn, err := net.DialTimeout("tcp", at.Addrs().ClientTCP, patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	r := &raw{t, conn, wire.NewFrameReader(conn, wire.MaxPayload)}
	t.Cleanup(func() {
		_ = conn.Close()
		r.in.Close()
	})
	r.write(&wire.Frame{Type: wire.TypeLogin, Client: id, Instance: instance, Attempt: attempt, Version: wire.ProtocolVersion})
	return r
}

func (r *raw) write(f *wire.Frame) {
	r.t.Helper()
	if _, err := r.conn.Write(wire.AppendFrame(nil, f)); err != nil {
		r.t.Fatalf("writing %v: %v", f.Type, err)
	}
}

// want reads up to a frame of that type.
func (r *raw) want(typ wire.Type) *wire.Frame {
	r.t.Helper()
	for {
		var f wire.Frame
		if err := r.in.Next(&f); err != nil {
			r.t.Fatalf("waiting for %v: %v", typ, err)
		}
		if f.Type == typ {
			return f.Clone()
		}
	}
}
