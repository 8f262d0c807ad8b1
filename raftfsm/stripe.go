package raftfsm

import (
	"slices"
)

// The table is cut into stripes by the top bits of the client's hash; the adapter locks one stripe at a time.
const (
	stripeBits = 6
	stripes    = 1 << stripeBits
)

func stripeOf(h uint64) int { return int(h >> (64 - stripeBits)) }

// stripe holds the rows of one range of hashes. A row lies in exactly one of three places, tried in this order:
//
//	root  the usual one: a directory over the hash
//	big   a user with more devices than half a page: a directory of his own, over the whole ids
//	misc  different users whose hashes agree in so many bits that no sensible directory tells them apart
//
// A page of root whose range has rows in big or misc is marked as spilled.
type stripe struct {
	root dir
	big  []bigUser // by hash
	misc *dir
}

type bigUser struct {
	hash uint64
	dir  *dir
}

// place is where a row lies.
type place struct {
	d   *dir
	i   int // entry of d.refs; negative: an extra page, from -1 down
	off int
}

func (pl place) page() page {
	if pl.i < 0 {
		return pl.d.extra[-1-pl.i]
	}
	return pl.d.refs[pl.i]
}

func (pl place) own(w *writer) page {
	if pl.i < 0 {
		return pl.d.ownExtra(w, -1-pl.i)
	}
	return pl.d.own(w, pl.i)
}

func rootKey(h uint64) uint64 { return h << stripeBits }

func rowRootKey(p page, off int) uint64 { return rootKey(p.client(off).Hash()) }

func (s *stripe) find(k key) (place, bool) {
	i := s.root.index(rootKey(k.h))
	p := s.root.refs[i]
	if off := p.find(k.tag(), k.Tenant, k.ID); off != 0 {
		return place{&s.root, i, off}, true
	}
	if !p.spilled() {
		return place{}, false
	}
	if d := s.bigDir(k.h); d != nil {
		if i, off := d.findByID(k); off != 0 {
			return place{d, i, off}, true
		}
	}
	if s.misc != nil {
		if i, off := s.misc.findByID(k); off != 0 {
			return place{s.misc, i, off}, true
		}
	}
	return place{}, false
}

func (s *stripe) bigDir(h uint64) *dir {
	i, ok := slices.BinarySearchFunc(s.big, h, compareBig)
	if !ok {
		return nil
	}
	return s.big[i].dir
}

func compareBig(b bigUser, h uint64) int {
	switch {
	case b.hash < h:
		return -1
	case b.hash > h:
		return 1
	}
	return 0
}

// insert adds a row that is not there yet.
func (s *stripe) insert(w *writer, k key, v rowValue) {
	size := k.rowSize()
	for {
		i := s.root.index(rootKey(k.h))
		p := s.root.refs[i]
		if p.spilled() {
			if d := s.bigDir(k.h); d != nil {
				d.insertByID(w, k, v)
				return
			}
		}
		if p.room(size) {
			s.root.own(w, i).add(k, v)
			s.root.rows++
			return
		}
		s.makeRoom(w, i, size)
	}
}

func (s *stripe) makeRoom(w *writer, i, size int) {
	p := s.root.refs[i]
	if sizeFor(p.liveBytes()+size, p.count()+1) != 0 {
		s.root.set(w, i, w.rebuilt(p, size, nil))
		return
	}
	if h, ok := majority(p); ok {
		at, found := slices.BinarySearchFunc(s.big, h, compareBig)
		if !found {
			d := newDir(w)
			s.big = slices.Insert(s.big, at, bigUser{h, &d})
		}
		s.spill(w, i, s.big[at].dir, func(off int) bool { return p.client(off).Hash() == h })
		return
	}
	if p.depth() < s.root.maxDepth() {
		s.root.split(w, i, rowRootKey)
		return
	}
	if s.misc == nil {
		d := newDir(w)
		s.misc = &d
	}
	s.spill(w, i, s.misc, func(int) bool { return true })
}

// spill moves the chosen rows of root's page at entry i into d.
func (s *stripe) spill(w *writer, i int, d *dir, move func(off int) bool) {
	p := s.root.refs[i]
	before := d.rows
	p.each(func(_ uint16, off int) bool {
		if move(off) {
			d.insertByID(w, makeKey(p.client(off)), p.value(off))
		}
		return true
	})
	s.root.rows -= d.rows - before
	q := w.rebuilt(p, 0, func(off int) bool { return !move(off) })
	q.spill()
	s.root.set(w, i, q)
}

// majority finds the hash that more than half of a page's rows have, if there is one.
func majority(p page) (uint64, bool) {
	var h uint64
	n := 0
	p.each(func(_ uint16, off int) bool {
		switch x := p.client(off).Hash(); {
		case n == 0:
			h, n = x, 1
		case x == h:
			n++
		default:
			n--
		}
		return true
	})
	n = 0
	p.each(func(_ uint16, off int) bool {
		if p.client(off).Hash() == h {
			n++
		}
		return true
	})
	return h, 2*n > p.count()
}

// remove takes out the row that find found.
func (s *stripe) remove(w *writer, k key, pl place) {
	pl.own(w).remove(k.tag(), pl.off)
	pl.d.rows--
	if pl.i >= 0 {
		pl.d.settle(w, pl.i)
	}
	if pl.d.rows == 0 && pl.d != &s.root {
		s.drop(w, pl.d)
	}
}

// drop forgets an empty directory of big or misc.
func (s *stripe) drop(w *writer, d *dir) {
	d.eachPage(func(p page) bool { w.dropped(p); return true })
	if s.misc == d {
		s.misc = nil
		return
	}
	s.big = slices.DeleteFunc(s.big, func(b bigUser) bool { return b.dir == d })
}

// eachPage calls f with every page once, root first.
func (s *stripe) eachPage(f func(page) bool) bool {
	if !s.root.eachPage(f) {
		return false
	}
	for _, b := range s.big {
		if !b.dir.eachPage(f) {
			return false
		}
	}
	return s.misc == nil || s.misc.eachPage(f)
}

// eachOfHash calls f with every row of users that have this hash, and may call it with others.
func (s *stripe) eachOfHash(h uint64, f func(p page, off int)) {
	visit := func(p page) bool {
		return p.each(func(_ uint16, off int) bool { f(p, off); return true })
	}
	p := s.root.refs[s.root.index(rootKey(h))]
	visit(p)
	if !p.spilled() {
		return
	}
	if d := s.bigDir(h); d != nil {
		d.eachPage(visit)
	}
	if s.misc != nil {
		s.misc.eachPage(visit)
	}
}

// entries counts the entries of all directories.
func (s *stripe) entries() int {
	n := len(s.root.refs)
	for _, b := range s.big {
		n += len(b.dir.refs) + len(b.dir.extra)
	}
	if s.misc != nil {
		n += len(s.misc.refs) + len(s.misc.extra)
	}
	return n
}

// clone shares the pages.
func (s *stripe) clone() stripe {
	c := stripe{root: s.root.clone(), big: make([]bigUser, len(s.big))}
	for i, b := range s.big {
		d := b.dir.clone()
		c.big[i] = bigUser{b.hash, &d}
	}
	if s.misc != nil {
		d := s.misc.clone()
		c.misc = &d
	}
	return c
}
