package wire

import (
	"slices"
	"strings"
)

// Bounds of the names in a Missed: of one in all, and of what one node tells another, so that its status stays small.
const (
	MaxMissedIDs      = 16
	maxMissedIDsBytes = 800 // lanes take statuses of up to 1 KiB
)

// Missed is who, of those whom a message to many concerned, was not reached: refused it, ended without it, or did not
// acknowledge it in time. The zero value is nobody.
type Missed struct {
	Count uint32   // all of them; 2^32-1 also means more
	IDs   []string // client ids of some of them, at most MaxMissedIDs; devices with their user's id
}

// Add counts one more and keeps its id if there is room. It keeps a copy.
func (m *Missed) Add(id string) {
	m.count(1)
	m.name(id)
}

// Join counts those of another node or device. It copies the ids.
func (m *Missed) Join(o Missed) {
	m.count(o.Count)
	for _, id := range o.IDs {
		m.name(id)
	}
}

// AddNamed keeps the id of somebody who is counted already.
func (m *Missed) AddNamed(id string) { m.name(id) }

func (m *Missed) count(n uint32) {
	if m.Count+n < m.Count {
		n = 1<<32 - 1 - m.Count
	}
	m.Count += n
}

func (m *Missed) name(id string) {
	if len(m.IDs) < MaxMissedIDs && id != "" && !slices.Contains(m.IDs, id) {
		m.IDs = append(m.IDs, strings.Clone(id))
	}
}

// Fit returns m with no more ids than fit into a Status; it shares memory with m.
func (m Missed) Fit() Missed {
	size := 0
	for i, id := range m.IDs {
		if size += maxTextField + len(id); size > maxMissedIDsBytes || i == MaxMissedIDs {
			m.IDs = m.IDs[:i]
			break
		}
	}
	return m
}
