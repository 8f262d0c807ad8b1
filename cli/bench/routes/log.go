package routes

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"imroute/cli/bench"
	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// log makes entries as a leader's log has them and has a state machine apply them.
type log struct {
	index uint64
	seq   [members]uint64 // of each member's last batch
	next  int             // whose batch comes next
	inc   [members]wire.Incarnation
}

const logTerm = 1

// apply has fsm apply a command as the next entry. took is how long that kept Raft's goroutine for the state machine, cpu how
// much of it was this thread's work, which other programs on the machine do not make longer.
func (l *log) apply(fsm *raftfsm.FSM, c *raftfsm.Command) (r raftfsm.Result, took, cpu time.Duration, err error) {
	b, err := raftfsm.Encode(c)
	if err != nil {
		return r, 0, 0, err
	}
	l.index++
	entry := []*raft.Log{{Index: l.index, Term: logTerm, Type: raft.LogCommand, Data: b}}
	start, work := time.Now(), bench.ThreadCPU()
	out := fsm.ApplyBatch(entry)
	took, cpu = time.Since(start), bench.ThreadCPU()-work
	switch v := out[0].(type) {
	case raftfsm.Result:
		if v.Code != wire.OK {
			return v, took, cpu, fmt.Errorf("%s: %s %s", c.Kind, v.Code, v.Text)
		}
		return v, took, cpu, nil
	case error:
		return r, took, cpu, v
	}
	return r, took, cpu, fmt.Errorf("%s was answered with %T", c.Kind, out[0])
}

// found makes a cluster of members that are all up.
func (l *log) found(fsm *raftfsm.FSM) error {
	cmds := []*raftfsm.Command{{Kind: raftfsm.KindInit, ClusterID: 1, Level: raftfsm.MaxFeatureLevel}}
	for i := range members {
		id := wire.NodeID(i + 1)
		cmds = append(cmds,
			&raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: id, Name: fmt.Sprintf("n%d", i+1)},
			&raftfsm.Command{Kind: raftfsm.KindNodeUp, Node: id, Boot: 1})
	}
	for _, c := range cmds {
		r, _, _, err := l.apply(fsm, c)
		if err != nil {
			return err
		}
		if c.Kind == raftfsm.KindNodeUp {
			l.inc[c.Node-1] = r.Incarnation
		}
	}
	return nil
}

// batch applies the next member's registrations. The ids of a batch always go to the same member (see owner), so each
// replaces its own session.
func (l *log) batch(fsm *raftfsm.FSM, ops []raftfsm.Op) (took, cpu time.Duration, err error) {
	i := l.next
	l.next = (i + 1) % members
	l.seq[i]++
	r, took, cpu, err := l.apply(fsm, &raftfsm.Command{Kind: raftfsm.KindBatch, Node: wire.NodeID(i + 1), Incarnation: l.inc[i], Seq: l.seq[i], Ops: ops})
	if err != nil {
		return took, cpu, err
	}
	for j, op := range r.Ops {
		if op.Code != raftfsm.OpOK {
			return took, cpu, fmt.Errorf("registration of %s: %s", ops[j].Client, op.Code)
		}
	}
	return took, cpu, nil
}

// owner is the member that holds client i: fill gives whole entries to one member after another.
func owner(i int) int { return i / entryOps % members }

func register(c wire.ClientID, attempt uint64) raftfsm.Op {
	return raftfsm.Op{Kind: raftfsm.Register, Client: c, Session: wire.SessionID{Instance: c.Hash(), Attempt: attempt}}
}
