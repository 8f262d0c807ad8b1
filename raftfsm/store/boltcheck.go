package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file, format version 2, as far as it takes to walk its pages. Integers are in the byte order of the
// machine, since bbolt maps them as they are.
//
//	page:   id u64 · flags u16 · count u16 · overflow u32 · elements …
//	branch: (pos u32 · ksize u32 · page u64)*       pos counts from the element's own start
//	leaf:   (flags u32 · pos u32 · ksize u32 · vsize u32)*
//	meta:   magic u32 · version u32 · page size u32 · flags u32 · root page u64 · sequence u64 · freelist u64 · pages u64 · tx u64 · FNV-1a u64
//	bucket: root page u64 · sequence u64 · (an inline page if the root is 0)
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	pageHeader   = 16
	elementSize  = 16
	metaSize     = 64
	flagBranch   = 0x01
	flagLeaf     = 0x02
	leafBucket   = 0x01
	maxBoltDepth = 32
)

type boltWalk struct {
	f        *os.File
	size     int64
	pageSize int64
	pages    uint64 // pages in use; ids are below it
	seen     []uint64
	buf      [maxBoltDepth][]byte // one page with its overflow a level
}

// checkBolt walks every page that can be reached in the file and returns an error, wrapping ErrDamaged, if bbolt would panic
// over one: a page that is missing, referred to twice, of the wrong kind or out of order. It does not look into the values:
// those have checksums of their own. It reads the pages of keys only, and holds one bit a page.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	w := &boltWalk{f: f, size: st.Size()}
	root, err := w.meta()
	if err != nil {
		return err
	}
	if int64(w.pages) > w.size/w.pageSize {
		return fmt.Errorf("%w: the file is %d bytes long, its header speaks of %d pages of %d: it was cut short", ErrDamaged, w.size, w.pages, w.pageSize)
	}
	w.seen = make([]uint64, w.pages/64+1)
	_, err = w.page(root, 0, nil, nil)
	return err
}

func damaged(page uint64, format string, args ...any) error {
	return fmt.Errorf("%w: page %d: %s", ErrDamaged, page, fmt.Sprintf(format, args...))
}

// meta reads the two headers, of which the one with the higher transaction counts. bbolt is content with one: it takes the
// damage of the other for a commit that a power loss cut short. But a header is 80 bytes within one sector, which disks write
// whole or not at all, and if it was the newer one that was damaged later, an append or a vote that was acknowledged would be
// forgotten without a word. So both must be whole.
func (w *boltWalk) meta() (root uint64, err error) {
	var best uint64
	for i := range int64(2) {
		var b [pageHeader + metaSize]byte
		if _, err := w.f.ReadAt(b[:], i*w.pageSize); errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("%w: the file is only %d bytes long", ErrDamaged, w.size)
		} else if err != nil {
			return 0, err
		}
		m := b[pageHeader:]
		h := fnv.New64a()
		h.Write(m[:56])
		size := int64(binary.NativeEndian.Uint32(m[8:]))
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			h.Sum64() != binary.NativeEndian.Uint64(m[56:]) || size < 512 || i > 0 && size != w.pageSize {
			return 0, fmt.Errorf("%w: header %d of 2 is not whole", ErrDamaged, i+1)
		}
		w.pageSize = size
		if tx := binary.NativeEndian.Uint64(m[48:]); i == 0 || tx > best {
			best, w.pages, root = tx, binary.NativeEndian.Uint64(m[40:]), binary.NativeEndian.Uint64(m[16:])
		}
	}
	return root, nil
}

// page checks the page id and those below it, whose keys must lie in [min, max), and returns the largest key.
func (w *boltWalk) page(id uint64, depth int, minKey, maxKey []byte) (last []byte, err error) {
	if depth >= maxBoltDepth {
		return nil, damaged(id, "the tree is deeper than any real one")
	}
	if id < 2 || id >= w.pages {
		return nil, damaged(id, "outside the file")
	}
	var h [pageHeader]byte
	if _, err := w.f.ReadAt(h[:], int64(id)*w.pageSize); err != nil {
		return nil, damaged(id, "cannot be read: %v", err)
	}
	if got := binary.NativeEndian.Uint64(h[:]); got != id {
		return nil, damaged(id, "calls itself page %d", got)
	}
	flags, count := binary.NativeEndian.Uint16(h[8:]), int(binary.NativeEndian.Uint16(h[10:]))
	overflow := uint64(binary.NativeEndian.Uint32(h[12:]))
	if overflow >= w.pages-id {
		return nil, damaged(id, "reaches beyond the end of the file")
	}
	for p := id; p <= id+overflow; p++ {
		if w.seen[p/64]&(1<<(p%64)) != 0 {
			return nil, damaged(p, "is used twice")
		}
		w.seen[p/64] |= 1 << (p % 64)
	}
	length := (int64(overflow) + 1) * w.pageSize
	if flags != flagBranch && flags != flagLeaf {
		return nil, damaged(id, "has kind %#x, want branch or leaf", flags)
	}
	if int64(pageHeader+count*elementSize) > length {
		return nil, damaged(id, "has %d elements, more than fit", count)
	}
	b, err := w.keys(id, depth, length, flags, count)
	if err != nil {
		return nil, err
	}
	return w.elements(id, depth, b, length, flags, count, minKey, maxKey)
}

