package lane

import (
	"encoding/binary"

	"imroute/mesh/wire"
)

// Kinds of records; they stand in the top byte of a record's head.
const (
	kindHello   = 1
	kindResume  = 2
	kindMessage = 3
	kindStatus  = 4
	kindAck     = 5
	kindDefine  = 6 // a message that defines a slot
	kindShort   = 7 // a message that uses one
)

const (
	headBytes = 4
	maxBody   = 1<<24 - 1
)

func putHead(b []byte, kind byte, body int) {
	binary.BigEndian.PutUint32(b, uint32(kind)<<24|uint32(body))
}

func readHead(b []byte) (kind byte, body int) {
	h := binary.BigEndian.Uint32(b)
	return byte(h >> 24), int(h & maxBody)
}

// chunk holds whole records, the first of which has sequence number first. Bytes below used never change, so the writer
// may read them while Send appends behind.
type chunk struct {
	next  *chunk
	buf   *wire.Buffer
	used  int
	first uint64
	count uint64
	busy  bool // the writer is writing from it: it must not be reused
}

func (c *chunk) last() uint64 { return c.first + c.count - 1 }

// sendLog is what one direction has to say and was not acknowledged: records in order, in chunks. Everything in it is
// guarded by Session.mu, except that the bytes of records may be read without (see chunk).
type sendLog struct {
	chunkBytes int

	head, tail *chunk
	free       *chunk // spare chunk structs
	bytes      int    // used bytes of all chunks
	last       uint64 // sequence number of the newest record
	acked      uint64 // the peer took everything up to here
	sentEver   uint64 // highest that was ever written to the present peer session

	// Where the present stream stands: everything up to sent was handed to the writer. at is nil if nothing ever was
	// or the chunk is gone; then the next chunk is head.
	at   *chunk
	off  int
	sent uint64
}

// room gives space for a record of at most size bytes behind everything else; commit makes what was written of it count.
func (l *sendLog) room(size int) []byte {
	c := l.tail
	if c == nil || len(c.buf.B)-c.used < size {
		if c = l.free; c != nil {
			l.free = c.next
		} else {
			c = new(chunk)
		}
		*c = chunk{buf: wire.GetBuffer(max(size, l.chunkBytes)), first: l.last + 1}
		if l.tail == nil {
			l.head = c
		} else {
			l.tail.next = c
		}
		l.tail = c
	}
	return c.buf.B[c.used : c.used : c.used+size]
}

func (l *sendLog) commit(n int) uint64 {
	l.tail.used += n
	l.tail.count++
	l.bytes += n
	l.last++
	return l.last
}

// pending says whether records wait for the writer.
func (l *sendLog) pending() bool { return l.sent < l.last }

// take gives the writer the next unsent bytes, all of one chunk. The caller marks the chunk busy if it reads them without
// the lock.
func (l *sendLog) take() (*chunk, []byte) {
	if l.at == nil {
		l.at, l.off = l.head, 0
	}
	for l.off == l.at.used {
		l.at, l.off = l.at.next, 0
	}
	c := l.at
	b := c.buf.B[l.off:c.used]
	l.off = c.used
	l.sent = c.last()
	l.sentEver = max(l.sentEver, l.sent)
	return c, b
}

// restart puts the writer behind seq, for a new stream.
func (l *sendLog) restart(seq uint64) {
	seq = max(seq, l.acked)
	l.sent, l.at, l.off = seq, nil, 0
	for c := l.head; c != nil; c = c.next {
		if c.last() < seq {
			continue
		}
		l.at, l.off = c, skipRecords(c, seq+1-min(c.first, seq+1))
		return
	}
}

func skipRecords(c *chunk, n uint64) (off int) {
	for range n {
		_, body := readHead(c.buf.B[off:])
		off += headBytes + body
	}
	return off
}

// find gives kind and body of a record that is still kept, or kind 0.
func (l *sendLog) find(seq uint64) (kind byte, body []byte) {
	for c := l.head; c != nil; c = c.next {
		if c.count == 0 || seq > c.last() {
			continue
		}
		if seq < c.first {
			return 0, nil
		}
		off := skipRecords(c, seq-c.first)
		kind, n := readHead(c.buf.B[off:])
		return kind, c.buf.B[off+headBytes : off+headBytes+n]
	}
	return 0, nil
}

// ack notes that the peer took everything up to seq, which is at most sent: a peer can only have what it was sent, and at
// the start of a stream sent is put to what the peer says it has.
func (l *sendLog) ack(seq uint64) {
	l.acked = max(l.acked, seq)
	l.trim()
}

// trim lets go of the chunks at the front that are acknowledged and not being written. A lane with nothing outstanding
// keeps no chunk.
func (l *sendLog) trim() {
	for c := l.head; c != nil && !c.busy && c.last() <= l.acked; c = l.head {
		if l.at == c {
			l.at, l.off = nil, 0
		}
		l.sent = max(l.sent, c.last())
		l.head = c.next
		if l.head == nil {
			l.tail = nil
		}
		l.bytes -= c.used
		l.recycle(c)
	}
}

func (l *sendLog) recycle(c *chunk) {
	c.buf.Release()
	*c = chunk{next: l.free}
	l.free = c
	if c.next != nil { // one spare is enough for a lane that is not behind
		c.next.next = nil
	}
}

// detach empties the log without forgetting its numbers and returns what was not acknowledged.
func (l *sendLog) detach() *chunk {
	c := l.head
	l.head, l.tail, l.at, l.off, l.bytes = nil, nil, nil, 0, 0
	l.acked, l.sent, l.sentEver = l.last, l.last, l.last
	return c
}

// each calls f for every record of a detached list that is newer than seq, and lets go of its memory.
func each(c *chunk, after uint64, f func(seq uint64, kind byte, body []byte)) {
	for c != nil {
		off := 0
		for i := range c.count {
			kind, body := readHead(c.buf.B[off:])
			if seq := c.first + i; seq > after {
				f(seq, kind, c.buf.B[off+headBytes:off+headBytes+body])
			}
			off += headBytes + body
		}
		c.buf.Release()
		c = c.next
	}
}
