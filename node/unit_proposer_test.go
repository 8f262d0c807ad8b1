package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// leaderStub answers the proposals of a proposer when it is told to.
type leaderStub struct {
	got    chan *raftfsm.Command
	answer chan raftfsm.Result
}

func (l *leaderStub) propose(ctx context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) {
	select {
	case l.got <- cmd:
	case <-ctx.Done():
		return raftfsm.Result{}, context.Cause(ctx)
	}
	select {
	case r := <-l.answer:
		return r, nil
	case <-ctx.Done():
		return raftfsm.Result{}, context.Cause(ctx)
	}
}

func okFor(cmd *raftfsm.Command, index uint64) raftfsm.Result {
	r := raftfsm.Result{Code: wire.OK, Index: index, Ops: make([]raftfsm.OpResult, len(cmd.Ops))}
	for i := range r.Ops {
		r.Ops[i] = raftfsm.OpResult{Code: raftfsm.OpOK, Epoch: wire.Epoch(index*1000) + wire.Epoch(i)}
	}
	return r
}

func TestProposer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		leader := &leaderStub{make(chan *raftfsm.Command), make(chan raftfsm.Result)}
		p := newProposer(3, 8)
		p.propose = leader.propose
		var told []string
		p.answered = func(ops []operation, r raftfsm.Result) {
			for i, op := range ops {
				told = append(told, fmt.Sprintf("%s %d", op.Client.ID, r.Ops[i].Epoch))
				op.answer <- answer{OpResult: r.Ops[i], index: r.Index}
			}
		}
		var forgotten []string
		over := make(chan error, 1)
		go func() {
			over <- p.run(ctx, func(seq uint64, clients []wire.ClientID) {
				forgotten = append(forgotten, fmt.Sprint(seq, clients))
			})
		}()
		answers := map[string]chan answer{}
		add := func(id string) {
			a := make(chan answer, 1)
			answers[id] = a
			p.add(operation{Op: raftfsm.Op{Kind: raftfsm.Register, Client: wire.ClientID{ID: id}}, answer: a})
		}
		revoke := func(id string) (inflight uint64) {
			p.revoking(wire.ClientID{ID: id}, func(f uint64) { inflight = f })
			return inflight
		}
		names := func(cmd *raftfsm.Command) (out []string) {
			for _, op := range cmd.Ops {
				out = append(out, op.Client.ID)
			}
			return out
		}
		if f := revoke("x"); f != 0 {
			t.Errorf("batch %d in flight before any", f)
		}
		add("a")
		first := <-leader.got
		if first.Seq != 1 || first.Incarnation != 8 || first.Node != 3 || !slices.Equal(names(first), []string{"a"}) {
			t.Errorf("first batch: %+v", first)
		}
		for i := range maxBatch + 2 { // while it is in flight the next fills, in order
			add(fmt.Sprint(i))
		}
		synctest.Wait()
		select {
		case cmd := <-leader.got:
			t.Errorf("a second batch in flight: %+v", cmd)
		default:
		}
		if f := revoke("a"); f != 1 {
			t.Errorf("batch %d in flight, want 1", f)
		}
		leader.answer <- okFor(first, 10)
		second := <-leader.got
		if got := names(second); second.Seq != 2 || len(got) != maxBatch || got[0] != "0" || got[maxBatch-1] != fmt.Sprint(maxBatch-1) {
			t.Errorf("second batch: seq %d, %d ops", second.Seq, len(got))
		}
		if a := <-answers["a"]; a.index != 10 || a.Epoch != 10000 || a.err != nil {
			t.Errorf("answer of a: %+v", a)
		}
		if !slices.Equal(forgotten, []string{"1 [a]"}) || !slices.Equal(told, []string{"a 10000"}) {
			t.Errorf("forgotten %v, told %v", forgotten, told)
		}
		leader.answer <- okFor(second, 11)
		third := <-leader.got
		if third.Seq != 3 || len(third.Ops) != 2 {
			t.Errorf("third batch: %+v", third)
		}
		if told[1] != "0 11000" || told[maxBatch] != fmt.Sprintf("%d %d", maxBatch-1, 11000+maxBatch-1) {
			t.Errorf("not told in order: %v", told)
		}
		add("late")
		cause := errors.New("lease lost")
		end(cause)
		for _, id := range []string{fmt.Sprint(maxBatch), "late"} { // in flight and queued alike
			if a := <-answers[id]; !errors.Is(a.err, cause) {
				t.Errorf("%s: %v", id, a.err)
			}
		}
		if err := <-over; !errors.Is(err, cause) {
			t.Errorf("run: %v", err)
		}
		add("after")
		if a := <-answers["after"]; !errors.Is(a.err, cause) {
			t.Errorf("after the end: %v", a.err)
		}
	})
}

