package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"
)

// Errors of the decoders and readers of this package; compare with errors.Is. They cost the connection, but for ErrReadPast.
var (
	ErrMalformed = errors.New("wire: malformed")
	ErrTooLarge  = errors.New("wire: too large")

	// ErrReadPast goes with ErrTooLarge: the frame was read past to its end, its header is known, and the next frame can be read.
	ErrReadPast = errors.New("wire: read past")
)

// Why a header is malformed. The ones marked strict refuse what the library's decoder lets pass.
var (
	errTruncated = fmt.Errorf("%w: cut short", ErrMalformed)
	errSyntax    = fmt.Errorf("%w: not CBOR of the kind allowed (definite lengths, no tags)", ErrMalformed)
	errDepth     = fmt.Errorf("%w: nested deeper than %d", ErrMalformed, maxNesting)
	errElements  = fmt.Errorf("%w: more than %d elements", ErrMalformed, maxElements)
	errType      = fmt.Errorf("%w: a field has the wrong type", ErrMalformed)
	errRange     = fmt.Errorf("%w: a number does not fit its field", ErrMalformed)
	errUTF8      = fmt.Errorf("%w: text is not valid UTF-8", ErrMalformed)
	errDuplicate = fmt.Errorf("%w: duplicate key", ErrMalformed)
	errNotMap    = fmt.Errorf("%w: header is not a map", ErrMalformed)                                    // strict: null is not
	errKey       = fmt.Errorf("%w: header key is not an unsigned integer", ErrMalformed)                  // strict
	errKeyOrder  = fmt.Errorf("%w: header keys above 63 must rise", ErrMalformed)                         // strict
	errSimple    = fmt.Errorf("%w: a number is written as a simple value", ErrMalformed)                  // strict
	errHeader    = fmt.Errorf("%w: header is longer than %d bytes", ErrTooLarge, MaxHeader)               // strict
	errAddrs     = fmt.Errorf("%w: more than %d texts in a list of a header", ErrTooLarge, maxHeaderList) // strict
)

// The limits of decMode, which the cursor keeps as well.
const (
	maxNesting    = 8
	maxElements   = 1024
	maxHeaderList = 64
)

// CBOR major types, in place.
const (
	majorUint   = 0 << 5
	majorNeg    = 1 << 5
	majorBytes  = 2 << 5
	majorText   = 3 << 5
	majorArray  = 4 << 5
	majorMap    = 5 << 5
	majorTag    = 6 << 5
	majorSimple = 7 << 5

	cborNull      = majorSimple | 22
	cborUndefined = majorSimple | 23
)

// cursor reads CBOR in place. It allocates nothing and its strings share memory with b.
type cursor struct {
	b    []byte
	off  int
	full int // length of the body that b was cut from
}

// newCursor looks at no more of a body than a header may have.
func newCursor(body []byte) cursor {
	return cursor{b: body[:min(len(body), MaxHeader)], full: len(body)}
}

// short is the error for running out of bytes, which may have been the limit's doing.
func (c *cursor) short() error {
	if c.full > len(c.b) {
		return errHeader
	}
	return errTruncated
}

// head reads one initial byte and its argument. For floats the argument is their bits.
func (c *cursor) head() (major byte, arg uint64, err error) {
	if c.off >= len(c.b) {
		return 0, 0, c.short()
	}
	ib := c.b[c.off]
	c.off++
	major = ib & 0xe0
	info := ib & 0x1f
	if info < 24 {
		return major, uint64(info), nil
	}
	rest := c.b[c.off:]
	switch info {
	case 24:
		if len(rest) < 1 {
			return 0, 0, c.short()
		}
		c.off++
		if major == majorSimple && rest[0] < 32 {
			return 0, 0, errSyntax
		}
		return major, uint64(rest[0]), nil
	case 25:
		if len(rest) < 2 {
			return 0, 0, c.short()
		}
		c.off += 2
		return major, uint64(binary.BigEndian.Uint16(rest)), nil
	case 26:
		if len(rest) < 4 {
			return 0, 0, c.short()
		}
		c.off += 4
		return major, uint64(binary.BigEndian.Uint32(rest)), nil
	case 27:
		if len(rest) < 8 {
			return 0, 0, c.short()
		}
		c.off += 8
		return major, binary.BigEndian.Uint64(rest), nil
	}
	return 0, 0, errSyntax // 28 to 30 are reserved, 31 is an indefinite length or a break
}

// mapHeader starts a header and says how many pairs follow.
func (c *cursor) mapHeader() (int, error) {
	major, n, err := c.head()
	switch {
	case err != nil:
		return 0, err
	case major != majorMap:
		return 0, errNotMap
	case n > maxElements:
		return 0, errElements
	}
	return int(n), nil
}

// keys remembers which keys of one header were seen.
type keys struct {
	seen uint64
	last uint64
}

