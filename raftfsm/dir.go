package raftfsm

import (
	"math/bits"
	"slices"
)

// writer is what a change to pages needs to know and to count.
type writer struct {
	gen    uint32 // pages of an earlier generation are shared with a grab
	shared bool   // a grab is open at all
	pages  int
	bytes  int
}

func (w *writer) newPage(size int, depth uint8) page {
	w.pages++
	w.bytes += size
	return newPage(size, depth, w.gen)
}

func (w *writer) dropped(p page) {
	w.pages--
	w.bytes -= len(p)
}

// rebuilt replaces p by a copy with the wanted rows.
func (w *writer) rebuilt(p page, extra int, keep func(off int) bool) page {
	q := p.rebuilt(w.gen, extra, keep)
	w.bytes += len(q) - len(p)
	return q
}

// dir is an extendible hash directory: the top depth bits of a key choose the page. Several entries name the same page while
// that page is of a lower depth. A directory gets no deeper than the number of its pages justifies; rows that still do not fit
// (a case somebody has to construct) go elsewhere: to extra, or for root to the stripe's misc.
type dir struct {
	gen   uint32 // a grab that is open shares refs and extra of an earlier generation
	depth uint8
	refs  []page
	pages int
	rows  int
	// expect is how many pages a restore that is under way will fill: rows of a snapshot come in the order of their keys, so
	// the first pages are as deep as all the others will be. 0 otherwise.
	expect int
	// extra holds rows of a directory over whole ids that agree in too many bits of the hash. It is searched from end to end.
	extra []page
}

func newDir(w *writer) dir {
	return dir{gen: w.gen, refs: []page{w.newPage(minPage, 0)}, pages: 1}
}

// unshare is called before refs or extra are changed: the first time after a grab they are copied.
func (d *dir) unshare(w *writer) {
	if w.shared && d.gen != w.gen {
		d.refs, d.extra = slices.Clone(d.refs), slices.Clone(d.extra)
	}
	d.gen = w.gen
}

func (d *dir) index(k uint64) int { return int(k >> (64 - d.depth)) }

// maxDepth bounds the directory to sixteen entries a page; random keys need three or four.
func (d *dir) maxDepth() uint8 { return uint8(min(bits.Len(uint(max(d.pages, d.expect)))+3, 28)) }

// span is the range of entries that name the same page as entry i.
func (d *dir) span(i int) (from, to int) {
	step := 1 << (d.depth - d.refs[i].depth())
	from = i &^ (step - 1)
	return from, from + step
}

func (d *dir) set(w *writer, i int, p page) {
	d.unshare(w)
	from, to := d.span(i)
	for j := from; j < to; j++ {
		d.refs[j] = p
	}
}

// own returns the page at entry i for writing.
func (d *dir) own(w *writer, i int) page {
	p := d.refs[i]
	if !w.shared || p.gen() == w.gen {
		return p
	}
	q := append(page(nil), p...)
	q.setGen(w.gen)
	d.set(w, i, q)
	return q
}

func (d *dir) ownExtra(w *writer, i int) page {
	p := d.extra[i]
	if !w.shared || p.gen() == w.gen {
		return p
	}
	q := append(page(nil), p...)
	q.setGen(w.gen)
	d.setExtra(w, i, q)
	return q
}

func (d *dir) setExtra(w *writer, i int, p page) {
	d.unshare(w)
	d.extra[i] = p
}

// split divides the page at entry i by the next bit of its rows' keys.
func (d *dir) split(w *writer, i int, keyOf func(p page, off int) uint64) {
	d.unshare(w)
	p := d.refs[i]
	if p.depth() == d.depth {
		refs := make([]page, 2*len(d.refs))
		for j, q := range d.refs {
			refs[2*j], refs[2*j+1] = q, q
		}
		d.refs, d.depth, i = refs, d.depth+1, 2*i
	}
	from, to := d.span(i)
	shift := 63 - p.depth()
	half := func(bit uint64) page {
		q := p.rebuilt(w.gen, 0, func(off int) bool { return keyOf(p, off)>>shift&1 == bit })
		q.setDepth(p.depth() + 1)
		w.pages++
		w.bytes += len(q)
		return q
	}
	a, b := half(0), half(1)
	w.dropped(p)
	d.pages++
	mid := (from + to) / 2
	for j := from; j < mid; j++ {
		d.refs[j] = a
	}
	for j := mid; j < to; j++ {
		d.refs[j] = b
	}
}

// settle is called after rows were removed at entry i: it closes holes and joins the page with its other half when both are
// sparse.
func (d *dir) settle(w *writer, i int) {
	p := d.refs[i]
	if p.holes() > p.liveBytes() && len(p) > minPage {
		p = w.rebuilt(p, 0, nil)
		d.set(w, i, p)
	}
	if p.depth() == 0 {
		return
	}
	from, to := d.span(i)
	other := from ^ (to - from)
	q := d.refs[other]
	if q.depth() != p.depth() || p.liveBytes()+q.liveBytes() > maxPage/4 {
		return
	}
	rows := p.count() + q.count()
	size := sizeFor(p.liveBytes()+q.liveBytes(), rows)
	if size == 0 {
		return
	}
	m := w.newPage(size, p.depth()-1)
	m[1] = p[1] | q[1]
	for _, src := range []page{p, q} {
		src.each(func(tag uint16, off int) bool {
			m.addRaw(tag, src.row(off))
			return true
		})
		w.dropped(src)
	}
	d.pages--
	d.unshare(w)
	for j := min(from, other); j < min(from, other)+2*(to-from); j++ {
		d.refs[j] = m
	}
}

func idKey(p page, off int) uint64 { return p.client(off).HashID() }

// insertByID adds a row to a directory over whole ids.
func (d *dir) insertByID(w *writer, k key, v rowValue) {
	d.rows++
	size := k.rowSize()
	for {
		i := d.index(k.hid)
		p := d.refs[i]
		if p.room(size) {
			d.own(w, i).add(k, v)
			return
		}
		if sizeFor(p.liveBytes()+size, p.count()+1) != 0 {
			d.set(w, i, w.rebuilt(p, size, nil))
			continue
		}
		if p.depth() < d.maxDepth() {
			d.split(w, i, idKey)
			continue
		}
		d.own(w, i).spill()
		last := len(d.extra) - 1
		if last < 0 || !d.extra[last].room(size) {
			d.unshare(w)
			d.extra = append(d.extra, w.newPage(maxPage, 0))
			last++
		}
		d.ownExtra(w, last).add(k, v)
		return
	}
}

// findByID returns the entry (negative: an extra page, from -1 down) and offset of a row; offset 0 if it is not there.
func (d *dir) findByID(k key) (i, off int) {
	i = d.index(k.hid)
	p := d.refs[i]
	if off = p.find(k.tag(), k.Tenant, k.ID); off != 0 || !p.spilled() {
		return i, off
	}
	for j, q := range d.extra {
		if off = q.find(k.tag(), k.Tenant, k.ID); off != 0 {
			return -1 - j, off
		}
	}
	return i, 0
}

// eachPage calls f with every page once, in the order of their keys, extra ones last.
func (d *dir) eachPage(f func(page) bool) bool {
	for i := 0; i < len(d.refs); {
		p := d.refs[i]
		if !f(p) {
			return false
		}
		i += 1 << (d.depth - p.depth())
	}
	for _, p := range d.extra {
		if !f(p) {
			return false
		}
	}
	return true
}

// clone shares everything until the next change: the caller opens a grab, which begins a generation.
func (d *dir) clone() dir { return *d }
