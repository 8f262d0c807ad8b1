package lane

import (
	"encoding/binary"
	"fmt"
	"io"

	"imroute/mesh/wire"
)

// Sizes of the bodies of fixed size, and the most a status may take (room for fields of later versions).
const (
	helloBytes   = 4 + 1 + 2 + 5*8
	resumeBytes  = 16
	ackBytes     = 16
	maxStatus    = 1 << 10
	readBuffer   = 64 << 10
	growFactor   = 4 // the buffer grows to this many times what was received: a length is only a claim
	helloMagic   = "imrl"
	helloVersion = 1
)

// hello introduces a session and says what it took from the session it knows on the other side.
type hello struct {
	lane            uint16
	process, life   uint64
	known           uint64 // the other side's session that message and status are about; 0 = none
	message, status uint64
	flags           byte // what this side understands
}

// helloContexts: records that define and use contexts are understood.
const helloContexts = 1

func (h hello) append(dst []byte) []byte {
	dst = append(dst, 0, 0, 0, 0)
	putHead(dst[len(dst)-headBytes:], kindHello, helloBytes+1)
	dst = append(append(dst, helloMagic...), helloVersion)
	dst = binary.BigEndian.AppendUint16(dst, h.lane)
	for _, v := range [...]uint64{h.process, h.life, h.known, h.message, h.status} {
		dst = binary.BigEndian.AppendUint64(dst, v)
	}
	return append(dst, h.flags)
}

// parse reads a body whose length was checked. Later versions may add to it.
func (h *hello) parse(b []byte) error {
	if string(b[:4]) != helloMagic || b[4] != helloVersion {
		return fmt.Errorf("%w: this is no hello of version %d", ErrMalformed, helloVersion)
	}
	h.lane = binary.BigEndian.Uint16(b[5:])
	for i, v := range [...]*uint64{&h.process, &h.life, &h.known, &h.message, &h.status} {
		*v = binary.BigEndian.Uint64(b[7+8*i:])
	}
	if len(b) > helloBytes {
		h.flags = b[helloBytes]
	}
	if h.process == 0 || h.life == 0 {
		return fmt.Errorf("%w: a hello without process or session", ErrMalformed)
	}
	return nil
}

func appendResume(dst []byte, message, status uint64) []byte {
	return appendPair(dst, kindResume, message, status)
}

func appendAck(dst []byte, message, status uint64) []byte {
	return appendPair(dst, kindAck, message, status)
}

func appendPair(dst []byte, kind byte, a, b uint64) []byte {
	dst = append(dst, kind, 0, 0, 16)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, a), b)
}

func readPair(b []byte) (uint64, uint64) {
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

// recordReader cuts records out of a stream, in place.
type recordReader struct {
	r          io.Reader
	maxMessage int
	buf        *wire.Buffer
	start, end int
}

func (r *recordReader) init(src io.Reader, maxPayload int) {
	r.r, r.maxMessage = src, wire.MaxHeader+maxPayload
}

func (r *recordReader) release() {
	r.buf.Release()
	r.buf, r.start, r.end = nil, 0, 0
}

// next returns the next whole record, or kind 0 if more bytes are needed. The body is valid until fill.
func (r *recordReader) next() (kind byte, body []byte, err error) {
	have := r.end - r.start
	if have < headBytes {
		return 0, nil, nil
	}
	kind, n := readHead(r.buf.B[r.start:])
	if !r.sizeFits(kind, n) {
		return 0, nil, fmt.Errorf("%w: a record of kind %d with %d bytes", ErrMalformed, kind, n)
	}
	if have < headBytes+n {
		return 0, nil, nil
	}
	body = r.buf.B[r.start+headBytes : r.start+headBytes+n]
	r.start += headBytes + n
	return kind, body, nil
}

// sizeFits knows the kinds and what they may weigh.
func (r *recordReader) sizeFits(kind byte, n int) bool {
	switch kind {
	case kindMessage, kindDefine, kindShort:
		return n <= r.maxMessage && (kind == kindMessage || n > shortFixed)
	case kindStatus:
		return n <= maxStatus
	case kindAck:
		return n == ackBytes
	case kindResume:
		return n == resumeBytes
	case kindHello:
		return n >= helloBytes && n <= maxStatus
	}
	return false
}

// fill reads at least one more byte.
func (r *recordReader) fill() error {
	r.makeRoom()
	n, err := r.r.Read(r.buf.B[r.end:])
	r.end += n
	switch {
	case n > 0:
		return nil // an error that came along will come again
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

func (r *recordReader) makeRoom() {
	if r.buf == nil {
		r.buf = wire.GetBuffer(readBuffer)
	}
	have := r.end - r.start
	if have == 0 && len(r.buf.B) > readBuffer { // a large message has passed
		r.release()
		r.buf = wire.GetBuffer(readBuffer)
	}
	if r.start > 0 {
		r.end = copy(r.buf.B, r.buf.B[r.start:r.end])
		r.start = 0
	}
	if r.end < len(r.buf.B) {
		return
	}
	_, n := readHead(r.buf.B) // next found it allowed
	next := wire.GetBuffer(min(growFactor*len(r.buf.B), max(headBytes+n, len(r.buf.B)+1)))
	copy(next.B, r.buf.B[:r.end])
	r.buf.Release()
	r.buf = next
}
