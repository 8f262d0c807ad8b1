package wire

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two so that one pool serves readers, writers and lanes alike. What is larger than the largest
// class is left to the garbage collector.
const (
	minBufferBits = 10
	maxBufferBits = 21
)

// A Buffer is memory on loan from GetBuffer. B has its full length; whoever holds it may slice B as they like.
type Buffer struct {
	B     []byte
	class int // -1: not from a pool
}

var bufferPools [maxBufferBits - minBufferBits + 1]sync.Pool

// GetBuffer lends a buffer of at least size bytes, with whatever its last holder left in it. It may be called from several
// goroutines.
func GetBuffer(size int) *Buffer {
	class := max(bits.Len(uint(max(size, 1)-1)), minBufferBits)
	if class > maxBufferBits {
		return &Buffer{B: make([]byte, size), class: -1}
	}
	if b, ok := bufferPools[class-minBufferBits].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 1<<class), class: class - minBufferBits}
}

// Release gives the buffer back; nobody may touch it, or anything decoded from it, afterwards. Nil is fine.
func (b *Buffer) Release() {
	if b == nil || b.class < 0 {
		return
	}
	b.B = b.B[:cap(b.B)]
	bufferPools[b.class].Put(b)
}
