package client

import (
	"encoding/binary"
	"sync"

	"imroute/mesh/wire"
)

// chunkBytes is how much one write carries at most, unless a single frame is longer.
const chunkBytes = 64 << 10

// chunk holds whole frames as they go over TCP.
type chunk struct{ b []byte }

var chunks = sync.Pool{New: func() any { return &chunk{make([]byte, 0, chunkBytes)} }}

func freeChunk(ch *chunk) {
	if cap(ch.b) <= 2*chunkBytes { // one that grew for a long payload is not worth keeping
		ch.b = ch.b[:0]
		chunks.Put(ch)
	}
}

// outbox is what a session still has to write, as chunks of at most chunkBytes. Guarded by Client.mu.
type outbox struct {
	chunks []*chunk
	bytes  int // including the chunk being written
}

func (o *outbox) append(f *wire.Frame) {
	last := o.room(wire.FrameSize(f))
	before := len(last.b)
	last.b = wire.AppendFrame(last.b, f)
	o.bytes += len(last.b) - before
}

// appendSend is append of what by far the most frames are.
func (o *outbox) appendSend(to string, id uint64, ack wire.AckMode, timeoutMS uint32, payload []byte) {
	last := o.room(wire.SendSize(to, len(payload)))
	before := len(last.b)
	last.b = wire.AppendSend(last.b, to, id, ack, timeoutMS, payload)
	o.bytes += len(last.b) - before
}

// room returns a chunk for a frame of that size.
func (o *outbox) room(size int) *chunk {
	if n := len(o.chunks); n > 0 && len(o.chunks[n-1].b)+size <= chunkBytes {
		return o.chunks[n-1]
	}
	ch := chunks.Get().(*chunk)
	o.chunks = append(o.chunks, ch)
	return ch
}

// take hands the oldest chunk to the writer, which says written when it is done with it. nil: nothing to write.
func (o *outbox) take() *chunk {
	if len(o.chunks) == 0 {
		return nil
	}
	ch := o.chunks[0]
	n := copy(o.chunks, o.chunks[1:])
	o.chunks[n] = nil
	o.chunks = o.chunks[:n]
	return ch
}

// drain takes everything that no writer took.
func (o *outbox) drain() []*chunk {
	all := o.chunks
	o.chunks = nil
	for _, ch := range all {
		o.bytes -= len(ch.b)
	}
	return all
}

// eachFrame calls do with the body of every frame of b that ends behind offset n, which are those that a write of n
// bytes did not hand over completely.
func eachFrame(b []byte, n int, do func(body []byte) error) error {
	for end := 0; end < len(b); {
		body := b[end+wire.LengthBytes:]
		body = body[:binary.BigEndian.Uint32(b[end:])]
		end += wire.LengthBytes + len(body)
		if end > n {
			if err := do(body); err != nil {
				return err
			}
		}
	}
	return nil
}
