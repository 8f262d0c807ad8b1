package raftfsm

import (
	"encoding/binary"
	"unsafe"

	"imroute/mesh/wire"
)

// A page is a small hash table in one byte array without pointers: the garbage collector never looks inside, and a copy of it
// is a memmove.
//
//	header (16 bytes) · rows, in order of arrival · free · slots (4 bytes each, at the end)
//
// A slot is tag<<16 | offset of the row, 0 if empty; slots are probed linearly from a place the tag gives. A removed row leaves
// a hole that the next rebuild closes. The number of slots follows from the page's length, so that a look-up reads the slot and
// the row and nothing else.
type page []byte

const (
	pageHeader = 16
	maxPage    = 4 << 10
	minPage    = 512

	// flagSpilled: rows that belong here by their hash may lie elsewhere as well (see stripe and dir).
	flagSpilled = 1
)

// pageSizes are the runtime's own size classes, so nothing is lost to rounding; the largest is one page of the processor, so that a
// look-up costs one miss of its address cache. A page grows through them and splits when it is
// full at the last: that keeps pages four fifths full on average, whatever the number of routes.
var pageSizes = [...]int{minPage, 1024, 1536, 2048, 2304, 2688, 3072, 3456, maxPage}

// A row: owner u32 · instance u64 · attempt u64 · epoch u64 · tenant length u8 · id length u8 · tenant · id.
const rowHeader = 30

type rowValue struct {
	owner   uint32
	session wire.SessionID
	epoch   wire.Epoch
}

// key is a client id with its hashes: h places the user, hid the device.
type key struct {
	h, hid uint64
	wire.ClientID
}

func makeKey(c wire.ClientID) key {
	h, hid := c.Hashes()
	return key{h, hid, c}
}

func (k key) tag() uint16  { return uint16(k.hid) }
func (k key) rowSize() int { return rowHeader + len(k.Tenant) + len(k.ID) }

func slotCount(size int) int { return size / 40 }

// fits says whether a page of that size holds rows of that many bytes in all.
func fits(size, bytes, rows int) bool {
	n := slotCount(size)
	return pageHeader+bytes+4*n <= size && rows <= n*7/8
}

// sizeFor is the smallest size for that many bytes of rows, or 0 if even the largest is too small.
func sizeFor(bytes, rows int) int {
	for _, s := range pageSizes {
		if fits(s, bytes, rows) {
			return s
		}
	}
	return 0
}

func newPage(size int, depth uint8, gen uint32) page {
	p := make(page, size)
	p[0] = depth
	p.setGen(gen)
	p.setEnd(pageHeader)
	return p
}

var le = binary.LittleEndian

func (p page) depth() uint8     { return p[0] }
func (p page) setDepth(d uint8) { p[0] = d }
func (p page) spilled() bool    { return p[1]&flagSpilled != 0 }
func (p page) spill()           { p[1] |= flagSpilled }
func (p page) count() int       { return int(le.Uint16(p[2:])) }
func (p page) setCount(n int)   { le.PutUint16(p[2:], uint16(n)) }
func (p page) end() int         { return int(le.Uint16(p[4:])) }
func (p page) setEnd(n int)     { le.PutUint16(p[4:], uint16(n)) }
func (p page) holes() int       { return int(le.Uint16(p[6:])) }
func (p page) setHoles(n int)   { le.PutUint16(p[6:], uint16(n)) }
func (p page) gen() uint32      { return le.Uint32(p[8:]) }
func (p page) setGen(g uint32)  { le.PutUint32(p[8:], g) }

// liveBytes is what the rows take without the holes.
func (p page) liveBytes() int { return p.end() - pageHeader - p.holes() }

func home(tag uint16, n int) int { return int(uint32(tag) * uint32(n) >> 16) }

// find returns the offset of a row, or 0.
func (p page) find(tag uint16, tenant, id string) int {
	n := slotCount(len(p))
	slots := p[len(p)-4*n:]
	for i := home(tag, n); ; {
		s := le.Uint32(slots[4*i:])
		if s == 0 {
			return 0
		}
		if uint16(s>>16) == tag {
			if off := int(s & 0xffff); p.is(off, tenant, id) {
				return off
			}
		}
		if i++; i == n {
			i = 0
		}
	}
}

func (p page) is(off int, tenant, id string) bool {
	r := p[off:]
	t, n := int(r[28]), int(r[29])
	return t == len(tenant) && n == len(id) && string(r[rowHeader+t:rowHeader+t+n]) == id && string(r[rowHeader:rowHeader+t]) == tenant
}

// room says whether a row of that size can be added as the page is.
func (p page) room(size int) bool {
	n := slotCount(len(p))
	return p.end()+size <= len(p)-4*n && p.count() < n*7/8
}

