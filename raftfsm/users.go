package raftfsm

import (
	"context"
	"strings"

	"imroute/mesh/wire"
)

// Users counts the users that have a live route: all devices of a user (ids with the same part before "/", and the id that is just
// that part) are one user, wherever they are. byNode counts them at each node where they have one, so that a user whose devices are
// on two nodes is in both counts and once in all. It reads the whole table, some 0.2 s a million routes, and ends early with ctx's
// error.
func (v *View) Users(ctx context.Context) (all int, byNode map[wire.NodeID]int, err error) {
	c := userCount{v: v, byNode: map[wire.NodeID]int{}, seen: map[userAt]struct{}{}}
	for i := range v.stripes {
		if err := context.Cause(ctx); err != nil {
			return 0, nil, err
		}
		c.stripe(&v.stripes[i])
	}
	return c.all, c.byNode, nil
}

// userAt is a user, or with node one at a node. It shares the view's memory.
type userAt struct {
	tenant, user string
	node         wire.NodeID // 0: anywhere
}

type userCount struct {
	v      *View
	all    int
	byNode map[wire.NodeID]int
	seen   map[userAt]struct{} // of the pages that are counted together

	tenant *string // count its rows only, and all of them in rows; nil: those of everybody
	rows   map[wire.NodeID]int
}

// TenantCount is who of one tenant is online.
type TenantCount struct {
	Users   int                 // as View.Users counts them
	UsersAt map[wire.NodeID]int // likewise
	Routes  map[wire.NodeID]int // live routes at each node
}

// Tenant counts one tenant's users and live routes. It costs what Users does.
func (v *View) Tenant(ctx context.Context, tenant string) (TenantCount, error) {
	c := userCount{v: v, byNode: map[wire.NodeID]int{}, seen: map[userAt]struct{}{}, tenant: &tenant, rows: map[wire.NodeID]int{}}
	for i := range v.stripes {
		if err := context.Cause(ctx); err != nil {
			return TenantCount{}, err
		}
		c.stripe(&v.stripes[i])
	}
	return TenantCount{Users: c.all, UsersAt: c.byNode, Routes: c.rows}, nil
}

// stripe counts a page at a time, because all rows of a user are in one page of root; but for those that were moved out of it,
// which are counted together with what the pages have that they were moved out of.
func (c *userCount) stripe(s *stripe) {
	var spilled []page
	s.root.eachPage(func(p page) bool {
		if p.spilled() {
			spilled = append(spilled, p)
			return true
		}
		c.pages(p)
		return true
	})
	if len(spilled) == 0 {
		return
	}
	gather := func(p page) bool { spilled = append(spilled, p); return true }
	for _, b := range s.big {
		b.dir.eachPage(gather)
	}
	if s.misc != nil {
		s.misc.eachPage(gather)
	}
	c.pages(spilled...)
}

// pages counts users that have rows in no other pages.
func (c *userCount) pages(pages ...page) {
	clear(c.seen)
	for _, p := range pages {
		devices := len(pages) > 1 || hasDevices(p)
		p.each(func(_ uint16, off int) bool {
			o := c.v.owners[p.owner(off)]
			if !o.live {
				return true
			}
			if c.tenant != nil {
				if p.client(off).Tenant != *c.tenant {
					return true
				}
				c.rows[o.node]++
			}
			if !devices { // each row is a user of its own
				c.all++
				c.byNode[o.node]++
				return true
			}
			id := p.client(off)
			u := userAt{tenant: id.Tenant, user: id.User()}
			if c.first(u) {
				c.all++
			}
			u.node = o.node
			if c.first(u) {
				c.byNode[o.node]++
			}
			return true
		})
	}
}

func (c *userCount) first(u userAt) bool {
	if _, seen := c.seen[u]; seen {
		return false
	}
	c.seen[u] = struct{}{}
	return true
}

func hasDevices(p page) (has bool) {
	p.each(func(_ uint16, off int) bool {
		has = strings.IndexByte(p.client(off).ID, '/') >= 0
		return !has
	})
	return has
}
