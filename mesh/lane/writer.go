package lane

import "time"

// scratchBytes is up to where pieces are copied together into one write; larger ones are written from their chunk.
const scratchBytes = 16 << 10

// wanted says whether the peer does not know yet what was taken.
func (t *taken) wanted() bool { return t.message > t.ackedMessage || t.status > t.ackedStatus }

// armLocked starts the clock of a put off ack. A timer that fires after the ack found something to travel with does
// nothing, which is cheaper than stopping it each time.
func (a *attachment) armLocked() {
	if t := &a.s.taken; !t.armed {
		t.armed = true
		a.timer.Reset(a.s.cfg.AckDelay)
	}
}

// write is the one writer of a stream: statuses first, then the ack they allow, then messages.
func (a *attachment) write(resume []byte) error {
	if _, err := a.stream.Write(resume); err != nil {
		return err
	}
	a.scratch = make([]byte, 0, scratchBytes)
	defer a.endDirect()
	for {
		first, mid, last, ok := a.gather()
		if !ok {
			return nil
		}
		for _, b := range [...][]byte{first.b, mid, last.b} {
			if len(b) == 0 {
				continue
			}
			if _, err := a.stream.Write(b); err != nil {
				a.letGo(first.c, last.c)
				return err
			}
		}
		a.letGo(first.c, last.c)
		a.scratch = a.scratch[:0]
	}
}

// piece is unsent bytes of a chunk that is marked busy.
type piece struct {
	c *chunk
	b []byte
}

// gather waits until there is something to write and says what, in order: statuses that are too many to copy, what was
// copied (statuses, ack, messages), messages too many to copy. It returns false when the attachment was stopped.
func (a *attachment) gather() (first piece, mid []byte, last piece, ok bool) {
	s := a.s
	for {
		s.mu.Lock()
		if a.rest { // what was left by sayLocked goes first, as it is
			a.rest = false
			s.mu.Unlock()
			return first, a.scratch, last, true
		}
		if s.statuses.pending() {
			first = a.takeLocked(&s.statuses)
		}
		if len(a.scratch) > 0 || first.c != nil || s.msgs.pending() || s.taken.due {
			a.ackLocked()
		}
		if s.msgs.pending() {
			last = a.takeLocked(&s.msgs)
		}
		if len(a.scratch) > 0 || first.c != nil || last.c != nil {
			s.mu.Unlock()
			return first, a.scratch, last, true
		}
		s.idle, s.direct = true, direct{a, time.Now()}
		if s.taken.wanted() {
			a.armLocked()
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-a.timer.C:
			a.timerFired()
		case <-a.done:
			return first, nil, last, false
		}
	}
}

// takeLocked takes the next bytes of a log: copied if there is room, by reference if not.
func (a *attachment) takeLocked(l *sendLog) piece {
	c, b := l.take()
	if len(a.scratch)+len(b) <= cap(a.scratch) {
		a.scratch = append(a.scratch, b...)
		return piece{}
	}
	c.busy = true
	return piece{c, b}
}

func (a *attachment) letGo(chunks ...*chunk) {
	s := a.s
	if chunks[0] == nil && chunks[1] == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chunks {
		if c != nil {
			c.busy = false
		}
	}
	s.statuses.trim()
	s.msgs.trim()
}

func (a *attachment) timerFired() {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken.armed = false
	s.taken.due = s.taken.wanted()
	if !s.idle { // somebody woke us at the same time: take the token, or the next one would not fit
		<-s.wake
	}
	s.idle = false
}

// ackLocked adds an ack to what is written, if there is news and every refusal it covers stands before it on the stream.
// When newer refusals keep coming, the ack that was possible when the wait began is held until its own are out.
func (a *attachment) ackLocked() {
	s := a.s
	t := &s.taken
	if !t.wanted() {
		t.due = false
		return
	}
	message := t.ackedMessage
	switch sent := s.statuses.sent; {
	case sent >= s.nack:
		message, t.held = t.message, false
	case !t.held:
		t.held, t.heldMessage, t.heldNack = true, t.message, s.nack
	case sent >= t.heldNack:
		message, t.held = t.heldMessage, false
	}
	if message == t.ackedMessage && t.status == t.ackedStatus {
		return // statuses are pending, so the writer comes round again at once
	}
	if cap(a.scratch)-len(a.scratch) < headBytes+ackBytes {
		return // likewise: something is being written
	}
	a.scratch = appendAck(a.scratch, message, t.status)
	t.ackedMessage, t.ackedStatus, t.bytes, t.due = message, t.status, 0, false
}