// add appends a row that is not there yet; there must be room.
func (p page) add(k key, v rowValue) {
	off := p.end()
	p.setValue(off, v)
	p[off+28], p[off+29] = byte(len(k.Tenant)), byte(len(k.ID))
	copy(p[off+rowHeader:], k.Tenant)
	copy(p[off+rowHeader+len(k.Tenant):], k.ID)
	p.setEnd(off + k.rowSize())
	p.link(k.tag(), off)
}

// addRaw appends a row copied from another page.
func (p page) addRaw(tag uint16, row []byte) {
	off := p.end()
	copy(p[off:], row)
	p.setEnd(off + len(row))
	p.link(tag, off)
}

func (p page) link(tag uint16, off int) {
	n := slotCount(len(p))
	slots := p[len(p)-4*n:]
	i := home(tag, n)
	for le.Uint32(slots[4*i:]) != 0 {
		if i++; i == n {
			i = 0
		}
	}
	le.PutUint32(slots[4*i:], uint32(tag)<<16|uint32(off))
	p.setCount(p.count() + 1)
}

// remove takes the row at off out. Later slots of the same run move up, so that no probe ends too early.
func (p page) remove(tag uint16, off int) {
	n := slotCount(len(p))
	slots := p[len(p)-4*n:]
	want := uint32(tag)<<16 | uint32(off)
	i := home(tag, n)
	for le.Uint32(slots[4*i:]) != want {
		if i++; i == n {
			i = 0
		}
	}
	for j := i; ; {
		if j++; j == n {
			j = 0
		}
		s := le.Uint32(slots[4*j:])
		if s == 0 {
			break
		}
		h := home(uint16(s>>16), n)
		if (j > i && (h <= i || h > j)) || (j < i && h <= i && h > j) { // s may not stay behind the gap at i
			le.PutUint32(slots[4*i:], s)
			i = j
		}
	}
	le.PutUint32(slots[4*i:], 0)
	p.setCount(p.count() - 1)
	p.setHoles(p.holes() + len(p.row(off)))
}

func (p page) row(off int) []byte {
	return p[off : off+rowHeader+int(p[off+28])+int(p[off+29])]
}

func (p page) owner(off int) uint32 { return le.Uint32(p[off:]) }

func (p page) value(off int) rowValue {
	r := p[off : off+rowHeader]
	return rowValue{
		owner:   le.Uint32(r),
		session: wire.SessionID{Instance: le.Uint64(r[4:]), Attempt: le.Uint64(r[12:])},
		epoch:   wire.Epoch(le.Uint64(r[20:])),
	}
}

func (p page) setValue(off int, v rowValue) {
	r := p[off : off+rowHeader]
	le.PutUint32(r, v.owner)
	le.PutUint64(r[4:], v.session.Instance)
	le.PutUint64(r[12:], v.session.Attempt)
	le.PutUint64(r[20:], uint64(v.epoch))
}

// client is the row's id. It shares memory with the page: hash or compare it, and clone it before the lock is given up.
func (p page) client(off int) wire.ClientID {
	t, n := int(p[off+28]), int(p[off+29])
	c := wire.ClientID{ID: unsafe.String(&p[off+rowHeader+t], n)} // n is at least 1
	if t > 0 {
		c.Tenant = unsafe.String(&p[off+rowHeader], t)
	}
	return c
}

// each calls f with every row's tag and offset, in slot order, until f says false.
func (p page) each(f func(tag uint16, off int) bool) bool {
	n := slotCount(len(p))
	slots := p[len(p)-4*n:]
	for i := range n {
		if s := le.Uint32(slots[4*i:]); s != 0 && !f(uint16(s>>16), int(s&0xffff)) {
			return false
		}
	}
	return true
}

// rebuilt is a copy of the page with the wanted rows (nil: all), without holes, with space for extra more bytes. The caller
// knows that they fit.
func (p page) rebuilt(gen uint32, extra int, keep func(off int) bool) page {
	if keep == nil && p.holes() == 0 {
		return p.grown(gen, extra)
	}
	bytes, rows := 0, 0
	p.each(func(_ uint16, off int) bool {
		if keep == nil || keep(off) {
			bytes += len(p.row(off))
			rows++
		}
		return true
	})
	more := 0
	if extra > 0 {
		more = 1
	}
	q := newPage(sizeFor(bytes+extra, rows+more), p.depth(), gen)
	q[1] = p[1]
	p.each(func(tag uint16, off int) bool {
		if keep == nil || keep(off) {
			q.addRaw(tag, p.row(off))
		}
		return true
	})
	return q
}

// grown is rebuilt for a page that only needs space: rows keep their places.
func (p page) grown(gen uint32, extra int) page {
	more := 0
	if extra > 0 {
		more = 1
	}
	end := p.end()
	q := newPage(sizeFor(end-pageHeader+extra, p.count()+more), p.depth(), gen)
	q[1] = p[1]
	copy(q[pageHeader:], p[pageHeader:end])
	q.setEnd(end)
	p.each(func(tag uint16, off int) bool {
		q.link(tag, off)
		return true
	})
	return q
}
