package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// Presence is whether somebody is online.
type Presence struct {
	Client string
	Online bool
	Node   string     // online: where
	Epoch  wire.Epoch // rises with each session; offline: of the last one, 0 if not known
	Since  time.Time  // online: when the session began; zero if not known
}

// watches is what a Client watches. Guarded by Client.mu.
type watches struct {
	by    map[string]map[*watch]struct{} // by id
	lists map[*watch]struct{}            // of friends
	asked map[uint64]*watch              // watch frames without a result; nil: an unwatch
}

// watch is one call of Watch or WatchFriends.
type watch struct {
	ids  []string
	list string
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	changed map[string]Presence // not told yet
	order   []string            // of changed
	err     error               // the cluster refused

	told map[string]Presence // owned by the goroutine that called
}

// Watch tells f who of ids is online: first the present state of each, as soon as it is known, then every change, until ctx
// ends (whose cause it returns), the Client ends, or the cluster refuses. A user's id without "/" stands for all his devices:
// online if any is. It goes on over reconnects.
//
// f runs on the caller's goroutine, for one state at a time; those of one id come in order, with epochs that never fall, and an
// online state of an epoch never after the offline one. What changes while f runs is told afterwards, the latest state only. At
// most wire.MaxWatches ids, together with those of other calls.
func (c *Client) Watch(ctx context.Context, ids []string, f func(Presence)) error {
	for _, id := range ids {
		if err := (wire.ClientID{ID: id}).Validate(); err != nil {
			return wire.Errorf(wire.BadRequest, "watch: %v", err)
		}
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) == 0 || len(ids) > wire.MaxWatches {
		return wire.Errorf(wire.BadRequest, "watch: %d ids: want 1 to %d", len(ids), wire.MaxWatches)
	}
	return c.watch(ctx, &watch{ids: ids}, f)
}

// WatchFriends is Watch for those whom the cluster's friend source names for this client, as it does when the watch begins
// and after each reconnect.
func (c *Client) WatchFriends(ctx context.Context, f func(Presence)) error {
	return c.watch(ctx, &watch{list: wire.FriendsList}, f)
}

func (c *Client) watch(ctx context.Context, w *watch, f func(Presence)) error {
	w.wake, w.changed, w.told = make(chan struct{}, 1), map[string]Presence{}, map[string]Presence{}
	c.mu.Lock()
	if c.ended != nil {
		defer c.mu.Unlock()
		return c.ended
	}
	ws := &c.watches
	if ws.by == nil {
		ws.by, ws.lists = map[string]map[*watch]struct{}{}, map[*watch]struct{}{}
	}
	for _, id := range w.ids {
		if ws.by[id] == nil {
			ws.by[id] = map[*watch]struct{}{}
		}
		ws.by[id][w] = struct{}{}
	}
	if w.list != "" {
		ws.lists[w] = struct{}{}
	}
	if c.cur != nil {
		c.watchLocked(c.cur, w)
	}
	c.mu.Unlock()
	defer c.unwatch(w)
	for {
		for _, p := range w.take() {
			if w.news(&p) {
				f(p)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if err := w.refused(); err != nil {
			return err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return c.Err()
		}
	}
}

// news says whether a state adds something to what was told, and completes it.
func (w *watch) news(p *Presence) bool {
	last, known := w.told[p.Client]
	switch {
	case !known:
	case p.Online && (p.Epoch < last.Epoch || p.Epoch == last.Epoch && !last.Online):
		return false // of a node that is behind
	case p.Online:
		if last.Online && p.Epoch == last.Epoch && p.Node == last.Node && (p.Since.IsZero() || p.Since.Equal(last.Since) || !last.Since.IsZero()) {
			return false
		}
	case !last.Online, p.Epoch != 0 && p.Epoch < last.Epoch:
		return false
	default:
		p.Epoch = max(p.Epoch, last.Epoch)
	}
	w.told[p.Client] = *p
	return true
}

func (w *watch) take() []Presence {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Presence, 0, len(w.order))
	for _, id := range w.order {
		out = append(out, w.changed[id])
	}
	clear(w.changed)
	w.order = w.order[:0]
	return out
}

func (w *watch) refused() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *watch) put(p Presence) {
	w.mu.Lock()
	if _, waits := w.changed[p.Client]; !waits {
		w.order = append(w.order, p.Client)
	}
	w.changed[p.Client] = p
	w.mu.Unlock()
	signal(w.wake)
}

