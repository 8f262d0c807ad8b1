package mesh

import "sync"

// Traffic counts bytes of QUIC packets, those sent again included; UDP's and IP's own are not. It only rises while a peer is
// a member.
type Traffic struct{ Sent, Received uint64 }

// traffic adds up what the connections with one peer have carried, one after the other and side by side.
type traffic struct {
	mu   sync.Mutex
	past Traffic // of those that have ended
	live map[*link]struct{}
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
