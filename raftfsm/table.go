package raftfsm

import (
	"fmt"
	"sync/atomic"

	"imroute/mesh/wire"
)

// Table is the state machine: what all members agree on. It has no lock, no clock and no I/O; whoever shares it between
// goroutines brings the lock, see FSM. The zero value is not usable, see NewTable.
type Table struct {
	meta
	nodes   map[wire.NodeID]*member
	byName  map[string]*member
	removed map[wire.NodeID]uint64 // ids refused for ever, with the index of their removal: sixteen bytes an operator's action
	tokens  map[string]Token
	keys    map[string]APIKey

	owners  owners
	stripes [stripes]stripe
	rows    int // void ones included
	w       writer
	grabs   *atomic.Int64 // open grabs; shared with them, as they are closed from anywhere
	sweep   sweep

	topics      topics
	maxHoldings int // MaxHoldings, but in tests
}

// meta is the part of the state that fits into one record.
type meta struct {
	ClusterID    uint64   `cbor:"1,keyasint"`
	Generation   uint16   `cbor:"2,keyasint"`
	Epochs       uint64   `cbor:"3,keyasint"` // the counter last given out
	FeatureLevel uint32   `cbor:"4,keyasint"`
	Settings     Settings `cbor:"5,keyasint"`
	CACert       []byte   `cbor:"6,keyasint"`
}

// member is a node with what only the table needs to know of it.
type member struct {
	Node
	batch lastBatch
	owner uint32 // its ordinal while it is not Down
}

// lastBatch is what a copy of an incarnation's last batch is answered with.
type lastBatch struct {
	Seq    uint64 `cbor:"1,keyasint,omitempty"`
	Digest uint64 `cbor:"2,keyasint,omitempty"` // of the ops, so that another batch under the same number is noticed
	Result Result `cbor:"3,keyasint,omitzero"`
}

// NewTable makes the table of a cluster that does not exist yet: the first command has to be Init.
func NewTable() *Table {
	t := &Table{
		meta:    meta{FeatureLevel: BaseFeatureLevel, Settings: Settings{}.withDefaults()},
		nodes:   make(map[wire.NodeID]*member),
		byName:  make(map[string]*member),
		removed: make(map[wire.NodeID]uint64),
		tokens:  make(map[string]Token),
		keys:    make(map[string]APIKey),
		grabs:   new(atomic.Int64),

		maxHoldings: MaxHoldings,
	}
	for i := range t.stripes {
		t.stripes[i].root = newDir(&t.w)
		t.topics.stripes[i] = newDir(&t.topics.w)
	}
	return t
}

// Apply executes one command, the entry at index of that Raft term, and answers it. It keeps strings and byte slices of c.
func (t *Table) Apply(index, term uint64, c *Command) Result {
	return t.apply(noHost{}, index, term, c)
}

func (t *Table) apply(h host, index, term uint64, c *Command) Result {
	t.w.shared = t.grabs.Load() > 0
	t.topics.w.shared = t.w.shared
	r := t.execute(h, index, term, c)
	if r.Index == 0 {
		r.Index = index
	}
	t.reclaim(h)
	t.reclaimTopics(h)
	return r
}

func (t *Table) execute(h host, index, term uint64, c *Command) Result {
	if err := c.checkFields(); err != nil {
		return refuse(wire.BadRequest, "%s: %v", c.Kind, err)
	}
	if c.Kind == KindNoop {
		return Result{Code: wire.OK}
	}
	if t.ClusterID == 0 && c.Kind != KindInit {
		return refuse(wire.Refused, "the cluster has not been initialised")
	}
	if c.Kind != KindInit && c.needs() > t.FeatureLevel {
		return refuse(wire.BadRequest, "%s needs feature level %d, the cluster agreed on %d", c.Kind, c.needs(), t.FeatureLevel)
	}
	if c.Kind == KindBatch {
		return t.batch(h, index, c)
	}
	h.lockAll()
	r, events := t.change(index, term, c)
	h.unlockAll()
	for _, e := range events {
		e.Index = index
		h.emit(e)
	}
	return r
}