// key reads the next key and refuses one that was there before.
func (c *cursor) key(k *keys) (uint64, error) {
	if c.off < len(c.b) && c.b[c.off] < 24 {
		v := uint64(c.b[c.off])
		c.off++
		if k.seen>>v&1 != 0 {
			return 0, errDuplicate
		}
		k.seen |= 1 << v
		return v, nil
	}
	major, v, err := c.head()
	switch {
	case err != nil:
		return 0, err
	case major != majorUint || v > 1<<63-1:
		return 0, errKey
	case v < 64:
		if k.seen>>v&1 != 0 {
			return 0, errDuplicate
		}
		k.seen |= 1 << v
	case v == k.last:
		return 0, errDuplicate
	case v < k.last:
		return 0, errKeyOrder // remembering them all would let a stranger buy time or memory cheaply
	default:
		k.last = v
	}
	return v, nil
}

// null passes over null or undefined, which stands for an absent field.
func (c *cursor) null() bool {
	if c.off < len(c.b) && (c.b[c.off] == cborNull || c.b[c.off] == cborUndefined) {
		c.off++
		return true
	}
	return false
}

// uint reads a number of at most limit.
func (c *cursor) uint(limit uint64) (uint64, error) {
	if c.off < len(c.b) && c.b[c.off] < 24 {
		v := uint64(c.b[c.off])
		c.off++
		return v, nil
	}
	if c.null() {
		return 0, nil
	}
	ib := byte(0)
	if c.off < len(c.b) {
		ib = c.b[c.off]
	}
	major, v, err := c.head()
	switch {
	case err != nil:
		return 0, err
	case major == majorSimple && ib&0x1f < 20 || ib == majorSimple|24:
		return 0, errSimple
	case major != majorUint:
		return 0, errType
	case v > limit:
		return 0, errRange
	}
	return v, nil
}

// text reads a string that shares memory with the buffer.
func (c *cursor) text() (string, error) {
	if c.null() {
		return "", nil
	}
	major, n, err := c.head()
	if err != nil {
		return "", err
	}
	if major != majorText {
		return "", errType
	}
	if n > uint64(len(c.b)-c.off) {
		return "", c.short()
	}
	if n == 0 {
		return "", nil
	}
	s := unsafe.String(&c.b[c.off], int(n))
	c.off += int(n)
	if !utf8.ValidString(s) {
		return "", errUTF8
	}
	return s, nil
}

// texts reads an array of strings.
func (c *cursor) texts() ([]string, error) {
	if c.null() {
		return nil, nil
	}
	major, n, err := c.head()
	switch {
	case err != nil:
		return nil, err
	case major != majorArray:
		return nil, errType
	case n > maxHeaderList:
		return nil, errAddrs
	case n > uint64(len(c.b)-c.off): // each takes a byte at least
		return nil, c.short()
	case n == 0:
		return nil, nil
	}
	out := make([]string, n)
	for i := range out {
		if out[i], err = c.text(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// skip passes over one value of any kind; depth is that of the container it stands in.
func (c *cursor) skip(depth int) error {
	major, n, err := c.head()
	if err != nil {
		return err
	}
	switch major {
	case majorBytes, majorText:
		if n > uint64(len(c.b)-c.off) {
			return c.short()
		}
		c.off += int(n)
	case majorArray, majorMap:
		if depth >= maxNesting {
			return errDepth
		}
		if n > maxElements {
			return errElements
		}
		if major == majorMap {
			n *= 2
		}
		for range n {
			if err := c.skip(depth + 1); err != nil {
				return err
			}
		}
	case majorTag:
		return errSyntax
	}
	return nil
}

// appendHead writes an initial byte with the shortest argument.
func appendHead(dst []byte, major byte, v uint64) []byte {
	switch {
	case v < 24:
		return append(dst, major|byte(v))
	case v <= 0xff:
		return append(dst, major|24, byte(v))
	case v <= 0xffff:
		return append(dst, major|25, byte(v>>8), byte(v))
	case v <= 0xffffffff:
		return append(dst, major|26, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), v)
}

// appendUint writes a key and a number, or nothing for zero.
func appendUint(dst []byte, key byte, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return appendHead(appendKey(dst, key), majorUint, v)
}

// appendKey writes a key.
func appendKey(dst []byte, key byte) []byte {
	if key < 24 {
		return append(dst, key)
	}
	return append(dst, majorUint|24, key)
}

// appendText writes a key below 24 and a string, or nothing for "".
func appendText(dst []byte, key byte, s string) []byte {
	if s == "" {
		return dst
	}
	return append(appendHead(append(dst, key), majorText, uint64(len(s))), s...)
}

// appendTexts writes a key and a list of strings, or nothing for an empty one.
func appendTexts(dst []byte, key byte, list []string) []byte {
	if len(list) == 0 {
		return dst
	}
	dst = appendHead(appendKey(dst, key), majorArray, uint64(len(list)))
	for _, s := range list {
		dst = append(appendHead(dst, majorText, uint64(len(s))), s...)
	}
	return dst
}

// present counts a field that is written only if it is set.
func present(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}
