package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"imroute/mesh/wire"
)

// ConfirmTerm against elections that happen while a round is under way. A case says at which moment each voter answers and
// at which moment a majority of the voters moves on to the next term; the real confirmer runs through it.

// confirmCase is one order of events. Moments: 0 before the round begins, 1 right after, 2 later.
type modelConfirmCase struct {
	voters   []wire.NodeID // the leader is node 1
	electors uint8         // voters that elect another leader, as a set of positions
	elected  int           // the moment at which they do
	answers  [5]int        // the moment at which each voter reads the question
	stale    uint8         // voters whose answer is one to an earlier round, from before the election
}

// mutation of the round itself, by what it is told.
type modelConfirmMutation uint8

const (
	modelConfirmAsIs modelConfirmMutation = iota
	modelCountsItselfAlways
	modelTakesOldAnswers
)

const modelConfirmLeader wire.NodeID = 1

// confirmed runs one case through the real round; true: it proved the term.
func (c *modelConfirmCase) confirmed(t *testing.T, how modelConfirmMutation) bool {
	const term = 7
	at := func(v wire.NodeID) int {
		for i, id := range c.voters {
			if id == v {
				return i
			}
		}
		t.Fatalf("voter %v was asked and is none", v)
		return 0
	}
	r := &confirmer{
		self: modelConfirmLeader, timeout: 1 << 40,
		leading: func() (uint64, bool) { return term, true },
		voters:  func() ([]wire.NodeID, error) { return c.voters, nil },
		ask: func(_ context.Context, to wire.NodeID, q wire.ConfirmRequest) (wire.ConfirmReply, error) {
			i := at(to)
			if how == modelCountsItselfAlways && to == c.voters[0] { // as if one answer were the leader's own
				return wire.ConfirmReply{Nonce: q.Nonce, Term: term}, nil
			}
			if c.stale&(1<<i) != 0 {
				reply := wire.ConfirmReply{Nonce: q.Nonce + 1, Term: term}
				if how == modelTakesOldAnswers {
					reply.Nonce = q.Nonce
				}
				return reply, nil
			}
			if c.electors&(1<<i) != 0 && c.elected <= c.answers[i] {
				return wire.ConfirmReply{Nonce: q.Nonce, Term: term + 1}, nil
			}
			return wire.ConfirmReply{Nonce: q.Nonce, Term: term}, nil
		},
	}
	proved, err := r.round(t.Context())
	if err == nil && proved != term {
		t.Fatalf("the round proved term %d", proved)
	}
	return err == nil
}

// eachConfirmCase calls f with every case of a configuration.
func modelEachConfirmCase(voters []wire.NodeID, f func(c *modelConfirmCase)) {
	n := len(voters)
	for electors := range uint8(1 << n) {
		if !isMajority(modelCount(electors), n) {
			continue
		}
		for elected := range 3 {
			for stale := range uint8(1 << n) {
				for code := range modelPow(3, n) {
					c := modelConfirmCase{voters: voters, electors: electors, elected: elected, stale: stale}
					rest := code
					for i := range n {
						c.answers[i], rest = rest%3, rest/3
					}
					f(&c)
				}
			}
		}
	}
}

func modelPow(b, n int) int {
	p := 1
	for range n {
		p *= b
	}
	return p
}

// wrong: the term was proved though another leader had been elected before the round began.
func (c *modelConfirmCase) wrong(t *testing.T, how modelConfirmMutation) bool {
	if c.elected != 0 {
		return false
	}
	for i, v := range c.voters {
		if v == modelConfirmLeader && c.electors&(1<<i) != 0 {
			return false // it would know
		}
	}
	return c.confirmed(t, how)
}

func modelConfirmConfigs() map[string][]wire.NodeID {
	return map[string][]wire.NodeID{
		"three voters":                   {1, 2, 3},
		"a leader that is no voter":      {2, 3, 4},
		"two voters":                     {1, 2},
		"a leader beside two voters":     {2, 3},
		"a leader beside a single voter": {2},
	}
}

func TestModelConfirm(t *testing.T) {
	for name, voters := range modelConfirmConfigs() {
		t.Run(name, func(t *testing.T) {
			proved := 0
			modelEachConfirmCase(voters, func(c *modelConfirmCase) {
				if c.wrong(t, modelConfirmAsIs) {
					t.Fatalf("a deposed term was confirmed: %+v", *c)
				}
				if c.elected == 2 && c.stale == 0 && c.answers == ([5]int{0: 1, 1: min(1, len(voters)-1), 2: max(0, min(1, len(voters)-2))}) && c.confirmed(t, modelConfirmAsIs) {
					proved++
				}
			})
			if proved == 0 {
				t.Error("a term that nobody contests is not confirmed")
			}
			for _, how := range []modelConfirmMutation{modelCountsItselfAlways, modelTakesOldAnswers} {
				if how == modelCountsItselfAlways && (voters[0] == modelConfirmLeader || len(voters)%2 == 0) || len(voters) == 2 && voters[0] == modelConfirmLeader {
					continue // no majority without the leader, or none of a single answer more
				}
				found := false
				modelEachConfirmCase(voters, func(c *modelConfirmCase) { found = found || c.wrong(t, how) })
				if !found {
					t.Errorf("mutation %d is not noticed", how)
				}
			}
		})
	}
}

// TestModelRounds: whoever asks while a round is under way gets the answer of a later one.
func TestModelRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		begun := 0
		next := make(chan struct{})
		closed := errors.New("closed")
		ctx, cancel := context.WithCancelCause(context.Background())
		r := newRounds(ctx, func(_ context.Context, qs []int) ([]int, error) {
			mu.Lock()
			begun++
			n := begun
			mu.Unlock()
			<-next
			out := make([]int, len(qs))
			for i := range out {
				out[i] = n
			}
			return out, nil
		})
		ask := func() <-chan int {
			got := make(chan int, 1)
			go func() {
				n, err := r.do(t.Context(), 0)
				if err != nil {
					n = -1
				}
				got <- n
			}()
			synctest.Wait()
			return got
		}
		first := ask()
		during, too := ask(), ask()
		next <- struct{}{}
		synctest.Wait()
		later := ask()
		next <- struct{}{}
		next <- struct{}{}
		for i, want := range []struct {
			got   <-chan int
			round int
		}{{first, 1}, {during, 2}, {too, 2}, {later, 3}} {
			if n := <-want.got; n != want.round {
				t.Errorf("question %d was answered by round %d, want %d", i, n, want.round)
			}
		}
		cancel(closed)
		r.wait()
	})
}
