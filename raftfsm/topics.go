package raftfsm

import (
	"cmp"
	"math/bits"
	"slices"
	"unsafe"

	"imroute/mesh/wire"
)

// MaxHoldings bounds the live (topic, incarnation) pairs of all topics together, and so their memory: a Join beyond it is
// answered OpOverloaded. A topic with holders on all of three nodes counts three times.
const MaxHoldings = 4_000_000

// Holder is an incarnation of a node that has at least one member of a topic.
type Holder struct {
	Node        wire.NodeID
	Incarnation wire.Incarnation
}

// Topics lie in pages like routes do, one row for each topic and block of ordinals: the 28 bytes that a route has for its owner
// and session are a bit set here, of the owners numbered block*224 and up. A cluster of some two hundred incarnations keeps each
// topic in one row, whatever number of them holds it. Nothing in a row is a pointer.
const (
	blockWords = 7
	blockBits  = 32 * blockWords
	blockKey   = 3 // bytes in front of the tenant of a row's key: kind, block
)

// topicBuf is where the key of a row is put together, on the caller's stack.
type topicBuf [blockKey + wire.MaxTenant]byte

// topicKey makes the key of a topic's row for a block of owners. It shares memory with buf.
func topicKey(buf *topicBuf, t wire.Topic, block int) key {
	buf[0], buf[1], buf[2] = byte(t.Kind), byte(block), byte(block>>8)
	n := copy(buf[blockKey:], t.Tenant)
	c := wire.ClientID{Tenant: unsafe.String(&buf[0], blockKey+n), ID: t.Name}
	return key{hid: c.HashID(), ClientID: c}
}

// topicAt reads a row's key. The topic shares memory with the page.
func topicAt(p page, off int) (t wire.Topic, block int) {
	c := p.client(off)
	return wire.Topic{Kind: wire.TopicKind(c.Tenant[0]), Tenant: c.Tenant[blockKey:], Name: c.ID}, int(c.Tenant[1]) | int(c.Tenant[2])<<8
}

func topicStripe(t wire.Topic) int { return stripeOf(t.HashID()) }

func (p page) word(off, i int) uint32       { return le.Uint32(p[off+4*i:]) }
func (p page) setWord(off, i int, x uint32) { le.PutUint32(p[off+4*i:], x) }

// eachHolder calls f with every owner of a row of a topic, void ones included, in rising order.
func (p page) eachHolder(off, block int, f func(ord uint32)) {
	for i := range blockWords {
		for x := p.word(off, i); x != 0; x &= x - 1 {
			f(uint32(block*blockBits + 32*i + bits.TrailingZeros32(x)))
		}
	}
}

// topics is the side of the table that knows who holds which topic. It is locked with the stripes of the routes.
type topics struct {
	stripes  [stripes]dir // by the hash of the topic, then by that of the row's key
	w        writer
	holdings int // pairs of topic and owner, void ones included
	sweep    struct{ stripe, entry int }
}

func placeOf(d *dir, k key) (place, bool) {
	i, off := d.findByID(k)
	return place{d, i, off}, off != 0
}

// topicOp executes a Join or Leave for the node whose live incarnation is ord.
func (t *Table) topicOp(ord uint32, op *Op) OpResult {
	if op.Kind == Join {
		return t.join(op.Topic, ord)
	}
	return t.leave(op.Topic, ord)
}

// join makes ord a holder of a topic. It is one already as often as it likes.
func (t *Table) join(topic wire.Topic, ord uint32) OpResult {
	var buf topicBuf
	k := topicKey(&buf, topic, int(ord/blockBits))
	d := &t.topics.stripes[topicStripe(topic)]
	word, bit := int(ord%blockBits/32), uint32(1)<<(ord%32)
	pl, found := placeOf(d, k)
	if found && pl.page().word(pl.off, word)&bit != 0 {
		return OpResult{Code: OpOK}
	}
	if t.topics.holdings-t.owners.voidTopics >= t.maxHoldings { // only live ones: void ones may be gone already elsewhere
		return OpResult{Code: OpOverloaded}
	}
	if !found {
		d.insertByID(&t.topics.w, k, rowValue{})
		pl, _ = placeOf(d, k)
	}
	p := pl.own(&t.topics.w)
	p.setWord(pl.off, word, p.word(pl.off, word)|bit)
	t.topics.holdings++
	t.owners.topics[ord]++
	return OpResult{Code: OpOK}
}

// leave ends what join began.
func (t *Table) leave(topic wire.Topic, ord uint32) OpResult {
	var buf topicBuf
	k := topicKey(&buf, topic, int(ord/blockBits))
	d := &t.topics.stripes[topicStripe(topic)]
	word, bit := int(ord%blockBits/32), uint32(1)<<(ord%32)
	pl, found := placeOf(d, k)
	if !found || pl.page().word(pl.off, word)&bit == 0 {
		return OpResult{Code: OpOK}
	}
	p := pl.own(&t.topics.w)
	p.setWord(pl.off, word, p.word(pl.off, word)&^bit)
	t.topics.holdings--
	t.owners.topics[ord]--
	if p.unheld(pl.off) {
		d.removeByID(&t.topics.w, k, pl)
	}
	return OpResult{Code: OpOK}
}

