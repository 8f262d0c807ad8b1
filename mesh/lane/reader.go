package lane

import (
	"fmt"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

// ackBytesDue is how much may be received before an ack no longer waits for something to travel with.
const ackBytesDue = 64 << 10

// read handles what the peer sends until the stream ends. It waits for nothing but bytes.
func (a *attachment) read() error {
	for {
		kind, body, err := a.in.next()
		if err != nil {
			return err
		}
		if kind == 0 { // everything that came together is handled: one lock for all of it
			if a.batch.received > 0 {
				a.s.cfg.Handler.Handled(a.s)
			}
			a.publish()
			if err := a.in.fill(); err != nil {
				return endOfStream(err)
			}
			continue
		}
		a.batch.bytes += headBytes + len(body)
		if err := a.handle(kind, body); err != nil {
			return err
		}
	}
}

func (a *attachment) handle(kind byte, body []byte) error {
	if (a.nextMessage == 0) != (kind == kindResume) {
		return fmt.Errorf("%w: a record of kind %d out of place", ErrMalformed, kind)
	}
	switch kind {
	case kindMessage, kindDefine, kindShort:
		return a.message(kind, body)
	case kindStatus:
		return a.status(body)
	case kindAck:
		return a.ack(body)
	case kindResume:
		return a.resume(body)
	}
	return fmt.Errorf("%w: a second hello", ErrMalformed)
}

// resume says where the peer goes on; it must leave nothing out.
func (a *attachment) resume(body []byte) error {
	p := &a.s.peer
	message, status := readPair(body)
	if message == 0 || status == 0 {
		return fmt.Errorf("%w: resume from zero", ErrMalformed)
	}
	if !p.resumed {
		p.message, p.status = message-1, status-1
	}
	if message > p.message+1 || status > p.status+1 {
		return fmt.Errorf("%w: resume from message %d and status %d, but %d and %d were the last taken", ErrMalformed, message, status, p.message, p.status)
	}
	p.resumed = true
	a.nextMessage, a.nextStatus = message, status
	return nil
}

func (a *attachment) message(kind byte, body []byte) error {
	s := a.s
	seq := a.nextMessage
	a.nextMessage++
	if seq <= s.peer.message && !mutate.LaneTakesTwice {
		a.batch.dup++
		return nil
	}
	if err := s.peer.decodeReceived(kind, body, &s.fwd); err != nil {
		return fmt.Errorf("%w: message %d: %w", ErrMalformed, seq, err)
	}
	ref := s.fwd.Ref
	if a.full {
		return ErrStatusFull // before the Handler has it: there may be no room for a refusal
	}
	code, index := s.cfg.Handler.Message(s, seq, &s.fwd)
	s.peer.message = seq
	a.batch.received++
	if code == wire.None {
		return nil
	}
	a.batch.refused++
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queueStatusLocked(&wire.Status{Seq: seq, Ref: ref, Code: code, Index: index})
	s.nack = s.statuses.last
	a.full = s.statusesFullLocked()
	a.checkStatusesLocked()
	s.wakeLocked()
	return nil
}

func (a *attachment) status(body []byte) error {
	s := a.s
	seq := a.nextStatus
	a.nextStatus++
	if seq <= s.peer.status {
		a.batch.dup++
		return nil
	}
	var st wire.Status
	if err := wire.DecodeStatus(body, &st); err != nil {
		return fmt.Errorf("%w: status %d: %w", ErrMalformed, seq, err)
	}
	a.batch.statuses++
	if st.Seq == 0 {
		s.peer.status = seq
		s.cfg.Handler.Status(s, st, nil)
		return nil
	}
	found, err := s.kept(st.Seq)
	if err != nil {
		return fmt.Errorf("lane: kept message %d cannot be read: %w", st.Seq, err)
	}
	if !found {
		return fmt.Errorf("%w: status %d refuses message %d, which is not open", ErrMalformed, seq, st.Seq)
	}
	s.peer.status, s.peer.nacked = seq, st.Seq
	a.batch.nacked++
	s.cfg.Handler.Status(s, st, &s.fwd)
	return nil
}

// kept finds a message that the peer may refuse: sent, not acknowledged, newer than the last refused, and reads it into fwd.
// Its bytes stay until the peer acknowledges it, which only this goroutine hears of.
func (s *Session) kept(seq uint64) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq <= s.msgs.acked || seq <= s.peer.nacked || seq > s.msgs.sentEver {
		return false, nil
	}
	kind, body := s.msgs.find(seq)
	if kind == 0 {
		return false, nil
	}
	return true, s.defs.decodeKept(kind, body, &s.fwd)
}

func (a *attachment) ack(body []byte) error {
	s := a.s
	message, status := readPair(body)
	s.peer.knewUs = true // one that has not read our resume has nothing to acknowledge
	s.mu.Lock()
	if message > s.msgs.sent || status > s.statuses.sent {
		defer s.mu.Unlock()
		return fmt.Errorf("%w: ack of message %d and status %d, only %d and %d were sent", ErrMalformed,
			message, status, s.msgs.sent, s.statuses.sent)
	}
	// One number may be old: an ack for statuses goes out while the one for messages must wait for refusals.
	news := message > s.msgs.acked
	s.msgs.ack(message)
	s.statuses.ack(status)
	s.mu.Unlock()
	if news {
		s.cfg.Handler.Acked(s, message)
		s.settled.Store(message)
	}
	return nil
}

// publish lets the writer acknowledge what was handled.
func (a *attachment) publish() {
	s := a.s
	if a.batch.bytes == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.taken
	t.message, t.status = s.peer.message, s.peer.status
	t.bytes += a.batch.bytes
	s.stats.Received += a.batch.received
	s.stats.Refused += a.batch.refused
	s.stats.Duplicates += a.batch.dup
	s.stats.StatusesIn += a.batch.statuses
	s.stats.Nacked += a.batch.nacked
	a.batch = batch{}
	a.full = s.statusesFullLocked()
	if !t.wanted() || !s.idle {
		return
	}
	if t.due = t.due || t.bytes >= ackBytesDue; t.due {
		s.wakeLocked()
	} else {
		a.armLocked()
	}
}
