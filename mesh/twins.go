package mesh

import (
	"errors"
	"fmt"

	"imroute/mesh/wire"
)

// ErrTwin: two processes run as the same node at the same time, and the peer keeps to the other one.
var ErrTwin = errors.New("another process runs as this node")

// twins notices that two living processes call themselves the same node, as the original and a copy of its data folder do.
// The number of a process is random, so one that was replaced and comes back did not restart: it and its replacement push
// each other out. Once is not enough, because a hello that a dead process sent may be looked at late; so a few times are
// waited for. The one that was seen first stays, which most peers agree on.
type twins struct {
	first, second uint64 // the last two processes that were not the same; the one seen first and the other
	last          uint64 // whoever has the place
	returns       int    // how often one of the two came back
}

// twinReturns takes about a second: processes that push each other out dial again at once.
const twinReturns = 3

// took notes that a connection of that process has the place now.
func (t *twins) took(process uint64) {
	switch process {
	case t.last:
		return
	case t.first, t.second:
		t.returns++
	default:
		t.first, t.second, t.returns = t.last, process, 0
	}
	t.last = process
}

// refuses says whether that process is the one to turn away.
func (t *twins) refuses(process uint64) bool { return t.returns >= twinReturns && process == t.second }

func twinError(id wire.NodeID) error {
	return fmt.Errorf("two processes run as node %v at the same time: %w", id, ErrTwin)
}

// refusedAsTwin tells Config.Twin if a peer refused a connection of this process, or ended one, because of another process.
func (m *Mesh) refusedAsTwin(err error) {
	if err = closedBecause(err); errors.Is(err, ErrTwin) && m.cfg.Twin != nil {
		m.cfg.Twin(err)
	}
}
