package gateway

import (
	"errors"
	"net"
	"time"
)

// A goroutine that waits for a client costs more memory than all else of an idle session. Where the system can, one on plain
// TCP that was quiet for Config.Doze therefore dozes: its read goroutine ends between two frames, the connection is left with
// the bell, and what arrives, or Close, starts another one. One that arrives after a long silence, a ping, is dealt with and the
// session dozes on at once; one that comes soon after the one before keeps the goroutine, until the wheel finds the session
// quiet again. Sending to a dozing session does not wake it: the writer needs no reader.

// rest says how a session's read goroutine waits.
type rest uint8

const (
	awake    rest = iota // it never dozes, or not before login is over
	reading              // in the connection
	settling             // not at all: it ends when there is nothing to read
	dozing               // it does not exist
)

// openBell is called before there are sessions.
func (g *Gateway) openBell() {
	if _, real := g.tcp.(*net.TCPListener); !real || g.cfg.TLS != nil || g.cfg.Doze < 0 {
		return
	}
	b, err := newBell()
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		g.log.Warn("idle sessions keep a goroutine each, which takes more memory", "err", err)
		return
	}
	g.bell = b
	g.loops.Go(func() {
		for {
			numbers, err := b.wait()
			for _, n := range numbers {
				g.mu.Lock()
				s := g.all[n] // nil if it ended meanwhile
				g.mu.Unlock()
				s.rouse()
			}
			if err != nil {
				select {
				case <-g.stop:
				default:
					g.log.Error("waiting for idle sessions failed: from now on they keep a goroutine each", "err", err)
					g.deaf.Store(true)
					for _, s := range g.snapshot() {
						s.rouse()
					}
				}
				return
			}
		}
	})
}

// mayDoze lets a session that has just logged in doze. For the read goroutine.
func (s *Session) mayDoze() {
	if c, ok := s.conn.(*tcpConn); ok && c.lazy != nil && s.g.bell != nil {
		c.lazy.Wait(false)
		s.mu.Lock()
		s.rest = settling
		s.mu.Unlock()
	}
}

// doze is called by the read goroutine between two frames, when there is nothing to read. If it returns true, the session
// belongs to the goroutine that comes next.
func (s *Session) doze() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false // Close has interrupted reading, which therefore ends
	}
	if s.g.deaf.Load() || s.g.bell.watch(s.conn.(*tcpConn).lazy, s.number, s.watched) != nil { // the system is short of memory: another try later
		s.readLocked()
		return false
	}
	s.rest, s.watched = dozing, true // what the bell says meanwhile waits for the lock
	return true
}

// rouse starts the read goroutine of a dozing session.
func (s *Session) rouse() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.rouseLocked()
	s.mu.Unlock()
}

func (s *Session) rouseLocked() {
	if s.rest != dozing {
		return
	}
	if s.rest = settling; s.g.coarseNow()+2*tick < s.dozeAt() && !s.closing {
		s.readLocked()
	}
	go s.run()
}

// readLocked makes the read goroutine wait in the connection, until the wheel finds that the session is quiet.
func (s *Session) readLocked() {
	s.rest = reading
	s.conn.(*tcpConn).lazy.Wait(true)
	s.g.wheel.armEarlier(&s.timer, s.dozeAt())
}

// dozeAt is when the session has been quiet for long enough; heard is up to one tick old.
func (s *Session) dozeAt() time.Duration {
	return time.Duration(s.heard.Load()) + s.g.cfg.Doze + tick
}

// quietLocked ends a read in progress if the session is quiet.
func (s *Session) quietLocked(now time.Duration) {
	if s.rest == reading && now >= s.dozeAt() {
		s.rest = settling
		_ = s.conn.(*tcpConn).raw.SetReadDeadline(longAgo)
	}
}

// settle is asked by the read goroutine when a read met its deadline. It reports whether that was quietLocked's doing, and
// then undoes it: the next read does not wait, unless for the rest of a frame.
func (s *Session) settle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest != settling || s.closing {
		return false
	}
	c := s.conn.(*tcpConn)
	_ = c.raw.SetReadDeadline(time.Time{})
	c.lazy.Wait(false)
	return true
}
