package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"imroute/node/datadir"
)

// tcpLayer stands for the mesh.
type tcpLayer struct{ net.Listener }

func (l tcpLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(to), timeout)
}

type lineageEnd struct {
	*lineageLayer
	kept  datadir.Recovered
	given atomic.Bool
}

func newLineageEnd(t *testing.T, own datadir.Recovered, empty bool) *lineageEnd {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	e := &lineageEnd{}
	e.lineageLayer = &lineageLayer{
		StreamLayer: tcpLayer{ln}, log: slog.New(slog.DiscardHandler), own: own, empty: func() bool { return empty },
		keep: func(r datadir.Recovered) error { e.kept = r; return nil }, givenUp: func() { e.given.Store(true) },
	}
	return e
}

// talk dials from one end to the other and says a word each way.
func talk(t *testing.T, from, to *lineageEnd) (there, back error) {
	t.Helper()
	conn, err := from.Dial(raft.ServerAddress(to.Addr().String()), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := to.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, got} {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write([]byte("ask")); err != nil {
		t.Fatal(err)
	}
	var b [3]byte
	if _, there = io.ReadFull(got, b[:]); there == nil {
		if string(b[:]) != "ask" {
			t.Errorf("got %q", b)
		}
		if _, err := got.Write([]byte("yes")); err != nil {
			t.Fatal(err)
		}
	}
	_, back = io.ReadFull(conn, b[:])
	_ = got.Close()
	if back == nil && string(b[:]) != "yes" {
		t.Errorf("got %q back", b)
	}
	return there, back
}

func TestLineage(t *testing.T) {
	none, first, other, second := datadir.Recovered{}, datadir.Recovered{Generation: 1, Mark: 7}, datadir.Recovered{Generation: 1, Mark: 8}, datadir.Recovered{Generation: 2, Mark: 7}
	for _, c := range []struct {
		name             string
		from, to         datadir.Recovered
		empty            bool // the one that is dialled
		ok               bool
		fromOver, toOver bool
		becameTo         datadir.Recovered
	}{
		{name: "never recovered", ok: true},
		{name: "of one recovery", from: first, to: first, ok: true, becameTo: first},
		{name: "an old one dials", from: none, to: first, fromOver: true, becameTo: first},
		{name: "an old one is dialled", from: second, to: first, toOver: true, becameTo: first},
		{name: "two recoveries at once", from: first, to: other, becameTo: other},
		{name: "a joiner", from: first, to: none, empty: true, ok: true, becameTo: first},
		{name: "an old one dials a joiner that was told", from: none, to: first, empty: true, fromOver: true, becameTo: first},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := newLineageEnd(t, c.from, false), newLineageEnd(t, c.to, c.empty)
			there, back := talk(t, from, to)
			if (there == nil) != c.ok || (back == nil) != c.ok || !c.ok && (!errors.Is(there, errLineage) || !errors.Is(back, errLineage)) {
				t.Errorf("there %v, back %v, want success: %t", there, back, c.ok)
			}
			if from.given.Load() != c.fromOver || to.given.Load() != c.toOver {
				t.Errorf("given up: %t and %t, want %t and %t", from.given.Load(), to.given.Load(), c.fromOver, c.toOver)
			}
			if to.lineage() != c.becameTo || c.to != c.becameTo && to.kept != c.becameTo {
				t.Errorf("the dialled one is of %+v, wrote down %+v, want %+v", to.lineage(), to.kept, c.becameTo)
			}
		})
	}
}
