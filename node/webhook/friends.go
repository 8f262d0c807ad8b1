package webhook

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// FriendsConfig is an AskConfig and how long answers are kept.
type FriendsConfig struct {
	Ask AskConfig
	TTL time.Duration // an answer serves that long; failures are not kept. 0: 30 s; negative: every watch asks
	Max int           // bytes of answers that are kept at most; those not asked for longest go first. 0: 16 MiB

	now func() time.Time // for tests
}

// Friends asks a back end who somebody's friends are. It is a source for a node's list "friends". Safe for many goroutines.
type Friends struct {
	asker *Asker
	ttl   time.Duration
	max   int
	now   func() time.Time

	mu   sync.Mutex
	by   map[wire.ClientID]*list.Element // of old
	old  *list.List                      // of *friendList, the last one asked for in front
	size int                             // bytes of all
}

type friendList struct {
	of    wire.ClientID
	ids   []string // not changed any more
	until time.Time
	size  int
}

// NewFriends checks the configuration; nothing is asked yet.
func NewFriends(cfg FriendsConfig) (*Friends, error) {
	a, err := NewAsker(cfg.Ask)
	if err != nil {
		return nil, err
	}
	def(&cfg.TTL, 30*time.Second)
	def(&cfg.Max, 16<<20)
	if cfg.now == nil {
		cfg.now = time.Now
	}
	return &Friends{asker: a, ttl: cfg.TTL, max: cfg.Max, now: cfg.now, by: map[wire.ClientID]*list.Element{}, old: list.New()}, nil
}

// Friends is whom the back end names for a client; the slice must not be changed. 404 means that nobody is.
func (f *Friends) Friends(ctx context.Context, client wire.ClientID) ([]string, error) {
	if ids, ok := f.kept(client); ok {
		return ids, nil
	}
	var friends []string // nil: there is no answer
	err := f.asker.Ask(ctx, struct {
		Of Login `json:"friends_of"`
	}{Login{Client: client.ID, Tenant: client.Tenant, User: client.User()}}, func(name string, value json.RawMessage) (err error) {
		if name != "friends" {
			return unknown(name, `{"friends":[…]}`)
		}
		if friends, err = wire.Strings(value); err != nil {
			return errors.New("friends must be a list of client ids, each a string")
		}
		return nil
	})
	var denied *Denied
	switch {
	case errors.As(err, &denied) && denied.Status == http.StatusNotFound:
		friends = []string{}
	case denied != nil:
		return nil, fmt.Errorf("it refuses: %w", denied)
	case err != nil:
		return nil, fmt.Errorf("no answer from the back end that knows friend lists: %w", err)
	case friends == nil:
		return nil, errors.New(`the back end's answer has no "friends"`)
	}
	ids := friends[:min(len(friends), wire.MaxWatches)]
	f.keep(client, ids)
	return ids, nil
}

func (f *Friends) kept(of wire.ClientID) ([]string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.by[of]
	if e == nil {
		return nil, false
	}
	l := e.Value.(*friendList)
	if !f.now().Before(l.until) {
		f.dropLocked(e)
		return nil, false
	}
	f.old.MoveToFront(e)
	return l.ids, true
}

func (f *Friends) keep(of wire.ClientID, ids []string) {
	if f.ttl < 0 {
		return
	}
	l := &friendList{of: of, ids: ids, until: f.now().Add(f.ttl), size: 200 + len(of.ID) + len(of.Tenant)}
	for _, id := range ids {
		l.size += 16 + len(id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.by[of]; e != nil {
		f.dropLocked(e)
	}
	f.by[of] = f.old.PushFront(l)
	f.size += l.size
	for f.size > f.max && f.old.Len() > 0 {
		f.dropLocked(f.old.Back())
	}
}

func (f *Friends) dropLocked(e *list.Element) {
	l := f.old.Remove(e).(*friendList)
	delete(f.by, l.of)
	f.size -= l.size
}

// Close gives idle connections back.
func (f *Friends) Close() {
	if f != nil {
		f.asker.Close()
	}
}
