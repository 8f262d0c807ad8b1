package raftfsm

import (
	"cmp"
	"slices"
	"strings"

	"imroute/mesh/wire"
)

// TopicInfo is a topic with those who hold it, by node id; there is at least one.
type TopicInfo struct {
	Topic   wire.Topic
	Holders []Holder
}

// Topics lists the live topics of a tenant and kind (0: all kinds), by name and then kind: at most limit of those whose names come
// after the given one ("": from the beginning). To go on, call it with the last name. With kind 0 a page does not end between the
// two kinds of a name, so it may be one longer than limit. It looks at all topics there are: for operators, not for messages.
func (f *FSM) Topics(tenant string, kind wire.TopicKind, after string, limit int) []TopicInfo {
	v := f.Grab()
	defer v.Close()
	return v.Topics(tenant, kind, after, limit)
}

// Topics is FSM.Topics of a view.
func (v *View) Topics(tenant string, kind wire.TopicKind, after string, limit int) []TopicInfo {
	if limit <= 0 {
		return nil
	}
	// The names found so far, sharing memory with the pages. Cut down to the first limit ones now and then.
	var names []wire.Topic
	most := 2*limit + 64
	bound := ""
	cut := func() {
		slices.SortFunc(names, compareTopics)
		names = slices.Compact(names) // one row for each block of owners
		if len(names) <= limit {
			return
		}
		n := limit
		if names[n].Name == names[n-1].Name {
			n++
		}
		names, bound = names[:n], names[n-1].Name
	}
	v.eachTopic(func(p page, off int) {
		t, block := topicAt(p, off)
		if t.Tenant != tenant || kind != 0 && t.Kind != kind || t.Name <= after || bound != "" && t.Name > bound || !v.anyLive(p, off, block) {
			return
		}
		if names = append(names, t); len(names) >= most {
			cut()
		}
	})
	cut()
	list := make([]TopicInfo, len(names))
	for i, t := range names {
		t = wire.Topic{Tenant: tenant, Kind: t.Kind, Name: strings.Clone(t.Name)}
		list[i] = TopicInfo{t, v.Holders(t, nil)}
	}
	return list
}

func compareTopics(a, b wire.Topic) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Tenant, b.Tenant))
}

// Holders is FSM.Holders of a view.
func (v *View) Holders(topic wire.Topic, buf []Holder) []Holder {
	return holders(&v.topics[topicStripe(topic)], v.owners, topic, buf)
}

// Holdings is the number of live pairs of a topic and an incarnation that holds it.
func (v *View) Holdings() int { return v.holds }

// HoldingsByNode is the number of topics that each node holds, of those that hold any.
func (v *View) HoldingsByNode() map[wire.NodeID]int {
	m := make(map[wire.NodeID]int)
	for i, o := range v.owners {
		if o.live && v.held[i] > 0 {
			m[o.node] += v.held[i]
		}
	}
	return m
}

// eachTopic calls f with every row of a topic, wholly void ones included.
func (v *View) eachTopic(f func(p page, off int)) {
	for i := range v.topics {
		v.topics[i].eachPage(func(p page) bool {
			return p.each(func(_ uint16, off int) bool { f(p, off); return true })
		})
	}
}

func (v *View) anyLive(p page, off, block int) bool {
	live := false
	p.eachHolder(off, block, func(ord uint32) { live = live || v.owners[ord].live })
	return live
}

func (v *View) topicsHash() uint64 {
	var sum uint64
	v.eachTopic(func(p page, off int) {
		t, block := topicAt(p, off)
		p.eachHolder(off, block, func(ord uint32) {
			o := v.owners[ord]
			if !o.live {
				return
			}
			d := newDigest()
			d.number(uint64(t.Kind))
			d.text(t.Tenant)
			d.text(t.Name)
			d.number(uint64(o.node))
			d.number(uint64(o.inc))
			sum += d.sum()
		})
	})
	return sum
}
