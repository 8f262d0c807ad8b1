package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"imroute/node/datadir"
)

// A recovery (imctl raft recover) forks the history: the members that were given up may hold entries, and even commit some
// among themselves, that the recovered cluster knows nothing of. Raft cannot tell: it believes in terms and indexes, and a
// follower never takes back what its state machine has applied. So each node remembers from which recovery its Raft state
// descends, its lineage, and no Raft message passes between two of different lineages. Whoever has the lower generation
// learns from the first contact that it was given up, and stops.

// errGivenUp ends a node whose cluster was recovered without it.
var errGivenUp = errors.New("the cluster was recovered after a lost majority, and this node's data is from before that: if the file that was given to `imctl raft recover` names this node, run it here with the same file and the --generation that it named, and start the node again; otherwise empty its data folder and let it join again as a new member (--join HOST:PORT --token TOKEN)")

// lineageLayer opens every Raft stream with the lineage of either side.
type lineageLayer struct {
	raft.StreamLayer
	log      *slog.Logger
	empty    func() bool                   // this node has no Raft state yet: it takes on the lineage of whoever brings it some
	keep     func(datadir.Recovered) error // writes a lineage down
	givenUp  func()                        // this node's lineage is an old one
	mu       sync.Mutex
	own      datadir.Recovered // guarded by mu
	reported datadir.Recovered // guarded by mu: the last other one that was logged
}

func (l *lineageLayer) lineage() datadir.Recovered {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own
}

// Accept waits for a peer's stream; its lineage is compared when it is first read from, so that a slow peer holds up nobody.
func (l *lineageLayer) Accept() (net.Conn, error) {
	c, err := l.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return &lineageConn{Conn: c, l: l, accepted: true}, nil
}

// Dial opens a stream and says this node's lineage on it; the peer's is compared before its first answer is read.
func (l *lineageLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := l.StreamLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	conn := &lineageConn{Conn: c, l: l}
	if err := conn.introduce(timeout); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return conn, nil
}

// errLineage refuses a stream.
var errLineage = errors.New("raft: the peer descends from another recovery of the cluster")

// check compares a peer's lineage with this node's.
func (l *lineageLayer) check(peer net.Addr, theirs datadir.Recovered, accepted bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if theirs == l.own {
		return nil
	}
	// Only a leader speaks to a node that has no state, and only to one that has joined its cluster.
	if accepted && theirs.Generation > l.own.Generation && l.empty() {
		if err := l.keep(theirs); err != nil {
			return err
		}
		l.own = theirs
		return nil
	}
	if theirs != l.reported {
		l.reported = theirs
		text, hint := "a peer of another recovery is refused", "it was given up: empty its data folder and let it join again"
		switch {
		case theirs.Generation > l.own.Generation:
			text, hint = "the cluster was recovered without this node", "see the end of this node"
		case theirs.Generation == l.own.Generation:
			hint = "both were recovered, but with different files or from different states: recover both again with the same --peers and the same, higher --generation"
		}
		l.log.Error(text, "peer", peer, "generation", theirs.Generation, "own_generation", l.own.Generation, "hint", hint)
	}
	if theirs.Generation > l.own.Generation {
		l.givenUp()
	}
	return errLineage
}

// lineageConn is a stream at whose beginning either side says its lineage. Raft reads from a stream in one goroutine.
type lineageConn struct {
	net.Conn
	l        *lineageLayer
	accepted bool
	checked  bool
}

const lineageSize = 16 // generation u64 · mark u64, big-endian

// introduceTimeout bounds how long saying the lineage may wait for the stream.
const introduceTimeout = 5 * time.Second

func (c *lineageConn) introduce(timeout time.Duration) error {
	if timeout <= 0 {
		timeout = introduceTimeout
	}
	own := c.l.lineage()
	b := binary.BigEndian.AppendUint64(make([]byte, 0, lineageSize), uint64(own.Generation))
	b = binary.BigEndian.AppendUint64(b, own.Mark)
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// Read reads what follows the lineage, if it is this node's.
func (c *lineageConn) Read(b []byte) (int, error) {
	if c.checked {
		return c.Conn.Read(b)
	}
	var h [lineageSize]byte
	if _, err := io.ReadFull(c.Conn, h[:]); err != nil {
		return 0, err
	}
	g := binary.BigEndian.Uint64(h[:])
	if g > 1<<16-1 {
		return 0, fmt.Errorf("raft: a peer speaks of generation %d", g)
	}
	err := c.l.check(c.RemoteAddr(), datadir.Recovered{Generation: uint16(g), Mark: binary.BigEndian.Uint64(h[8:])}, c.accepted)
	if c.accepted {
		// The dialler learns it even if it is refused.
		if ierr := c.introduce(0); err == nil {
			err = ierr
		}
	}
	if err != nil {
		return 0, err
	}
	c.checked = true
	return c.Conn.Read(b)
}
