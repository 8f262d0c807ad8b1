package raftfsm

// reclaimPages is how many pages one Apply looks through for void rows: some ten microseconds of work.
const reclaimPages = 8

// sweep is where reclaiming goes on. It need not survive a change of the directories exactly: while there are void rows the
// sweep starts again at the end.
type sweep struct {
	stripe int
	part   int // 0 root, then one for each directory of big, then misc
	entry  int
}

// reclaim takes back the memory of some void rows. Nobody can see a difference except in Stats.
func (t *Table) reclaim(h host) {
	for range reclaimPages {
		if t.owners.void == 0 {
			return
		}
		n := t.sweep.stripe
		h.lock(n)
		t.sweepPage(&t.stripes[n])
		h.unlock(n)
	}
}

func (t *Table) sweepPage(s *stripe) {
	d := s.part(t.sweep.part)
	if d == nil {
		t.sweep = sweep{stripe: (t.sweep.stripe + 1) % stripes}
		return
	}
	i := t.sweep.entry
	switch {
	case i < len(d.refs):
		p := d.refs[i]
		_, t.sweep.entry = d.span(i)
		if q, ok := t.withoutVoid(d, p); ok {
			d.set(&t.w, i, q)
			d.settle(&t.w, i)
		}
	case i < len(d.refs)+len(d.extra):
		t.sweep.entry++
		if q, ok := t.withoutVoid(d, d.extra[i-len(d.refs)]); ok {
			d.setExtra(&t.w, i-len(d.refs), q)
		}
	default:
		t.sweep.part, t.sweep.entry = t.sweep.part+1, 0
		if d.rows == 0 && d != &s.root {
			s.drop(&t.w, d)
			t.sweep.part--
		}
	}
}

func (t *Table) withoutVoid(d *dir, p page) (page, bool) {
	void := 0
	p.each(func(_ uint16, off int) bool {
		if ord := p.owner(off); !t.owners.list[ord].live {
			t.owners.drop(ord)
			void++
		}
		return true
	})
	if void == 0 {
		return p, false
	}
	t.rows -= void
	d.rows -= void
	// Ordinals freed just now are not used again before the next NodeUp, so what was void still is.
	return t.w.rebuilt(p, 0, func(off int) bool { return t.owners.list[p.owner(off)].live }), true
}

// part numbers the directories of a stripe: root, big, misc; nil behind the last.
func (s *stripe) part(n int) *dir {
	switch {
	case n == 0:
		return &s.root
	case n <= len(s.big):
		return s.big[n-1].dir
	case n == len(s.big)+1:
		return s.misc
	}
	return nil
}
