package mesh

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// link is one accepted connection. Everything but active is fixed once it was installed.
type link struct {
	conn      *quic.Conn
	kind      connKind
	process   uint64 // the peer's
	lanes     int    // of the peer
	dialled   bool   // by us
	arrived   time.Time
	installed time.Time
	laneCtx   context.Context // ends with the connection, or when it is retired
	endLanes  context.CancelFunc
	active    atomic.Int64 // calls under way, of both sides
}

const streamHeadWait = 5 * time.Second // for the first bytes of a stream

// serve takes the peer's streams until the connection ends.
func (l *link) serve(s *slot) {
	m := s.p.m
	defer s.lost(l)
	s.p.traffic.begin(l)
	defer s.p.traffic.end(l)
	if l.kind == kindData && l.dialled && m.cfg.Lane.Handler != nil {
		for k := range max(m.cfg.Lanes, l.lanes) {
			if !m.spawn(func() { l.keepLane(s.p, k) }) {
				return
			}
		}
	}
	for {
		st, err := l.conn.AcceptStream(l.conn.Context())
		if err != nil {
			return
		}
		if !m.spawn(func() { l.serveStream(s.p, st) }) {
			return
		}
	}
}

const (
	retireMin = 500 * time.Millisecond // the peer may just have opened a stream
	retireMax = 5 * time.Second
)

// retire ends a connection that lost against another one made at the same moment: its lanes move at once, the calls under
// way on it are let finish.
func (l *link) retire(p *peer) {
	l.endLanes()
	deadline := time.Now().Add(retireMax)
	wait := time.NewTimer(retireMin)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-l.conn.Context().Done():
			return
		case <-p.ctx.Done():
		}
		if p.ctx.Err() != nil || l.active.Load() == 0 || time.Now().After(deadline) {
			_ = l.conn.CloseWithError(closeReplaced, "replaced by another connection")
			return
		}
		wait.Reset(retireMin / 10)
	}
}

// serveStream looks at a stream's first byte. What makes no sense costs the stream, not the connection: a newer peer may
// know kinds that we do not.
func (l *link) serveStream(p *peer, st *quic.Stream) {
	var kind [1]byte
	_ = st.SetReadDeadline(time.Now().Add(streamHeadWait))
	if _, err := io.ReadFull(st, kind[:]); err != nil {
		resetStream(st)
		return
	}
	switch {
	case kind[0] == streamCall:
		l.active.Add(1)
		defer l.active.Add(-1)
		p.m.serveCall(p, st)
	case kind[0] == streamRaft && l.kind == kindRaft:
		_ = st.SetReadDeadline(time.Time{})
		p.m.raft.deliver(newStreamConn(st, p.m.self, p.id))
	case kind[0] == streamLane && l.kind == kindData && !l.dialled:
		l.serveLane(p, st)
	default:
		p.m.log.Warn("stream of unknown kind refused", "peer", p.id, "conn", l.kind.String(), "kind", kind[0])
		resetStream(st)
	}
}

func (l *link) serveLane(p *peer, st *quic.Stream) {
	var k [1]byte
	if _, err := io.ReadFull(st, k[:]); err != nil || int(k[0]) >= MaxLanes {
		resetStream(st)
		return
	}
	s := p.lane(int(k[0]))
	if s == nil {
		resetStream(st)
		return
	}
	_ = st.SetReadDeadline(time.Time{})
	if err := s.Attach(l.laneCtx, &bothWays{Stream: st}, false); err != nil && l.laneCtx.Err() == nil && p.ctx.Err() == nil {
		p.m.log.Warn("lane's stream ended", "peer", p.id, "lane", k[0], "err", err)
	}
}

// keepLane opens a lane's stream, again when it ends before the connection does.
func (l *link) keepLane(p *peer, k int) {
	ctx := l.laneCtx
	s := p.lane(k)
	if s == nil {
		return
	}
	pause := retryMin
	for {
		begun := time.Now()
		err := l.runLane(ctx, s.Attach, k)
		if ctx.Err() != nil || p.ctx.Err() != nil {
			return
		}
		p.m.log.Warn("lane's stream ended, opening another", "peer", p.id, "lane", k, "err", err)
		if time.Since(begun) > p.m.cfg.RetryMax {
			pause = retryMin
		}
		select {
		case <-time.After(jitter(pause, rand.Float64)):
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
		pause = min(2*pause, p.m.cfg.RetryMax)
	}
}

func (l *link) runLane(ctx context.Context, attach attachFunc, k int) error {
	st, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := st.Write([]byte{streamLane, byte(k)}); err != nil {
		resetStream(st)
		return err
	}
	return attach(ctx, &bothWays{Stream: st}, true)
}

// resetStream gives a stream up in both directions.
func resetStream(st *quic.Stream) {
	st.CancelRead(1)
	st.CancelWrite(1)
}

// bothWays is a stream whose Close ends both directions, whatever another goroutine does with it.
type bothWays struct {
	*quic.Stream
	write sync.Mutex // held while writing
	once  sync.Once
}

// Write writes all of b unless the stream ends.
func (b *bothWays) Write(p []byte) (int, error) {
	b.write.Lock()
	defer b.write.Unlock()
	return b.Stream.Write(p)
}

// Close sends what was written unless a Write is stuck at the moment, which it cuts off. The reading side is cut off.
func (b *bothWays) Close() error {
	b.once.Do(func() {
		b.CancelRead(0)
		if !b.write.TryLock() {
			b.CancelWrite(0)
			return
		}
		defer b.write.Unlock()
		_ = b.Stream.Close()
	})
	return nil
}