// A batch that the table refuses ends the incarnation: nothing can follow it.
func TestProposerRefused(t *testing.T) {
	for _, r := range []raftfsm.Result{{Code: wire.BadIncarnation}, {Code: wire.OK}} {
		p := newProposer(3, 8)
		p.propose = func(context.Context, *raftfsm.Command) (raftfsm.Result, error) { return r, nil }
		p.answered = func([]operation, raftfsm.Result) { t.Error("told of a batch that was refused") }
		a := make(chan answer, 1)
		p.add(operation{Op: raftfsm.Op{Kind: raftfsm.Register, Client: wire.ClientID{ID: "a"}}, answer: a})
		err := p.run(t.Context(), func(uint64, []wire.ClientID) {})
		if codeOf(err) != wire.BadIncarnation || codeOf((<-a).err) != wire.BadIncarnation {
			t.Errorf("%v: %v", r.Code, err)
		}
	}
}

// A proposal whose outcome is not known is sent again, byte for byte, to whoever leads by then.
func TestLeaderCallRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		leader := wire.NodeID(2)
		answers := []any{
			errors.New("connection lost"),
			wire.ProposeReply{Code: wire.Unknown},
			wire.ProposeReply{Code: wire.NotReady},
			wire.ProposeReply{Code: wire.Overloaded},
			wire.ProposeReply{Code: wire.NotLeader, Leader: 3},
			nil,
		}
		c := &leaderCall{self: 1, leader: func() (wire.NodeID, bool) { return leader, leader != 0 }}
		c.call = func(_ context.Context, to wire.NodeID, _ wire.CallKind, req []byte) ([]byte, error) {
			a := answers[len(sent)]
			sent = append(sent, fmt.Sprintf("%d %x", to, req))
			switch a := a.(type) {
			case error:
				return nil, a
			case wire.ProposeReply:
				leader = 0 // Raft here forgets its leader; the one that was named is asked
				if a.Code != wire.NotLeader {
					leader = 2
				}
				return wire.Marshal(a)
			}
			b, err := raftfsm.Result{Code: wire.OK, Index: 5}.Encode()
			if err != nil {
				return nil, err
			}
			return wire.Marshal(wire.ProposeReply{Code: wire.OK, Index: 5, Result: b})
		}
		r, err := c.propose(t.Context(), &raftfsm.Command{Kind: raftfsm.KindNoop})
		if err != nil || r.Index != 5 || len(sent) != len(answers) {
			t.Fatalf("%+v, %v after %d tries", r, err, len(sent))
		}
		for i, s := range sent {
			to := "2"
			if i == len(sent)-1 {
				to = "3"
			}
			if s != to+sent[0][1:] {
				t.Errorf("try %d: %s, want %s%s", i, s, to, sent[0][1:])
			}
		}
		leader, sent = 0, nil
		if err := c.once(t.Context(), wire.CallRenew, wire.RenewRequest{}, &wire.RenewReply{}); codeOf(err) != wire.Unavailable || sent != nil {
			t.Errorf("without a leader: %v", err)
		}
		refused := &leaderCall{leader: func() (wire.NodeID, bool) { return 2, true }, call: func(context.Context, wire.NodeID, wire.CallKind, []byte) ([]byte, error) {
			return wire.Marshal(wire.ProposeReply{Code: wire.BadRequest, Text: "no"})
		}}
		if _, err := refused.propose(t.Context(), &raftfsm.Command{Kind: raftfsm.KindNoop}); codeOf(err) != wire.BadRequest {
			t.Errorf("a refusal: %v", err)
		}
	})
}
