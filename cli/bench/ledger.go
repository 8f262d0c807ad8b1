package bench

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"
)

// MinSize is the smallest payload: the stamp that each message begins with.
const MinSize = 20

// stamp is the beginning of every payload: when it was due, how much later it was sent, by whom, and which one it is of
// those from this sender to this recipient (from 0 on).
type stamp struct {
	due    time.Duration
	late   time.Duration // whole microseconds
	sender uint32
	seq    uint32
}

func (s stamp) put(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(s.due))
	binary.LittleEndian.PutUint32(b[8:], uint32(min(max(s.late, 0)/time.Microsecond, math.MaxUint32)))
	binary.LittleEndian.PutUint32(b[12:], s.sender)
	binary.LittleEndian.PutUint32(b[16:], s.seq)
}

func readStamp(b []byte) stamp {
	return stamp{
		due: time.Duration(binary.LittleEndian.Uint64(b)), late: time.Duration(binary.LittleEndian.Uint32(b[8:])) * time.Microsecond,
		sender: binary.LittleEndian.Uint32(b[12:]), seq: binary.LittleEndian.Uint32(b[16:]),
	}
}

// maxMissing bounds what a ledger remembers of gaps. A run with more of them has failed anyway; what then comes late is
// counted as duplicated.
const maxMissing = 1 << 16

// ledger is one recipient's book of what arrived. take belongs to one goroutine, the counters may be read by others.
type ledger struct {
	first   int                 // the first of the senders that may write to this recipient
	next    []uint32            // the number expected of each of them
	missing map[uint64]struct{} // sender and number of what was overtaken

	unique, duplicated, disordered, damaged atomic.Int64
}

// take enters one message and reports whether it is the first of its number.
func (l *ledger) take(size int, b []byte) (stamp, bool) {
	if len(b) != size || len(b) < MinSize {
		l.damaged.Add(1)
		return stamp{}, false
	}
	s := readStamp(b)
	i := int(s.sender) - l.first
	if i < 0 || i >= len(l.next) {
		l.damaged.Add(1)
		return stamp{}, false
	}
	next := &l.next[i]
	key := func(seq uint32) uint64 { return uint64(s.sender)<<32 | uint64(seq) }
	switch {
	case s.seq == *next:
		*next++
	case s.seq > *next:
		for seq := *next; seq < s.seq && len(l.missing) < maxMissing; seq++ {
			if l.missing == nil {
				l.missing = map[uint64]struct{}{}
			}
			l.missing[key(seq)] = struct{}{}
		}
		*next = s.seq + 1
	default:
		if _, ok := l.missing[key(s.seq)]; !ok {
			l.duplicated.Add(1)
			return s, false
		}
		delete(l.missing, key(s.seq))
		l.disordered.Add(1)
	}
	l.unique.Add(1)
	return s, true
}
