package gateway

import (
	"time"

	"imroute/mesh/wire"
)

// presenceBytes is how much may wait in a session's queue of answers for a state to be added: states are worth less than
// results and must never be why a session counts as a slow reader.
const presenceBytes = 64 << 10

// Presence tells the client the state of one that it watches. false: there is no room at the moment, or the session is
// closing; tell the latest state later. f is not kept.
func (s *Session) Presence(f *wire.Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.ctl.cost >= min(presenceBytes, s.g.cfg.QueueBytes/2) {
		return false
	}
	s.controlLocked(f)
	s.wakeLocked()
	return true
}

// NoInstance tells the client that it is no instance of a service any more, though it did not ask for that.
func (s *Session) NoInstance(service string, code wire.Code, text string) {
	s.control(&wire.Frame{Type: wire.TypeLeave, Kind: wire.ToService, To: service, Code: code, Text: clip(text)})
}

// Age is for how long the session has been open; 0 before that.
func (s *Session) Age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened.IsZero() {
		return 0
	}
	return s.g.cfg.Clock.Now().Sub(s.opened)
}
