package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// topics is what this node knows, in its present incarnation, of who is in which group or service here. The cluster agrees
// only on which incarnations have any member of a topic: the first one in proposes Join, the last one out, a while later,
// Leave. Each topic is driven by level: whenever nothing of it is in a batch, what the cluster was told last is compared with
// whether there are members. Safe for concurrent use.
//
// Nothing outlives the incarnation: its sessions are closed, and a client that logs in again brings its groups along.
type topics struct {
	propose func(operation)
	linger  time.Duration // how long the cluster is left in the belief that an empty topic has members
	limit   int64         // of memberships
	able    func() bool   // the cluster has agreed on a feature level that knows topics

	count  atomic.Int64 // memberships
	shards [topicShards]topicShard

	mu     sync.Mutex
	leaves []lingering   // by due
	wake   chan struct{} // capacity 1: the first in leaves
}

const (
	topicShards = 64

	// topicLinger spares two entries for a member that goes and comes back, or moves to another group and back.
	topicLinger = 2 * time.Second

	// maxMemberships bounds the memory of topics on one node, at some 100 bytes each.
	maxMemberships = 4 << 20
)

type topicShard struct {
	mu sync.Mutex
	by map[wire.Topic]*localTopic
}

// topicMember is one session in a topic.
type topicMember interface {
	Client() wire.ClientID
	// DeliverCast is that of gateway.Session.
	DeliverCast(*gateway.Cast) wire.Code
	// removed says that it was taken out of a topic without having asked for it. It must not block.
	removed(topic wire.Topic, code wire.Code, text string)
}

// localTopic is a topic that has members here or had some lately. Guarded by its shard's mu.
type localTopic struct {
	members []topicMember
	at      map[topicMember]int // where in members
	snap    []topicMember       // a copy of members that never changes; nil: make it anew
	agreed  bool                // the cluster has it that this incarnation holds the topic
	flying  bool                // a Join (if not agreed) or Leave (if agreed) is in a batch
	lingers bool                // it stands in topics.leaves
	leaveAt time.Duration       // not before that
	waiting []joining           // in op order
}

// joining is a member that was not acknowledged yet.
type joining struct {
	m    topicMember
	told func(*wire.Error)
}

type lingering struct {
	topic wire.Topic
	due   time.Duration
}

func newTopics(propose func(operation), able func() bool) *topics {
	ts := &topics{propose: propose, able: able, linger: topicLinger, limit: maxMemberships, wake: make(chan struct{}, 1)}
	for i := range ts.shards {
		ts.shards[i].by = map[wire.Topic]*localTopic{}
	}
	return ts
}

func (ts *topics) shard(t wire.Topic) *topicShard { return &ts.shards[t.HashID()%topicShards] }

// join makes m a member. told is called exactly once, with no lock held and perhaps before join returns: nil once every
// linearizable read shows that this node holds the topic, otherwise why m is no member. queued says that a Join was proposed
// before join returned: whatever is proposed later is answered later.
func (ts *topics) join(t wire.Topic, m topicMember, told func(*wire.Error)) (queued bool) {
	if !ts.able() {
		told(&wire.Error{Code: wire.Refused, Text: "this cluster does not know groups yet: once all nodes run this version, `imctl cluster upgrade`"})
		return true
	}
	sh := ts.shard(t)
	sh.mu.Lock()
	lt := sh.by[t]
	if lt == nil {
		lt = &localTopic{at: map[topicMember]int{}}
		sh.by[t] = lt
	}
	if _, in := lt.at[m]; !in {
		if ts.count.Add(1) > ts.limit {
			ts.count.Add(-1)
			sh.tidy(t, lt)
			sh.mu.Unlock()
			told(&wire.Error{Code: wire.Overloaded, Text: "too many memberships on this node"})
			return true
		}
		lt.at[m] = len(lt.members)
		lt.members = append(lt.members, m)
		lt.snap = nil
	}
	if lt.agreed && !lt.flying {
		sh.mu.Unlock()
		told(nil)
		return true
	}
	queued = !lt.agreed // a Leave that is in a batch has to be answered first
	lt.waiting = append(lt.waiting, joining{m, told})
	op := ts.stepLocked(t, lt, now())
	sh.mu.Unlock()
	ts.proposeIf(op)
	return queued
}

