package client

import (
	"context"
	"fmt"
	"slices"

	"imroute/mesh/wire"
)

// groups is what a Client wants to be in, and how far that has come over the present session. Guarded by Client.mu.
type groups struct {
	wanted map[string]*membership
	order  []string           // of wanted, so that a login names those that were joined first
	asked  map[uint64]request // joins and leaves without an answer, by id
}

type membership struct {
	member  bool         // the node said so, on the present session
	asking  bool         // a join is under way on the present session
	waiters []chan error // capacity 1 each
}

// request is a join, or a leave if left is set.
type request struct {
	group string
	left  chan error // capacity 1
}

func (g *groups) wantLocked(group string) *membership {
	if m := g.wanted[group]; m != nil {
		return m
	}
	if g.wanted == nil {
		g.wanted = map[string]*membership{}
	}
	m := &membership{}
	g.wanted[group] = m
	g.order = append(g.order, group)
	return m
}

func (g *groups) dropLocked(group string, err error) {
	m := g.wanted[group]
	if m == nil {
		return
	}
	delete(g.wanted, group)
	g.order = slices.DeleteFunc(g.order, func(s string) bool { return s == group })
	m.tell(err)
}

func (m *membership) tell(err error) {
	for _, w := range m.waiters {
		w <- err
	}
	m.waiters = nil
}

// Join makes this Client a member of a group and returns once the cluster knows: whoever sends to the group from then on, and
// asks how many were reached, reaches this Client. It stays one over reconnects, until Leave. Joining again is no error.
//
// The error holds a *wire.Error if the cluster refused, or is the Client's own. If ctx ends first the error is ctx's, and the
// Client goes on trying.
func (c *Client) Join(ctx context.Context, group string) error {
	if err := wire.ToGroup.ValidateTo(group); err != nil {
		return wire.Errorf(wire.BadRequest, "group: %v", err)
	}
	answer := make(chan error, 1)
	c.mu.Lock()
	switch {
	case c.ended != nil:
		defer c.mu.Unlock()
		return c.ended
	case c.groups.wanted[group] == nil && len(c.groups.wanted) >= wire.MaxGroups:
		c.mu.Unlock()
		return wire.Errorf(wire.Refused, "a client may be in %d groups at most", wire.MaxGroups)
	}
	m := c.groups.wantLocked(group)
	if m.member {
		c.mu.Unlock()
		return nil
	}
	m.waiters = append(m.waiters, answer)
	if c.cur != nil && !m.asking {
		c.memberLocked(c.cur, wire.TypeJoin, group, nil)
		m.asking = true
	}
	c.mu.Unlock()
	return c.answered(ctx, answer)
}

// Leave ends a membership and returns once the node knows. Leaving what one is not in is no error.
func (c *Client) Leave(ctx context.Context, group string) error {
	answer := make(chan error, 1)
	c.mu.Lock()
	if c.ended != nil {
		defer c.mu.Unlock()
		return c.ended
	}
	c.groups.dropLocked(group, &wire.Error{Code: wire.Left, Text: "left again before it was joined"})
	if c.cur == nil || wire.ToGroup.ValidateTo(group) != nil {
		c.mu.Unlock()
		return nil // nobody counts a Client without a session as a member
	}
	c.memberLocked(c.cur, wire.TypeLeave, group, answer)
	c.mu.Unlock()
	return c.answered(ctx, answer)
}

// Groups lists what this Client is in or is trying to be in.
func (c *Client) Groups() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.groups.order)
}

func (c *Client) answered(ctx context.Context, answer chan error) error {
	select {
	case err := <-answer:
		return err
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("no answer yet: %w", context.Cause(ctx))
	}
}

func (c *Client) memberLocked(s *session, what wire.Type, group string, left chan error) {
	c.counter++
	if c.groups.asked == nil {
		c.groups.asked = map[uint64]request{}
	}
	c.groups.asked[c.counter] = request{group, left}
	s.out.append(&wire.Frame{Type: what, To: group, ID: c.counter})
	s.kickLocked()
}

// settleLocked takes a result; false: it is none of a join or leave.
func (g *groups) settleLocked(f *wire.Frame) bool {
	q, ok := g.asked[f.ID]
	if !ok {
		return false
	}
	delete(g.asked, f.ID)
	if q.left != nil {
		q.left <- nil
		return true
	}
	m := g.wanted[q.group]
	if m == nil || !m.asking {
		return true // left again meanwhile
	}
	m.asking = false
	switch {
	case f.Code == wire.Joined:
		m.member = true
		m.tell(nil)
	case f.Code == wire.Unavailable: // the session is about to end; the next one will ask again
	default:
		g.dropLocked(q.group, &wire.Error{Code: f.Code, Text: cloneText(f.Text)})
	}
	return true
}

// takeGroups picks what the login names.
func (s *session) takeGroups() []string {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	order := s.c.groups.order
	s.groups = slices.Clone(order[:wire.LoginGroups(order)])
	return s.groups
}

// joinAllLocked makes s the session whose memberships count. Those that its login named hold already.
func (c *Client) joinAllLocked(s *session) {
	g := &c.groups
	for _, q := range g.asked {
		if q.left != nil {
			q.left <- nil
		}
	}
	g.asked = nil
	named := make(map[string]bool, len(s.groups))
	for _, name := range s.groups {
		named[name] = true
		if g.wanted[name] == nil { // left while the login was under way
			c.memberLocked(s, wire.TypeLeave, name, make(chan error, 1))
		}
	}
	for _, name := range g.order {
		m := g.wanted[name]
		if m.member, m.asking = named[name], !named[name]; m.member {
			m.tell(nil)
		} else {
			c.memberLocked(s, wire.TypeJoin, name, nil)
		}
	}
}

// left takes a node's word that this Client is no longer in a group.
func (c *Client) left(s *session, group string, why *wire.Error) {
	c.mu.Lock()
	m := c.groups.wanted[group]
	if c.cur != s || m == nil || m.asking {
		c.mu.Unlock()
		return
	}
	c.groups.dropLocked(group, why)
	c.mu.Unlock()
	if c.cfg.OnLeft != nil {
		c.cfg.OnLeft(group, why)
	}
}
