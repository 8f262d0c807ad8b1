package wire

import (
	"encoding/binary"
	"unsafe"
)

// The short ways of the two frames that carry messages, as they usually are: keys rising, the common fields and no others, an id
// in ASCII. Each runs once for each message; all other frames go the long way.

// DecodeSend reads a send frame with nothing but to, id, ack and timeout_ms, and reports whether it was one; f is then valid and
// Validate would find nothing wrong. Of f it sets only Type, To, ID, Ack, TimeoutMS and Payload, and leaves the other fields
// alone: they must be zero. false means nothing: use DecodeFrame, f's fields are undefined.
func DecodeSend(body []byte, f *Frame) bool {
	c, pairs, ok := shortHead(body, 3, 5, TypeSend, 2)
	if !ok || !c.plain(&f.To) || !c.number(4, &f.ID) {
		return false
	}
	f.Type, f.Ack, f.TimeoutMS = TypeSend, 0, 0
	if pairs > 0 && c.ack(&f.Ack) {
		pairs--
	}
	if pairs > 0 && c.off < len(c.b) && c.b[c.off] == 8 {
		c.off++
		v, err := c.uint(1<<32 - 1)
		if err != nil {
			return false
		}
		f.TimeoutMS = uint32(v)
		pairs--
	}
	f.Payload = c.rest(body)
	return pairs == 0
}

// DecodeDeliver is DecodeSend for a deliver frame with nothing but from, id, instance, ack and epoch: it sets Type, From, ID,
// Instance, Ack, Epoch and Payload.
func DecodeDeliver(body []byte, f *Frame) bool {
	c, pairs, ok := shortHead(body, 5, 6, TypeDeliver, 3)
	if !ok || !c.plain(&f.From) || !c.number(4, &f.ID) || !c.number(5, &f.Instance) {
		return false
	}
	f.Type, f.Ack = TypeDeliver, 0
	if pairs > 2 && !c.ack(&f.Ack) || !c.number(10, (*uint64)(&f.Epoch)) {
		return false
	}
	f.Payload = c.rest(body)
	return true
}

// AppendSend is AppendFrame of a send frame with these fields, to a client.
func AppendSend(dst []byte, to string, id uint64, ack AckMode, timeoutMS uint32, payload []byte) []byte {
	start := len(dst)
	n := 1 + present(to != "") + present(id != 0) + present(ack != AckNone) + present(timeoutMS != 0)
	dst = append(dst, 0, 0, 0, 0, majorMap|byte(n), 0, byte(TypeSend))
	dst = appendText(dst, 2, to)
	dst = appendUint(dst, 4, id)
	if ack != AckNone {
		dst = append(dst, 7, byte(ack))
	}
	dst = appendUint(dst, 8, uint64(timeoutMS))
	dst = append(dst, payload...)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-LengthBytes))
	return dst
}

// SendSize is an upper bound of what AppendSend appends, in bytes.
func SendSize(to string, payload int) int {
	return LengthBytes + 3 + 3*maxUintField + maxTextField + len(to) + payload
}

// shortHead reads a map of least to most pairs, of which the first is the type and the second a text under key, and says how
// many pairs may follow behind that and one number.
func shortHead(body []byte, least, most byte, t Type, key byte) (c cursor, pairs int, ok bool) {
	if len(body) < 8 || body[0] < majorMap|least || body[0] > majorMap|most || body[1] != 0 || body[2] != byte(t) || body[3] != key {
		return c, 0, false
	}
	return cursor{b: body[:min(len(body), MaxHeader)], off: 4, full: len(body)}, int(body[0]&0x1f) - 3, true
}

// plain reads an id of printable ASCII without device, which by far the most are. At least four bytes are left.
func (c *cursor) plain(id *string) bool {
	n := int(c.b[c.off]) - majorText
	c.off++
	if n == 24 {
		n = int(c.b[c.off])
		c.off++
	} else if n > 24 {
		return false
	}
	if n <= 0 || len(c.b)-c.off <= n || !plainID(c.b[c.off:c.off+n]) {
		return false
	}
	*id = unsafe.String(&c.b[c.off], n)
	c.off += n
	return true
}

// number reads a number other than zero under key.
func (c *cursor) number(key byte, v *uint64) bool {
	if c.off >= len(c.b) || c.b[c.off] != key {
		return false
	}
	c.off++
	n, err := c.uint(1<<64 - 1)
	*v = n
	return err == nil && n != 0
}

// ack reads an ack mode, if there is one.
func (c *cursor) ack(a *AckMode) bool {
	if c.off+1 >= len(c.b) || c.b[c.off] != 7 || c.b[c.off+1] > byte(AckClient) {
		return false
	}
	*a = AckMode(c.b[c.off+1])
	c.off += 2
	return true
}

// rest is the payload behind the header; nil if there is none.
func (c *cursor) rest(body []byte) []byte {
	if c.off == len(body) {
		return nil
	}
	return body[c.off:len(body):len(body)]
}

// plainID says that b is a client id of printable ASCII without device: by far the most are. false means nothing.
func plainID(b []byte) bool {
	for _, c := range b {
		if !plain[c] {
			return false
		}
	}
	return true
}

// plain holds the bytes that an id may have anywhere.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '*' && c != '/'
	}
	return t
}()