// leave ends a membership; false: there was none.
func (ts *topics) leave(t wire.Topic, m topicMember) bool {
	sh := ts.shard(t)
	sh.mu.Lock()
	lt := sh.by[t]
	if lt == nil || !ts.removeLocked(lt, m) {
		sh.mu.Unlock()
		return false
	}
	var gone []joining
	lt.waiting = deleteJoining(lt.waiting, m, &gone)
	linger := ts.emptiedLocked(lt)
	sh.tidy(t, lt)
	sh.mu.Unlock()
	ts.lingerIf(linger, t)
	for _, j := range gone {
		j.told(&wire.Error{Code: wire.Left, Text: "left before the cluster had agreed"})
	}
	return true
}

// clear takes everybody out and tells them why. It returns how many.
func (ts *topics) clear(t wire.Topic, code wire.Code, text string) int {
	sh := ts.shard(t)
	sh.mu.Lock()
	lt := sh.by[t]
	if lt == nil || len(lt.members) == 0 {
		sh.mu.Unlock()
		return 0
	}
	all, waiting := lt.members, lt.waiting
	ts.count.Add(-int64(len(all)))
	lt.members, lt.at, lt.snap, lt.waiting = nil, map[topicMember]int{}, nil, nil
	linger := ts.emptiedLocked(lt)
	sh.tidy(t, lt)
	sh.mu.Unlock()
	ts.lingerIf(linger, t)
	pending := make(map[topicMember]bool, len(waiting))
	for _, j := range waiting {
		pending[j.m] = true
		j.told(&wire.Error{Code: code, Text: text})
	}
	for _, m := range all {
		if !pending[m] {
			m.removed(t, code, text)
		}
	}
	return len(all)
}

func (ts *topics) removeLocked(lt *localTopic, m topicMember) bool {
	i, in := lt.at[m]
	if !in {
		return false
	}
	last := len(lt.members) - 1
	lt.members[i] = lt.members[last]
	lt.at[lt.members[i]] = i
	lt.members[last] = nil
	lt.members = lt.members[:last]
	delete(lt.at, m)
	lt.snap = nil
	ts.count.Add(-1)
	return true
}

// emptiedLocked: somebody left. It says whether the topic has to be put among those that linger.
func (ts *topics) emptiedLocked(lt *localTopic) bool {
	if len(lt.members) > 0 || !lt.agreed && !lt.flying {
		return false
	}
	lt.leaveAt = now() + ts.linger
	if lt.lingers {
		return false
	}
	lt.lingers = true
	return true
}

func (ts *topics) lingerIf(linger bool, t wire.Topic) {
	if !linger {
		return
	}
	ts.mu.Lock()
	ts.leaves = append(ts.leaves, lingering{t, now() + ts.linger})
	ts.mu.Unlock()
	select {
	case ts.wake <- struct{}{}:
	default:
	}
}

// tidy forgets a topic that says nothing.
func (sh *topicShard) tidy(t wire.Topic, lt *localTopic) {
	if len(lt.members) == 0 && !lt.agreed && !lt.flying && !lt.lingers {
		delete(sh.by, t)
	}
}

// stepLocked compares what is so with what the cluster was told, and returns what to propose.
func (ts *topics) stepLocked(t wire.Topic, lt *localTopic, at time.Duration) *operation {
	kind := raftfsm.Join
	switch {
	case lt.flying:
		return nil
	case len(lt.members) > 0 && !lt.agreed:
	case len(lt.members) == 0 && lt.agreed && at >= lt.leaveAt && !lt.lingers:
		kind = raftfsm.Leave
	default:
		return nil
	}
	lt.flying = true
	return &operation{
		Op:   raftfsm.Op{Kind: kind, Topic: t},
		told: func(res raftfsm.OpResult, err error) { ts.answered(t, kind, res, err) },
	}
}

func (ts *topics) proposeIf(op *operation) {
	if op != nil {
		ts.propose(*op)
	}
}