func (p page) unheld(off int) bool {
	for i := range blockWords {
		if p.word(off, i) != 0 {
			return false
		}
	}
	return true
}

// removeByID takes out the row that findByID found.
func (d *dir) removeByID(w *writer, k key, pl place) {
	pl.own(w).remove(k.tag(), pl.off)
	d.rows--
	if pl.i >= 0 {
		d.settle(w, pl.i)
	}
	d.reset(w)
}

// reset makes an empty directory small again.
func (d *dir) reset(w *writer) {
	if d.rows > 0 || d.pages == 1 && len(d.extra) == 0 {
		return
	}
	d.eachPage(func(p page) bool { w.dropped(p); return true })
	*d = newDir(w)
}

// Holders appends to buf who holds a topic, see FSM.Holders.
func (t *Table) Holders(topic wire.Topic, buf []Holder) []Holder {
	return holders(&t.topics.stripes[topicStripe(topic)], t.owners.list, topic, buf)
}

func holders(d *dir, owners []owner, topic wire.Topic, buf []Holder) []Holder {
	if d.rows == 0 || topic.Name == "" || len(topic.Tenant) > wire.MaxTenant {
		return buf
	}
	start := len(buf)
	var keyBuf topicBuf
	for block := range (len(owners) + blockBits - 1) / blockBits {
		pl, found := placeOf(d, topicKey(&keyBuf, topic, block))
		if !found {
			continue
		}
		p := pl.page()
		for i := range blockWords {
			for x := p.word(pl.off, i); x != 0; x &= x - 1 {
				if o := &owners[block*blockBits+32*i+bits.TrailingZeros32(x)]; o.live {
					buf = append(buf, Holder{o.node, o.inc})
				}
			}
		}
	}
	slices.SortFunc(buf[start:], compareHolders)
	return buf
}

func compareHolders(a, b Holder) int { return cmp.Compare(a.Node, b.Node) }

// Holders appends the holders of a topic to buf: the incarnations that joined it and have not left it or ended since, at most
// one for each node, by node id. It takes the read lock of one stripe, and allocates only if buf is too small.
func (f *FSM) Holders(topic wire.Topic, buf []Holder) []Holder {
	mu := &f.stripes[topicStripe(topic)].RWMutex
	mu.RLock()
	buf = f.table.Holders(topic, buf)
	mu.RUnlock()
	return buf
}

// reclaimTopics takes back the memory of some holdings of incarnations that ended, like reclaim does for routes.
func (t *Table) reclaimTopics(h host) {
	ts := &t.topics
	for range reclaimPages {
		if t.owners.voidTopics == 0 {
			return
		}
		n := ts.sweep.stripe
		h.lock(n)
		t.sweepTopics(&ts.stripes[n])
		h.unlock(n)
	}
}

func (t *Table) sweepTopics(d *dir) {
	ts := &t.topics
	switch i := ts.sweep.entry; {
	case i < len(d.refs):
		_, ts.sweep.entry = d.span(i)
		if q, ok := t.withoutVoidHolders(d, d.refs[i]); ok {
			d.set(&ts.w, i, q)
			d.settle(&ts.w, i)
		}
	case i < len(d.refs)+len(d.extra):
		ts.sweep.entry++
		i -= len(d.refs)
		if q, ok := t.withoutVoidHolders(d, d.extra[i]); ok {
			d.setExtra(&ts.w, i, q)
		}
	default:
		d.reset(&ts.w)
		ts.sweep.stripe, ts.sweep.entry = (ts.sweep.stripe+1)%stripes, 0
	}
}

func (t *Table) withoutVoidHolders(d *dir, p page) (page, bool) {
	void := 0
	// The bits are dropped from the counts first: an ordinal that gets free thereby is not used again before the next NodeUp.
	p.each(func(_ uint16, off int) bool {
		_, block := topicAt(p, off)
		p.eachHolder(off, block, func(ord uint32) {
			if !t.owners.list[ord].live {
				t.owners.dropVoidTopic(ord)
				void++
			}
		})
		return true
	})
	if void == 0 {
		return p, false
	}
	t.topics.holdings -= void
	before := p.count()
	q := t.topics.w.rebuilt(p, 0, func(off int) bool {
		held := false
		_, block := topicAt(p, off)
		p.eachHolder(off, block, func(ord uint32) { held = held || t.owners.list[ord].live })
		return held
	})
	q.each(func(_ uint16, off int) bool {
		_, block := topicAt(q, off)
		q.eachHolder(off, block, func(ord uint32) {
			if !t.owners.list[ord].live {
				word := int(ord % blockBits / 32)
				q.setWord(off, word, q.word(off, word)&^(1<<(ord%32)))
			}
		})
		return true
	})
	d.rows -= before - q.count()
	return q, true
}
