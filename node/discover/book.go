package discover

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"imroute/mesh/wire"
)

const (
	maxPeers    = 1024            // nodes remembered at a time; more are not heard
	memberEvery = 2 * time.Second // between two announcements of a member that nobody asks
	memberTTL   = 3*memberEvery + memberEvery/2
)

// book is what a node has heard and what follows from it: the whole protocol, without clock, network or lock. Times are
// durations since any fixed moment.
type book struct {
	// fixed
	self   Announcement // Node, Instance, Name, Dev, Expect
	wait   time.Duration
	seeker time.Duration // between two announcements of a seeker

	state   State
	cluster uint64 // with Member, as caHash and mesh
	caHash  [32]byte
	mesh    string
	seq     uint64
	peers   map[wire.NodeID]*peer
	changed time.Duration // since when the seekers heard have been these, and no founder or member
	echo    time.Duration // when it heard itself last
	echoed  bool
	alien   alien
	twin    string // where another process with this node's id is
	double  double // who may be one
}

type peer struct {
	Announcement
	from  string        // where the packet came from
	since time.Duration // when it was heard of first in its present state
	at    time.Duration // when it was heard last
	fresh time.Duration // when it last named this process; only if proven
	prove bool          // it has named this process
}

// alien is a sender of our cluster's name whom we cannot understand; only the last is remembered.
type alien struct {
	at    time.Duration
	any   bool
	state State
	from  string
	why   error
}

func newBook(self Announcement, wait, now time.Duration) *book {
	return &book{
		self: self, wait: wait, seeker: min(250*time.Millisecond, max(wait/12, 10*time.Millisecond)),
		state: Seeking, peers: map[wire.NodeID]*peer{}, changed: now,
	}
}

func (b *book) me() Seen { return Seen{Node: b.self.Node, Instance: b.self.Instance} }

func (p *peer) seen() Seen { return Seen{Node: p.Node, Instance: p.Instance} }

// every is the time between two announcements when nothing happens.
func (b *book) every() time.Duration {
	if b.state == Member {
		return memberEvery
	}
	return b.seeker
}

func (b *book) ttl(s State) time.Duration {
	if s == Member {
		return max(b.wait, memberTTL)
	}
	return b.wait
}

// hear takes an announcement that was checked. answer tells whether its sender should soon hear this node's.
func (b *book) hear(a *Announcement, from string, now time.Duration) (answer bool) {
	b.expire(now)
	if a.Node == b.self.Node {
		if a.Instance == b.self.Instance {
			b.echo, b.echoed = now, true
		} else {
			b.hearDouble(a, from, now)
		}
		return false
	}
	named := a.names(b.me())
	p := b.peers[a.Node]
	switch {
	case p == nil:
		if len(b.peers) >= maxPeers {
			return false
		}
		p = &peer{since: now}
		b.peers[a.Node] = p
		b.changed = now
	case p.Instance == a.Instance:
		if a.Seq <= p.Seq {
			return false // a copy, from another interface or played again
		}
		if p.State != a.State {
			p.since = now
			b.changed = now
		}
	case p.prove && !named:
		// Another process of that node, while one that is proven alive has not been silent for long: most likely an old
		// announcement. If it was restarted, it will name us when it has heard us.
		return b.state == Member && a.State != Member
	default:
		*p = peer{since: now}
		b.changed = now
	}
	p.Announcement, p.from, p.at = *a, from, now
	if named {
		p.fresh, p.prove = now, true
	}
	return b.state != Seeking && (a.State != Member || !named && a.Cluster != b.cluster)
}

// double is another process under this node's id. What this node's former process said just before it ended is none.
type double struct {
	Seen
	seq   uint64
	since time.Duration
}

func (b *book) hearDouble(a *Announcement, from string, now time.Duration) {
	d := &b.double
	switch {
	case d.Instance != a.Instance:
		*d = double{Seen{Node: a.Node, Instance: a.Instance}, a.Seq, now}
	case a.Seq > d.seq:
		d.seq = a.Seq
		if now-d.since >= b.wait/2 {
			b.twin = from
		}
	}
}

// hearAlien notes somebody who uses our cluster's name and whom we cannot understand.
func (b *book) hearAlien(state State, from string, why error, now time.Duration) {
	if b.alien.any && b.alien.state == Member && state != Member && now-b.alien.at <= b.wait {
		return // a member matters more
	}
	b.alien = alien{at: now, any: true, state: state, from: from, why: why}
}

// expire forgets whom it has not heard for long.
func (b *book) expire(now time.Duration) {
	for id, p := range b.peers {
		if now-p.at > b.ttl(p.State) {
			delete(b.peers, id)
			b.changed = now
		}
	}
}

// view is the seekers heard, this node included, sorted: the maxView lowest of them. The lowest of all is in everybody's,
// and those beyond never found, so they need not be agreed on.
func (b *book) view() []Seen {
	list := []Seen{b.me()}
	for _, p := range b.peers {
		if p.State == Seeking {
			list = append(list, p.seen())
		}
	}
	return lowest(list)
}

func lowest(list []Seen) []Seen {
	slices.SortFunc(list, func(x, y Seen) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Instance, y.Instance))
	})
	return list[:min(len(list), maxView)]
}

// compose is the next announcement.
func (b *book) compose(now time.Duration) *Announcement {
	b.expire(now)
	b.seq++
	a := b.self
	a.State, a.Seq = b.state, b.seq
	if b.state == Seeking {
		a.View = b.view()
		return &a
	}
	a.Cluster, a.CAHash, a.Mesh = b.cluster, b.caHash, b.mesh
	for _, p := range b.peers { // those who wait for a sign that this is not an old announcement
		if p.State != Member || p.Cluster != b.cluster {
			a.View = append(a.View, p.seen())
		}
	}
	a.View = lowest(a.View)
	return &a
}