// change executes what is not a batch. All of it is O(1) in the number of routes.
func (t *Table) change(index, term uint64, c *Command) (Result, []Event) {
	switch c.Kind {
	case KindInit:
		return t.init(c), nil
	case KindNodeJoin:
		return t.nodeJoin(index, c)
	case KindNodeUp:
		return t.nodeUp(c)
	case KindNodeExpire:
		return t.nodeExpire(term, c)
	case KindNodeDrain:
		return t.nodeDrain(c)
	case KindNodeDown:
		return t.nodeDown(c)
	case KindNodeRole:
		return t.nodeRole(c)
	case KindNodeRemove:
		return t.nodeRemove(index, c)
	case KindTokenCreate:
		return t.tokenCreate(c), nil
	case KindTokenRevoke:
		if _, ok := t.tokens[c.ID]; !ok {
			return refuse(wire.Refused, "there is no token %q", c.ID), nil
		}
		delete(t.tokens, c.ID)
		return Result{Code: wire.OK}, nil
	case KindKeyCreate:
		return t.keyCreate(c), nil
	case KindKeyRevoke:
		return t.keyRevoke(c), nil
	case KindSetSettings:
		t.Settings = c.Settings.withDefaults()
		return Result{Code: wire.OK}, nil
	case KindFeatureLevel:
		if c.Level < t.FeatureLevel {
			return refuse(wire.Refused, "feature level is %d already and never goes down", t.FeatureLevel), nil
		}
		t.FeatureLevel = c.Level
		return Result{Code: wire.OK}, nil
	case KindRecover:
		return t.recover(c)
	}
	return refuse(wire.BadRequest, "unknown command kind %d", c.Kind), nil
}

func (t *Table) init(c *Command) Result {
	if t.ClusterID != 0 {
		if t.ClusterID != c.ClusterID {
			return refuse(wire.Refused, "this is cluster %016x already", t.ClusterID)
		}
		return Result{Code: wire.OK}
	}
	t.ClusterID = c.ClusterID
	t.CACert, t.Settings = c.CACert, c.Settings.withDefaults()
	t.FeatureLevel = max(t.FeatureLevel, c.Level)
	return Result{Code: wire.OK}
}

func (t *Table) tokenCreate(c *Command) Result {
	old, ok := t.tokens[c.ID]
	switch {
	case ok && string(old.Hash) == string(c.Hash) && old.ExpiresUnix == c.ExpiresUnix:
		return Result{Code: wire.OK}
	case ok:
		return refuse(wire.Refused, "there is another token %q: choose another id", c.ID)
	case len(t.tokens) >= MaxTokens:
		return refuse(wire.Refused, "%d join tokens exist: revoke some", len(t.tokens))
	}
	t.tokens[c.ID] = Token{c.ID, c.Hash, c.ExpiresUnix}
	return Result{Code: wire.OK}
}

// recover starts a new generation: whoever still holds an epoch of an earlier one has lost.
func (t *Table) recover(c *Command) (Result, []Event) {
	if c.Generation <= t.Generation {
		return refuse(wire.Refused, "generation is %d already", t.Generation), nil
	}
	t.Generation, t.Epochs = c.Generation, 0
	var events []Event
	for _, m := range t.sorted() {
		events = append(events, t.down(m)...)
	}
	return Result{Code: wire.OK}, events
}

// Lookup returns the live route of a client. It does not allocate.
func (t *Table) Lookup(c wire.ClientID) (Route, bool) {
	k := makeKey(c)
	return t.lookup(&t.stripes[stripeOf(k.h)], k)
}

func (t *Table) lookup(s *stripe, k key) (Route, bool) {
	pl, ok := s.find(k)
	if !ok {
		return Route{}, false
	}
	v := pl.page().value(pl.off)
	o := t.owners.list[v.owner]
	if !o.live {
		return Route{}, false
	}
	return Route{Client: k.ClientID, Node: o.node, Incarnation: o.inc, Session: v.session, Epoch: v.epoch}, true
}

// Hash is the logical hash: equal on all members that applied the same log, see View.Hash.
func (t *Table) Hash() uint64 {
	v := t.Grab(0)
	defer v.Close()
	return v.Hash()
}

func refuse(code wire.Code, format string, args ...any) Result {
	return Result{Code: code, Text: fmt.Sprintf(format, args...)}
}
