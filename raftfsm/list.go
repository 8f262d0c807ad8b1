package raftfsm

import (
	"cmp"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"imroute/mesh/wire"
)

// ErrBadCursor is what Routes returns for a cursor it did not make.
var ErrBadCursor = errors.New("this cursor is not from a listing of routes: start again without one")

// Routes lists live routes, at most limit of those that filter (nil: all) accepts, behind the cursor; "" is the beginning. next
// is "" at the end. Routes come in an order of their ids' hashes, which is the same for every view: a listing may go on in a
// later one, and then has every route that was there all the time exactly once. The route given to filter must not be kept.
func (v *View) Routes(cursor string, limit int, filter func(Route) bool) (routes []Route, next string, err error) {
	l := lister{v: v, limit: limit, filter: filter}
	if cursor != "" {
		c, err := decodeCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		l.after, l.resumed = makeKey(c), true
	}
	if limit <= 0 || !l.run() {
		return l.routes, l.cursor(cursor), nil
	}
	return l.routes, "", nil
}

func encodeCursor(c wire.ClientID) string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.Tenant + "\x00" + c.ID))
}

func decodeCursor(s string) (wire.ClientID, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	tenant, id, ok := strings.Cut(string(b), "\x00")
	if err != nil || !ok || id == "" {
		return wire.ClientID{}, ErrBadCursor
	}
	return wire.ClientID{Tenant: tenant, ID: id}, nil
}

// lister walks a view in the order of (Hash, HashID, tenant, id).
type lister struct {
	v       *View
	after   key
	resumed bool
	limit   int
	filter  func(Route) bool
	routes  []Route
}

func (l *lister) cursor(old string) string {
	if len(l.routes) == 0 {
		return old
	}
	return encodeCursor(l.routes[len(l.routes)-1].Client)
}

// item is a row with its key, as sorted.
type item struct {
	key
	p   page
	off int
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.h, b.h), cmp.Compare(a.hid, b.hid), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.ID, b.ID))
}

func items(list []item, p page) []item {
	p.each(func(_ uint16, off int) bool {
		list = append(list, item{makeKey(p.client(off)), p, off})
		return true
	})
	return list
}

// run says whether it came to the end.
func (l *lister) run() bool {
	first := 0
	if l.resumed {
		first = stripeOf(l.after.h)
	}
	for n := first; n < stripes; n++ {
		s := &l.v.stripes[n]
		i := 0
		if l.resumed && n == first {
			i, _ = s.root.span(s.root.index(rootKey(l.after.h)))
		}
		for i < len(s.root.refs) {
			_, to := s.root.span(i)
			if !l.page(s, n, i, to) {
				return false
			}
			i = to
		}
	}
	return true
}

// page emits all rows of the range of hashes that root's page at entries from to to stands for.
func (l *lister) page(s *stripe, n, from, to int) bool {
	p := s.root.refs[from]
	list := items(nil, p)
	if !p.spilled() {
		return l.emit(list)
	}
	shift := 64 - stripeBits - s.root.depth
	lo := uint64(n)<<(64-stripeBits) | uint64(from)<<shift
	hi := lo + uint64(to-from)<<shift - 1
	if s.misc != nil {
		s.misc.eachPage(func(p page) bool {
			for _, it := range items(nil, p) {
				if it.h >= lo && it.h <= hi {
					list = append(list, it)
				}
			}
			return true
		})
	}
	at, _ := slices.BinarySearchFunc(s.big, lo, compareBig)
	for ; at < len(s.big) && s.big[at].hash <= hi; at++ {
		b := s.big[at]
		// What comes before this user goes out first, so that his own directory can be walked page by page.
		var before, rest []item
		same := false
		for _, it := range list {
			if it.h < b.hash {
				before = append(before, it)
			} else {
				rest = append(rest, it)
				same = same || it.h == b.hash
			}
		}
		if !l.emit(before) {
			return false
		}
		list = rest
		if same || len(b.dir.extra) > 0 {
			b.dir.eachPage(func(p page) bool { list = items(list, p); return true })
			continue
		}
		if !l.user(b) {
			return false
		}
	}
	return l.emit(list)
}

func (l *lister) user(b bigUser) bool {
	i := 0
	if l.resumed && l.after.h > b.hash {
		return true
	}
	if l.resumed && l.after.h == b.hash {
		i, _ = b.dir.span(b.dir.index(l.after.hid))
	}
	for i < len(b.dir.refs) {
		if !l.emit(items(nil, b.dir.refs[i])) {
			return false
		}
		_, i = b.dir.span(i)
	}
	return true
}

func (l *lister) emit(list []item) bool {
	slices.SortFunc(list, func(a, b item) int { return compareKeys(a.key, b.key) })
	for _, it := range list {
		if l.resumed && compareKeys(it.key, l.after) <= 0 {
			continue
		}
		o := l.v.owners[it.p.owner(it.off)]
		if !o.live || l.filter != nil && !l.filter(sharedRoute(it.p, it.off, o)) {
			continue
		}
		if len(l.routes) == l.limit {
			return false
		}
		l.routes = append(l.routes, route(it.p, it.off, o))
	}
	return true
}
