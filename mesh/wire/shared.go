package wire

import (
	"encoding/binary"
	"strconv"
	"sync"
)

// Shared is a deliver frame that goes to many sessions. Sessions differ in nothing but the epoch, so everything before and
// behind it is encoded once, and they share that memory until the frame is written. It never changes and may be used by
// several goroutines; the garbage collector frees it when the last queue has let go of it.
type Shared struct {
	head, tail []byte // of the CBOR form; the tail ends with the payload
	frame      Frame  // without the epoch; its strings and payload are Shared's own

	once               sync.Once
	jsonHead, jsonTail []byte
}

// NewShared makes a deliver frame of f, which must be one that validates; it copies f, whose epoch does not count.
func NewShared(f *Frame) *Shared {
	s := &Shared{frame: Frame{Type: TypeDeliver, From: f.From, To: f.To, ID: f.ID, Instance: f.Instance, Ack: f.Ack, Kind: f.Kind}}
	g := &s.frame
	names := make([]byte, 0, len(f.From)+len(f.To))
	text := string(append(append(names, f.From...), f.To...))
	g.From, g.To = text[:len(f.From)], text[len(f.From):]
	s.head = append(appendFrameHead(make([]byte, 0, headerSize(g)), g, true), 10, majorUint|27)
	s.tail = appendFrameTail(make([]byte, 0, maxUintField+len(f.Payload)), g)
	from := len(s.tail)
	s.tail = append(s.tail, f.Payload...)
	g.Payload = s.tail[from:len(s.tail):len(s.tail)]
	return s
}

// Frame returns the frame without an epoch. It must not be changed.
func (s *Shared) Frame() *Frame { return &s.frame }

// Size is how many bytes Append appends.
func (s *Shared) Size() int { return LengthBytes + len(s.head) + 8 + len(s.tail) }

// Append appends the frame as it goes over TCP, length first, for a session of that epoch. The epoch is written with all its
// eight bytes, which readers take as they take the shortest form.
func (s *Shared) Append(dst []byte, epoch Epoch) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Size()-LengthBytes))
	dst = binary.BigEndian.AppendUint64(append(dst, s.head...), uint64(epoch))
	return append(dst, s.tail...)
}

// SizeJSON is how many bytes AppendJSON appends.
func (s *Shared) SizeJSON(epoch Epoch) int {
	s.once.Do(s.encodeJSON)
	digits := 1
	for v := epoch; v >= 10; v /= 10 {
		digits++
	}
	return len(s.jsonHead) + digits + len(s.jsonTail)
}

// AppendJSON appends the frame as it goes over WebSocket. An epoch of zero is not left out.
func (s *Shared) AppendJSON(dst []byte, epoch Epoch) []byte {
	s.once.Do(s.encodeJSON)
	dst = strconv.AppendUint(append(dst, s.jsonHead...), uint64(epoch), 10)
	return append(dst, s.jsonTail...)
}

func (s *Shared) encodeJSON() {
	w, err := appendJSONHead(make([]byte, 0, 256), &s.frame)
	if err != nil { // a kind or ack mode without a name, which no frame that validates has
		return
	}
	w.key("epoch")
	s.jsonHead = append(w.b, '"')
	tail := jsonWriter{append(make([]byte, 0, 16+len(s.frame.Payload)+len(s.frame.Payload)/2), '"')}
	appendJSONTail(&tail, &s.frame)
	s.jsonTail = tail.b
}
