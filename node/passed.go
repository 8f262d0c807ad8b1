package node

import (
	"math"
	"sync"

	"imroute/mesh/lane"
	"imroute/mesh/wire"
)

// passed remembers whom later messages went past: the messages without acknowledgement of one sender to one recipient that
// still lay in the lane to an incarnation when that ended. Nobody waits for those, since their node may be down for long.
// Should they come back, because that node has started again or refuses them, they must not follow the later ones.
type passed struct {
	mu    sync.Mutex
	by    map[passedKey]passing
	limit int // of by, before what is settled is thrown out
}

// passedKey is a sender, a recipient, and the incarnation that has ended.
type passedKey struct {
	flowKey
	node wire.NodeID
	inc  wire.Incarnation
}

// passing says what went past what. It matters until the lane has given back or settled the last of them; lanes are bounded,
// so there are never more of these than messages in lanes, once the settled ones are thrown out.
type passing struct {
	lane    *lane.Session
	seq     uint64 // the last message in the lane that may be concerned
	counter uint64 // the sender's: messages below it were passed
}

// everyLater: whatever the sender sends from now on may go past.
const everyLater = math.MaxUint64

func (p *passed) note(k passedKey, w passing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by, p.limit = map[passedKey]passing{}, minTracks
	}
	old := p.by[k]
	p.by[k] = passing{w.lane, max(w.seq, old.seq), max(w.counter, old.counter)}
	if len(p.by) > p.limit {
		for k, w := range p.by {
			if w.lane.Settled() >= w.seq {
				delete(p.by, k)
			}
		}
		p.limit = max(minTracks, 2*len(p.by))
	}
}

// overtook tells whether something that was sent later than m went past it; the lane gave m back, which was its message seq.
func (p *passed) overtook(m *wire.Forward, l *lane.Session, seq uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.by[passedKey{flowKey{m.Instance, m.Tenant, m.To}, l.Peer(), m.Incarnation}]
	return ok && w.lane == l && seq <= w.seq && m.Counter < w.counter
}

// givenBack is where a message without acknowledgement comes back from.
type givenBack struct {
	lane *lane.Session // nil: it does not
	seq  uint64
}