// verdict is what a seeker should do. With neither found nor members nor err it waits, and why tells for what.
type verdict struct {
	found   bool
	members []Peer
	err     error
	why     string
}

// decide is asked again and again while seeking. Once it has answered found, the node is Founding.
//
// Why no two nodes x < y that hear each other at least once in each wait both found: let x found at t. It heard y in the
// wait before t, or y was not seeking then. If it did, y was in x's view and y's own view, as x heard it, was x's, so it had
// x in it. x has announced itself as seeking, founding or member ever since, so y hears it in each wait and never has a
// view of which it is the lowest, nor one without founder or member, for a whole wait. If y was not seeking before t, it
// hears x after t, as founding or member, in the wait that it would have to pass before it founds. The other way round, y
// cannot found first: x is in the view of y, and lower.
func (b *book) decide(now time.Duration) verdict {
	b.expire(now)
	if b.twin != "" {
		return verdict{err: fmt.Errorf("another process announces this node's id %s, from %s: was the data folder copied? Give each node a folder of its own", b.self.Node, b.twin)}
	}
	if members, err := b.members(); err != nil || len(members) > 0 {
		if err == nil && now-b.memberSince() < min(b.wait/6, 500*time.Millisecond) {
			return verdict{why: "a member was found; listening whether there is only one cluster"}
		}
		return verdict{members: members, err: err}
	}
	for _, p := range b.peers {
		if p.State == Founding {
			return verdict{why: fmt.Sprintf("node %s (%s) is founding the cluster", p.Name, p.from)}
		}
	}
	view := b.view()
	expect, seekers := b.self.Expect, 1
	for _, p := range b.peers {
		expect, seekers = max(expect, p.Expect), seekers+1
	}
	alien := b.alien.any && now-b.alien.at <= b.wait
	left := b.changed + b.wait - now
	switch {
	case left > 0:
		return verdict{why: fmt.Sprintf("listening; %d node(s) seek the cluster, this one included", seekers)}
	case alien && seekers == 1 && b.alien.state == Member:
		return verdict{err: alienError(b.alien)}
	case alien && seekers == 1:
		return verdict{why: alienError(b.alien).Error() + "; nobody founds the cluster until that is cleared up"}
	case seekers < int(expect):
		return verdict{why: fmt.Sprintf("%d of %d nodes are there; the cluster is founded when all are (--bootstrap-expect)", seekers, expect)}
	case !b.echoed || now-b.echo > b.wait:
		return verdict{why: "this node does not hear its own announcements: is multicast (UDP, the discovery port) blocked by a firewall, or the interface down?"}
	case view[0] != b.me():
		return verdict{why: fmt.Sprintf("node %s has the lowest id and founds the cluster", b.describe(view[0].Node))}
	}
	for _, p := range b.peers {
		if slices.Contains(view, p.seen()) && !slices.Equal(p.View, view) {
			return verdict{why: fmt.Sprintf("node %s does not hear the same nodes as this one; if this lasts, multicast does not reach everybody: found the cluster with --bootstrap and join it with --join", b.describe(p.Node))}
		}
	}
	b.state = Founding
	return verdict{found: true}
}

func (b *book) describe(id wire.NodeID) string {
	if p := b.peers[id]; p != nil {
		return fmt.Sprintf("%s (%s)", p.Name, p.from)
	}
	return id.String()
}

func alienError(a alien) error {
	if errors.Is(a.why, errVersion) {
		return fmt.Errorf("%s announces this cluster in another version of the protocol: install the same version everywhere", a.from)
	}
	return fmt.Errorf("%s announces a cluster of this name with another secret: check --secret, which must be the same on every node (or choose another --cluster name for another cluster)", a.from)
}

// members are those that can be joined. Those that are proven to be alive come first; if there are any, they alone decide
// which cluster it is.
func (b *book) members() ([]Peer, error) {
	var list []*peer
	proven := false
	for _, p := range b.peers {
		if p.State == Member {
			list = append(list, p)
			proven = proven || p.prove
		}
	}
	slices.SortFunc(list, func(x, y *peer) int { return cmp.Compare(x.Node, y.Node) })
	var out []Peer
	for _, p := range list {
		if proven && !p.prove {
			continue
		}
		if proven && len(out) > 0 && out[0].Cluster != p.Cluster {
			return nil, &TwoClustersError{out[0], p.peer()}
		}
		out = append(out, p.peer())
	}
	return out, nil
}

// foreign are members of other clusters under our name and secret, proven to be alive.
func (b *book) foreign(now time.Duration) []Peer {
	b.expire(now)
	if b.state != Member {
		return nil
	}
	var out []Peer
	for _, p := range b.peers {
		if p.State == Member && p.Cluster != b.cluster && p.prove && now-p.fresh <= b.ttl(Member) {
			out = append(out, p.peer())
		}
	}
	slices.SortFunc(out, func(x, y Peer) int { return cmp.Compare(x.Node, y.Node) })
	return out
}

// memberSince is when the first of the members was heard of.
func (b *book) memberSince() time.Duration {
	first := time.Duration(math.MaxInt64)
	for _, p := range b.peers {
		if p.State == Member {
			first = min(first, p.since)
		}
	}
	return first
}

func (p *peer) peer() Peer {
	return Peer{Node: p.Node, Name: p.Name, Mesh: p.Mesh, Cluster: p.Cluster, CAHash: p.CAHash, Dev: p.Dev}
}

// become makes the node a member.
func (b *book) become(cluster uint64, caHash [32]byte, mesh string) {
	b.state, b.cluster, b.caHash, b.mesh = Member, cluster, caHash, mesh
}
