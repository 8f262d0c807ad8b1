package client

import "slices"

const (
	// dedupeIDs is how many of a sender's latest messages are remembered.
	dedupeIDs = 1024
	// dedupeSenders is how many senders are remembered at least; at most twice as many.
	dedupeSenders = 1024
)

// dedupe remembers which messages were received, and which of them were acknowledged, for the latest dedupeIDs of the
// latest dedupeSenders senders. What lies further back counts as new: losing a message would be worse than repeating it.
type dedupe struct {
	young, old map[uint64]*seenIDs // by instance; old is dropped when young is full
	last       *seenIDs            // messages come in runs
	lastFrom   uint64
}

// seenIDs is what is known of one sender.
type seenIDs struct {
	top    uint64              // the highest counter
	passed uint64              // the highest one of a message without acknowledgement
	ids    []uint64            // of messages with one, rising; up to twice dedupeIDs before the lower half goes
	acked  map[uint64]struct{} // nil until a message asks for it
}

func (d *dedupe) sender(instance uint64) *seenIDs {
	if d.last != nil && d.lastFrom == instance {
		return d.last
	}
	s := d.young[instance]
	if s == nil {
		if s = d.old[instance]; s == nil {
			s = new(seenIDs)
		}
		if len(d.young) >= dedupeSenders {
			d.old, d.young = d.young, nil
		}
		if d.young == nil {
			d.young = make(map[uint64]*seenIDs)
		}
		d.young[instance] = s
	}
	d.last, d.lastFrom = s, instance
	return s
}

// pass reports whether a message that came without acknowledgement is new. One that comes behind a later one is either not, or
// out of order, so the highest counter decides and takes no room.
func (d *dedupe) pass(instance, counter uint64) bool {
	s := d.sender(instance)
	if counter <= s.top {
		return false
	}
	s.top, s.passed = counter, counter
	return true
}

// add reports whether a message that came with acknowledgement is new, and if not whether it was acknowledged. A node that does
// not know what became of one without asks for an acknowledgement when it sends it again, so what was passed counts here, too.
func (d *dedupe) add(instance, counter uint64) (fresh, acked bool) {
	s := d.sender(instance)
	if counter <= s.passed {
		_, found := slices.BinarySearch(s.ids, counter)
		_, acked = s.acked[counter]
		return false, found && acked
	}
	s.top = max(s.top, counter)
	i := len(s.ids)
	if i > 0 && counter <= s.ids[i-1] {
		var found bool
		if i, found = slices.BinarySearch(s.ids, counter); found {
			_, acked = s.acked[counter]
			return false, acked
		}
	}
	if len(s.ids) == 2*dedupeIDs {
		if i < dedupeIDs {
			return true, false // beyond the window
		}
		for _, id := range s.ids[:dedupeIDs] {
			delete(s.acked, id)
		}
		s.ids = s.ids[:copy(s.ids, s.ids[dedupeIDs:])]
		i -= dedupeIDs
	}
	s.ids = slices.Insert(s.ids, i, counter)
	return true, false
}

// markAcked notes that the application is done with a message.
func (d *dedupe) markAcked(instance, counter uint64) {
	s := d.sender(instance)
	if _, found := slices.BinarySearch(s.ids, counter); !found {
		return
	}
	if s.acked == nil {
		s.acked = make(map[uint64]struct{})
	}
	s.acked[counter] = struct{}{}
}