// keys reads as much of a page as its elements and keys take up. A leaf with one large value has it behind the key, so most
// of a log need not be read.
func (w *boltWalk) keys(id uint64, depth int, length int64, flags uint16, count int) ([]byte, error) {
	n := min(length, w.pageSize)
	if count > 1 || flags == flagBranch {
		n = length
	}
	if int64(cap(w.buf[depth])) < n {
		w.buf[depth] = make([]byte, n)
	}
	b := w.buf[depth][:n]
	if _, err := w.f.ReadAt(b, int64(id)*w.pageSize); err != nil {
		return nil, damaged(id, "cannot be read: %v", err)
	}
	return b, nil
}

func (w *boltWalk) elements(id uint64, depth int, b []byte, length int64, flags uint16, count int, minKey, maxKey []byte) (last []byte, err error) {
	if flags == flagBranch && count == 0 {
		return nil, damaged(id, "is an empty branch")
	}
	last = minKey
	for i := range count {
		key, e, err := element(id, b, flags, i)
		if err != nil {
			return nil, err
		}
		// The first key may equal the one above it; the rest rise.
		if c := bytes.Compare(last, key); c > 0 || c == 0 && i > 0 {
			return nil, damaged(id, "its keys are out of order")
		}
		if maxKey != nil && bytes.Compare(key, maxKey) >= 0 {
			return nil, damaged(id, "its keys reach into the next page's")
		}
		key = bytes.Clone(key)
		last = key
		if flags == flagBranch {
			next := maxKey
			if i+1 < count {
				k, _, err := element(id, b, flags, i+1)
				if err != nil {
					return nil, err
				}
				next = bytes.Clone(k)
			}
			if last, err = w.page(binary.NativeEndian.Uint64(e[8:]), depth+1, key, next); err != nil {
				return nil, err
			}
			continue
		}
		vsize := int64(binary.NativeEndian.Uint32(e[12:]))
		end := int64(pageHeader+i*elementSize) + int64(binary.NativeEndian.Uint32(e[4:])) + int64(len(key)) + vsize
		if end > length {
			return nil, damaged(id, "a value reaches beyond the page")
		}
		if binary.NativeEndian.Uint32(e)&leafBucket == 0 {
			continue
		}
		if vsize < 16 || end > int64(len(b)) {
			return nil, damaged(id, "a bucket's header is too short")
		}
		if err := w.bucket(id, depth, b[end-vsize:end]); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// bucket checks what hangs below a bucket's entry v on page id.
func (w *boltWalk) bucket(id uint64, depth int, v []byte) error {
	if root := binary.NativeEndian.Uint64(v); root != 0 {
		_, err := w.page(root, depth+1, nil, nil)
		return err
	}
	in := v[16:]
	if len(in) < pageHeader {
		return damaged(id, "an inline bucket is too short")
	}
	count := int(binary.NativeEndian.Uint16(in[10:]))
	if binary.NativeEndian.Uint16(in[8:]) != flagLeaf || pageHeader+count*elementSize > len(in) {
		return damaged(id, "an inline bucket is malformed")
	}
	_, err := w.elements(id, maxBoltDepth-1, in, int64(len(in)), flagLeaf, count, nil, nil)
	return err
}

// element returns the i-th element of the page b and its key, which share memory with b.
func element(id uint64, b []byte, flags uint16, i int) (key, e []byte, err error) {
	off := pageHeader + i*elementSize
	e = b[off : off+elementSize]
	pos, ksize := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
	if flags == flagLeaf {
		pos, ksize = ksize, binary.NativeEndian.Uint32(e[8:])
	}
	start := int64(off) + int64(pos)
	if ksize == 0 || start+int64(ksize) > int64(len(b)) || pos < elementSize {
		return nil, nil, damaged(id, "a key is outside the page")
	}
	return b[start : start+int64(ksize)], e, nil
}
