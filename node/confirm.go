package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// errNotLeader: this node does not lead, or no longer leads the term the question was asked in.
var errNotLeader = errors.New("not the leader")

// confirmer proves that this node still led its term when a round began (ConfirmTerm): a majority of the voters answer,
// after that moment, that their current term is still this one, so no newer leader had been elected. hashicorp/raft's
// VerifyLeader will not do: it may count acknowledgements of requests that were sent before the question.
type confirmer struct {
	self    wire.NodeID
	leading func() (term uint64, ok bool) // past the barrier of that term
	voters  func() ([]wire.NodeID, error) // as the configuration has them now
	ask     func(context.Context, wire.NodeID, wire.ConfirmRequest) (wire.ConfirmReply, error)
	timeout time.Duration       // of one round
	took    func(time.Duration) // of each round that confirmed

	rounds *rounds[struct{}, uint64]
}

func (c *confirmer) open(ctx context.Context) {
	c.rounds = newRounds(ctx, func(ctx context.Context, qs []struct{}) ([]uint64, error) {
		term, err := c.round(ctx)
		answers := make([]uint64, len(qs))
		for i := range answers {
			answers[i] = term
		}
		return answers, err
	})
}

// confirm returns when a round that began after the call proved term; errNotLeader when it did not.
func (c *confirmer) confirm(ctx context.Context, term uint64) error {
	proved, err := c.rounds.do(ctx, struct{}{})
	if err != nil {
		return err
	}
	if proved != term {
		return errNotLeader
	}
	return nil
}

func (c *confirmer) round(ctx context.Context) (uint64, error) {
	term, ok := c.leading()
	if !ok {
		return 0, errNotLeader
	}
	voters, err := c.voters()
	if err != nil {
		return 0, fmt.Errorf("reading the voters: %w", err)
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	var asked sync.WaitGroup
	defer asked.Wait() // after cancel: they end at once
	defer cancel()
	nonce := wire.NewID()
	votes := make(chan bool, len(voters))
	for _, v := range voters {
		if v == c.self { // the leader counts itself only because it is a voter
			votes <- true
			continue
		}
		asked.Go(func() {
			reply, err := c.ask(ctx, v, wire.ConfirmRequest{Nonce: nonce, Term: term})
			votes <- err == nil && confirms(reply, nonce, term)
		})
	}
	yes := 0
	for no := 0; !isMajority(yes, len(voters)) && isMajority(len(voters)-no, len(voters)); {
		if <-votes {
			yes++
		} else {
			no++
		}
	}
	if !isMajority(yes, len(voters)) {
		return 0, &wire.Error{Code: wire.Unavailable, Text: fmt.Sprintf("%d of %d voters confirmed term %d: no quorum", yes, len(voters), term)}
	}
	if c.took != nil {
		c.took(time.Since(started))
	}
	return term, nil
}

// confirms: the answer belongs to this round and the voter knows no newer term.
func confirms(r wire.ConfirmReply, nonce, term uint64) bool {
	return r.Nonce == nonce && r.Term == term
}

func isMajority(n, of int) bool { return n > of/2 }