// answered takes what the state machine said to a Join or Leave; err: the incarnation ended first.
func (ts *topics) answered(t wire.Topic, kind raftfsm.OpKind, res raftfsm.OpResult, err error) {
	var why *wire.Error
	switch {
	case err != nil:
		why = &wire.Error{Code: wire.Unavailable, Text: err.Error()}
	case res.Code == raftfsm.OpOverloaded:
		why = &wire.Error{Code: wire.Overloaded, Text: "the cluster has as many groups as it can hold"}
	case res.Code != raftfsm.OpOK:
		why = &wire.Error{Code: wire.Refused, Text: "joining: " + res.Code.String()}
	}
	sh := ts.shard(t)
	sh.mu.Lock()
	lt := sh.by[t]
	lt.flying = false
	var told []joining
	switch {
	case why == nil:
		lt.agreed = kind == raftfsm.Join
		if lt.agreed {
			told, lt.waiting = lt.waiting, nil
		}
	case kind == raftfsm.Join || err != nil: // nobody here was a member yet, or nobody is any more
		told, lt.waiting = lt.waiting, nil
		for _, j := range told {
			ts.removeLocked(lt, j.m)
		}
	}
	var op *operation
	if err == nil {
		op = ts.stepLocked(t, lt, now())
	}
	linger := lt.agreed && op == nil && len(lt.members) == 0 && ts.emptiedLocked(lt)
	sh.tidy(t, lt)
	sh.mu.Unlock()
	ts.lingerIf(linger, t)
	ts.proposeIf(op)
	for _, j := range told {
		j.told(why)
	}
}

// run proposes the Leaves that are due, until ctx ends.
func (ts *topics) run(ctx context.Context) {
	for {
		ts.mu.Lock()
		var next *lingering
		if len(ts.leaves) > 0 {
			next = &ts.leaves[0]
		} else {
			ts.leaves = nil
		}
		ts.mu.Unlock()
		if next == nil {
			select {
			case <-ts.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if wait := next.due - now(); wait > 0 && !sleep(ctx, wait) {
			return
		}
		if ctx.Err() != nil {
			return
		}
		ts.mu.Lock()
		t := ts.leaves[0].topic
		ts.leaves = ts.leaves[1:]
		ts.mu.Unlock()
		ts.due(t)
	}
}

// due looks at a topic whose time among the lingering is over.
func (ts *topics) due(t wire.Topic) {
	sh := ts.shard(t)
	sh.mu.Lock()
	lt := sh.by[t]
	lt.lingers = false
	again := false
	if at := now(); len(lt.members) == 0 && at < lt.leaveAt { // somebody came and went meanwhile
		lt.lingers, again = true, true
	}
	op := ts.stepLocked(t, lt, now())
	sh.tidy(t, lt)
	sh.mu.Unlock()
	ts.lingerIf(again, t)
	ts.proposeIf(op)
}

// members returns who is in a topic here, as a list that never changes.
func (ts *topics) members(t wire.Topic) []topicMember {
	sh := ts.shard(t)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	lt := sh.by[t]
	if lt == nil {
		return nil
	}
	if lt.snap == nil {
		lt.snap = append([]topicMember(nil), lt.members...)
	}
	return lt.snap
}

// size is how many members a topic has here.
func (ts *topics) size(t wire.Topic) int {
	sh := ts.shard(t)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if lt := sh.by[t]; lt != nil {
		return len(lt.members)
	}
	return 0
}

// topicStats counts what this node has in its present incarnation.
type topicStats struct{ topics, members int }

func (ts *topics) stats() (st topicStats) {
	for i := range ts.shards {
		sh := &ts.shards[i]
		sh.mu.Lock()
		st.topics += len(sh.by)
		sh.mu.Unlock()
	}
	st.members = int(ts.count.Load())
	return st
}

// topicStats are those of the present incarnation; nothing without one.
func (n *Node) topicStats() topicStats {
	if l := n.present.Load(); l != nil {
		return l.topics.stats()
	}
	return topicStats{}
}

// deleteJoining takes the joinings of m out of list and appends them to gone.
func deleteJoining(list []joining, m topicMember, gone *[]joining) []joining {
	kept := list[:0]
	for _, j := range list {
		if j.m == m {
			*gone = append(*gone, j)
		} else {
			kept = append(kept, j)
		}
	}
	clear(list[len(kept):])
	return kept
}
