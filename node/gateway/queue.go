package gateway

import (
	"sync"
	"time"

	"imroute/mesh/wire"
)

// itemCost is what a queued frame is counted with besides its bytes, so that the bound holds for small frames too.
const itemCost = 48

// item is one encoded frame in a chunk, ending at chunk.buf[end].
type item struct {
	end     int           // of a shared frame that is not encoded yet: its size
	p       *pending      // who wants to know; nil for control frames and ack=none
	expires time.Duration // since the gateway's start; 0: never
	shared  *wire.Shared  // not encoded yet
}

// pending is an accepted message whose result somebody waits for. Guarded by Session.mu.
type pending struct {
	id      wire.MessageID
	to      Receipt
	ref     uint64
	more    []waiter // repeats of the same message
	peer    *peer    // where the dedupe memory keeps its result; may be nil
	expires time.Duration
	client  bool // the client's own ack is awaited
	taken   bool // the writer has taken it: its bytes may have left
	done    bool // answered
}

type waiter struct {
	to  Receipt
	ref uint64
}

// ReceiptBy is a Receipt of a message to many that wants to know who did not get it: Missed takes the place of Receipt for every
// code but Delivered.
type ReceiptBy interface {
	Receipt
	Missed(client wire.ClientID, ref uint64, code wire.Code)
}

// note is a receipt to be given once no lock is held.
type note struct {
	waiter
	code wire.Code
	by   *Session // whose end of the message it is; nil if it was delivered, or nobody can want to know
}

func tell(notes []note) {
	for _, n := range notes {
		if n.by != nil {
			if to, ok := n.to.(ReceiptBy); ok {
				to.Missed(n.by.Client(), n.ref, n.code)
				continue
			}
		}
		n.to.Receipt(n.ref, n.code)
	}
}

// Sizes of chunks in bytes: the first one of a queue, and the largest one that is shared by several frames, which is also
// what one write takes at most unless a single frame is larger.
const (
	smallChunk = 4 << 10
	largeChunk = 64 << 10
)

// chunk is a run of encoded frames that is written at once.
type chunk struct {
	loan    *wire.Buffer // buf is its memory, unless a frame turned out larger than foreseen
	buf     []byte
	items   []item
	expires time.Duration // the first of its items to expire; 0: none does
	lazy    int           // not 0: it holds shared frames only, of that many bytes, and buf is empty until they are encoded
}

func (c *chunk) cost() int { return len(c.buf) + c.lazy + itemCost*len(c.items) }

// queue is a list of chunks in the order of writing. cost counts what its owner has not released yet, so a chunk being
// written still counts. Guarded by Session.mu.
type queue struct {
	chunks []*chunk
	cost   int
}

func (q *queue) empty() bool { return len(q.chunks) == 0 }

// room returns the last chunk with at least n free bytes in its buffer, adding one if need be. Chunks grow with the queue,
// so that a session with little to say holds little.
func (q *queue) room(n int) *chunk {
	size := smallChunk
	if k := len(q.chunks); k > 0 {
		last := q.chunks[k-1]
		if last.lazy == 0 && cap(last.buf)-len(last.buf) >= n {
			return last
		}
		size = max(size, min(4*cap(last.buf), largeChunk))
	}
	c := spare.Get().(*chunk)
	c.loan = wire.GetBuffer(max(n, size))
	c.buf = c.loan.B[:0]
	q.chunks = append(q.chunks, c)
	return c
}

// added accounts for the frame that was just encoded at the end of c's buffer.
func (q *queue) added(c *chunk, before int, p *pending, expires time.Duration) {
	c.items = append(c.items, item{end: len(c.buf), p: p, expires: expires})
	if expires != 0 && (c.expires == 0 || expires < c.expires) {
		c.expires = expires
	}
	q.cost += len(c.buf) - before + itemCost
}

// addShared queues a frame of that size that others share. It counts in full, for it is kept alive by each of them.
func (q *queue) addShared(sh *wire.Shared, size int, p *pending, expires time.Duration) {
	var c *chunk
	if k := len(q.chunks); k > 0 && q.chunks[k-1].lazy > 0 && q.chunks[k-1].lazy+size <= largeChunk {
		c = q.chunks[k-1]
	} else {
		c = new(chunk)
		q.chunks = append(q.chunks, c)
	}
	c.items = append(c.items, item{end: size, p: p, expires: expires, shared: sh})
	if expires != 0 && (c.expires == 0 || expires < c.expires) {
		c.expires = expires
	}
	c.lazy += size
	q.cost += size + itemCost
}

// take removes and returns the first chunk, or nil. It counts until release.
func (q *queue) take() *chunk {
	if len(q.chunks) == 0 {
		return nil
	}
	c := q.chunks[0]
	q.chunks[0] = nil
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil // an idle session keeps no array either
	}
	return c
}

// spare holds chunks with the array of their items.
var spare = sync.Pool{New: func() any { return new(chunk) }}

// release gives a chunk's memory back; the chunk must not be used any more.
func (c *chunk) release() {
	c.loan.Release()
	clear(c.items)
	*c = chunk{items: c.items[:0]}
	spare.Put(c)
}

// removeExpired takes the items that expired by now out of c, closing the gaps, and calls gone for each that somebody waits
// for. It returns how many it took out.
func (c *chunk) removeExpired(now time.Duration, gone func(*pending)) int {
	if c.expires == 0 || now < c.expires {
		return 0
	}
	kept, start, w := c.items[:0], 0, 0
	removed := 0
	c.expires = 0
	for _, it := range c.items {
		if it.expires != 0 && it.expires <= now {
			removed++
			if it.p != nil {
				gone(it.p)
			}
			start = it.end
			if it.shared != nil {
				c.lazy -= it.end
			}
			continue
		}
		if it.shared != nil {
			kept = append(kept, it)
			if it.expires != 0 && (c.expires == 0 || it.expires < c.expires) {
				c.expires = it.expires
			}
			continue
		}
		w += copy(c.buf[w:], c.buf[start:it.end])
		start = it.end
		it.end = w
		kept = append(kept, it)
		if it.expires != 0 && (c.expires == 0 || it.expires < c.expires) {
			c.expires = it.expires
		}
	}
	clear(c.items[len(kept):])
	c.items, c.buf = kept, c.buf[:w]
	return removed
}