// watchLocked asks a session for what w wants.
func (c *Client) watchLocked(s *session, w *watch) {
	ask := func(ids []string, list string) {
		c.counter++
		if c.watches.asked == nil {
			c.watches.asked = map[uint64]*watch{}
		}
		c.watches.asked[c.counter] = w
		s.out.append(&wire.Frame{Type: wire.TypeWatch, IDs: ids, To: list, ID: c.counter})
	}
	if w.list != "" {
		ask(nil, w.list)
	}
	for ids := w.ids; len(ids) > 0; {
		n := wire.WatchIDs(ids)
		ask(ids[:n], "")
		ids = ids[n:]
	}
	s.kickLocked()
}

// watchAllLocked asks a new session for everything.
func (c *Client) watchAllLocked(s *session) {
	c.watches.asked = nil
	all := maps.Clone(c.watches.lists)
	for _, ws := range c.watches.by {
		for w := range ws {
			if all == nil {
				all = map[*watch]struct{}{}
			}
			all[w] = struct{}{}
		}
	}
	for w := range all {
		c.watchLocked(s, w)
	}
}

// unwatch ends w and tells the node whom nobody watches any more.
func (c *Client) unwatch(w *watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ws := &c.watches
	var gone []string
	for _, id := range w.ids {
		delete(ws.by[id], w)
		if len(ws.by[id]) == 0 {
			delete(ws.by, id)
			gone = append(gone, id)
		}
	}
	delete(ws.lists, w)
	for id, other := range ws.asked {
		if other == w {
			ws.asked[id] = nil
		}
	}
	if c.cur == nil || c.ended != nil {
		return
	}
	tell := func(ids []string, list string) {
		c.counter++
		if ws.asked == nil {
			ws.asked = map[uint64]*watch{}
		}
		ws.asked[c.counter] = nil
		c.cur.out.append(&wire.Frame{Type: wire.TypeUnwatch, IDs: ids, To: list, ID: c.counter})
	}
	if w.list != "" && len(ws.lists) == 0 {
		tell(nil, w.list)
		// Friends who are watched by name as well went with the list.
		for ids := slices.Sorted(maps.Keys(ws.by)); len(ids) > 0; {
			n := wire.WatchIDs(ids)
			c.counter++
			ws.asked[c.counter] = nil
			c.cur.out.append(&wire.Frame{Type: wire.TypeWatch, IDs: ids[:n], ID: c.counter})
			ids = ids[n:]
		}
	}
	for len(gone) > 0 && len(ws.lists) == 0 { // a friend may be among them; the few that are not end with the session
		n := wire.WatchIDs(gone)
		tell(gone[:n], "")
		gone = gone[n:]
	}
	c.cur.kickLocked()
}

// settleLocked takes a result; false: it is none of a watch.
func (ws *watches) settleLocked(f *wire.Frame) bool {
	w, ok := ws.asked[f.ID]
	if !ok {
		return false
	}
	delete(ws.asked, f.ID)
	if w != nil && f.Code != wire.OK {
		w.mu.Lock()
		w.err = fmt.Errorf("watch: %w", &wire.Error{Code: f.Code, Text: cloneText(f.Text)})
		w.mu.Unlock()
		signal(w.wake)
	}
	return true
}

// saw takes a presence frame.
func (c *Client) saw(s *session, f *wire.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur != s {
		return // its successor tells all anew
	}
	var p Presence
	put := func(w *watch) {
		if p.Client == "" {
			p = Presence{Client: strings.Clone(f.Client), Online: f.Online != 0, Node: strings.Clone(f.Node), Epoch: f.Epoch}
			if f.Since != 0 {
				p.Since = time.UnixMilli(int64(f.Since))
			}
		}
		w.put(p)
	}
	for w := range c.watches.by[f.Client] {
		put(w)
	}
	if f.To != "" {
		for w := range c.watches.lists {
			put(w)
		}
	}
}
