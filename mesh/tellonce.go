package mesh

import (
	"sync"
	"time"
)

// tellOnce keeps from the log what it has just been told: a peer that is refused dials again every few milliseconds until it
// is let in, and one that has just joined is refused by whoever has not heard of it yet.
type tellOnce struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const (
	tellAgain = 10 * time.Second
	toldMax   = 256 // reasons remembered; beyond that all are forgotten
)

// first says whether that was not told in the last tellAgain.
func (o *tellOnce) first(text string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.last[text]; ok && now.Sub(at) < tellAgain {
		return false
	}
	if o.last == nil || len(o.last) >= toldMax {
		o.last = make(map[string]time.Time)
	}
	o.last[text] = now
	return true
}

// worthTelling decides about the log line of a refusal.
func (m *Mesh) worthTelling(reason error) bool {
	return m.told.first(reason.Error(), time.Now()) && m.refusals.Allow()
}
