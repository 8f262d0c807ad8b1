package mesh

import "sync"

// Traffic counts bytes of QUIC packets, those sent again included; UDP's and IP's own are not. It only rises while a peer is
// a member.
type Traffic struct{ Sent, Received uint64 }

// traffic adds up what the connections with one peer have carried, one after the other and side by side.
type traffic struct {
	mu      sync.Mutex
	past    Traffic // of those that have ended
	packets uint64  // received, of those that have ended
	live    map[*link]struct{}
}

func (t *traffic) begin(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		t.live = make(map[*link]struct{})
	}
	t.live[l] = struct{}{}
}

func (t *traffic) end(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, l)
	t.past.add(l)
	t.packets += l.conn.ConnectionStats().PacketsReceived
}

// processed counts the packets received by all connections so far.
func (t *traffic) processed() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.packets
	for l := range t.live {
		sum += l.conn.ConnectionStats().PacketsReceived
	}
	return sum
}

// packetsProcessed counts the packets that the connections with members have processed. It falls when a peer is dropped.
func (m *Mesh) packetsProcessed() (sum uint64) {
	for _, p := range *m.peers.Load() {
		sum += p.traffic.processed()
	}
	return sum
}

func (t *traffic) now() Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.past
	for l := range t.live {
		sum.add(l)
	}
	return sum
}

func (t *Traffic) add(l *link) {
	s := l.conn.ConnectionStats()
	t.Sent += s.BytesSent
	t.Received += s.BytesReceived
}
