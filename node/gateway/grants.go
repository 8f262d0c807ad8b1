package gateway

import (
	"errors"
	"fmt"
	"strings"

	"imroute/mesh/wire"
)

// MaxPatterns bounds the send and the join list of one token, each.
const MaxPatterns = 128

// Grants is what a token lets its client send to and join, compiled when it logs in. A nil Grants, and a nil list within
// one, leaves it to the node's own rules. It never changes once made: safe for many goroutines.
//
// A pattern is KIND:NAME, where NAME may end in "*", which stands for any rest:
//
//	client:bob  client:sensor-*       that client id, and not the user's devices: client:bob/* is needed for these, or client:bob*
//	user:bob    user:*                the user, by whichever of its ids: bob and bob/phone, as kind client or user
//	group:room-*                      groups
//	service:clock                     sending requests to that service; in join: serving it
//	prefix:room-*                     sending to a prefix that begins so (exactly so without the "*")
//	all  others                       everybody of the tenant; everybody but oneself
//	*                                 everything
type Grants struct {
	send, join *patterns
	also       *Grants // what this one lets through, that one must too; nil: no other
	asked      bool    // the operator's login webhook gave it, and no token
}

// And is what both let through; where one does not say, the other decides.
func (g *Grants) And(other *Grants) *Grants {
	if g == nil {
		return other
	}
	if other == nil {
		return g
	}
	both := *other
	for last := &both; ; last = last.also {
		if last.also == nil {
			last.also = g
			return &both
		}
		next := *last.also
		last.also = &next
	}
}

// patterns are by kind; the zero value lets nothing through.
type patterns struct {
	everything bool
	by         [16][]pattern // by kind of address, or of topic
}

// pattern matches a name, or all names that begin with it.
type pattern struct {
	name string
	open bool // ended in "*"
}

func (p pattern) matches(name string) bool {
	if p.open {
		return strings.HasPrefix(name, p.name)
	}
	return name == p.name
}

func anyMatches(list []pattern, name string) bool {
	for _, p := range list {
		if p.matches(name) {
			return true
		}
	}
	return false
}

// ParseGrants compiles the claims of a token: nil: the claim is absent, which leaves it to the node's own rules; empty:
// nothing is allowed. The error names the pattern at fault. Both nil gives nil.
func ParseGrants(send, join *[]string) (*Grants, error) {
	if send == nil && join == nil {
		return nil, nil //nolint:nilnil // no grants is the usual case, and nil is ready for use
	}
	g := &Grants{}
	var err error
	if send != nil {
		if g.send, err = parsePatterns(*send, sendKind); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
	}
	if join != nil {
		if g.join, err = parsePatterns(*join, joinKind); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	return g, nil
}

func sendKind(word string) (kind uint8, bare bool, err error) {
	k, err := wire.ParseKind(word)
	return uint8(k), k == wire.ToAll || k == wire.ToOthers, err
}

func joinKind(word string) (kind uint8, bare bool, err error) {
	k, err := wire.ParseTopicKind(word)
	return uint8(k), false, err
}

func parsePatterns(list []string, kindOf func(string) (uint8, bool, error)) (*patterns, error) {
	if len(list) > MaxPatterns {
		return nil, fmt.Errorf("%d patterns: at most %d", len(list), MaxPatterns)
	}
	p := &patterns{}
	for _, text := range list {
		if text == "*" {
			p.everything = true
			continue
		}
		word, name, named := strings.Cut(text, ":")
		kind, bare, err := kindOf(word)
		if err == nil && int(kind) >= len(p.by) {
			err = fmt.Errorf("kind %s cannot be granted", word)
		}
		if err == nil {
			err = checkPattern(name, named, bare)
		}
		if err != nil {
			return nil, fmt.Errorf("pattern %.80q: %w", text, err)
		}
		open := strings.HasSuffix(name, "*")
		p.by[kind] = append(p.by[kind], pattern{strings.Clone(strings.TrimSuffix(name, "*")), open || bare})
	}
	return p, nil
}

func checkPattern(name string, named, bare bool) error {
	switch {
	case bare && named:
		return errors.New("this kind takes no name")
	case bare:
		return nil
	case !named || name == "":
		return errors.New(`want KIND:NAME, as in "group:room-*"`)
	case len(name) > wire.MaxClientID+1:
		return fmt.Errorf("longer than any name, which have at most %d bytes", wire.MaxClientID)
	case strings.Contains(strings.TrimSuffix(name, "*"), "*"):
		return errors.New(`"*" may only stand at the end`)
	}
	return nil
}

// Send says whether the token lets its client send to an address; decided is false if the token does not say, which leaves
// it to the node. It allocates nothing.
func (g *Grants) Send(kind wire.Kind, to string) (may, decided bool) {
	for ; g != nil; g = g.also {
		if g.send == nil {
			continue
		}
		if !g.send.maySend(kind, to) {
			return false, true
		}
		may, decided = true, true
	}
	return may, decided
}

func (p *patterns) maySend(kind wire.Kind, to string) bool {
	if p.everything {
		return true
	}
	if int(kind) >= len(p.by) {
		return false
	}
	if anyMatches(p.by[kind], to) {
		return true
	}
	if kind == wire.ToClient && len(p.by[wire.ToUser]) > 0 { // a user has been granted by whichever of its ids
		user, _, _ := strings.Cut(to, "/")
		return anyMatches(p.by[wire.ToUser], user)
	}
	return false
}

// Join is Send for becoming a member of a topic.
func (g *Grants) Join(kind wire.TopicKind, name string) (may, decided bool) {
	for ; g != nil; g = g.also {
		p := g.join
		if p == nil {
			continue
		}
		if !p.everything && (int(kind) >= len(p.by) || !anyMatches(p.by[kind], name)) {
			return false, true
		}
		may, decided = true, true
	}
	return may, decided
}

// RefusesSend says in words who refuses what Send does, and RefusesJoin what Join does.
func (g *Grants) RefusesSend(kind wire.Kind, to string) string {
	return g.refuser(func(g *Grants) bool { return g.send != nil && !g.send.maySend(kind, to) })
}

// RefusesJoin is RefusesSend for becoming a member of a topic.
func (g *Grants) RefusesJoin(kind wire.TopicKind, name string) string {
	return g.refuser(func(g *Grants) bool {
		p := g.join
		return p != nil && !p.everything && (int(kind) >= len(p.by) || !anyMatches(p.by[kind], name))
	})
}

func (g *Grants) refuser(refuses func(*Grants) bool) string {
	for ; g != nil; g = g.also {
		if g.asked && refuses(g) {
			return "the operator's login webhook"
		}
	}
	return "the token"
}

// Grants is what the session's token allows; nil: it says nothing. Valid once Backend.Login is called.
func (s *Session) Grants() *Grants { return s.grants }

// Restrict adds what the backend knows about what the client may do to what its token says: both must allow it. Only Backend.Login
// may call it, before it opens the session.
func (s *Session) Restrict(g *Grants) {
	if g != nil {
		asked := *g
		asked.asked = true
		g = &asked
	}
	s.grants = s.grants.And(g)
}
