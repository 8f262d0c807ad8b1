package nodetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// Errand is one message that its sender does not give up before its time-out: what fails is sent again, as a message of its
// own, with the time that is left. So it fails only if no retry could serve it.
type Errand struct {
	From, To     string
	Timeout      time.Duration
	Call, Return time.Duration
	Tries        int
	Code         wire.Code // of the last try
	GivenUp      bool      // the sender itself ended
}

// Span is a time within which nothing but what operators do in order was done to the cluster.
type Span struct{ From, To time.Duration }

// errandPause is between two tries, on average.
const errandPause = 30 * time.Millisecond

// courier is a client that nobody kicks or takes over; it stays where it is until a fault drives it away, and does one errand
// after the other.
func (w *Workload) courier(i int) {
	a := &actor{w: w, name: fmt.Sprintf("courier%d", i), random: rand.New(rand.NewPCG(w.c.Seed, uint64(i)+5000)), home: i % len(w.c.Nodes)}
	defer a.leave()
	for w.ctx.Err() == nil {
		if a.now != nil {
			select {
			case <-a.now.c.Done():
				a.leave()
			default:
			}
		}
		if a.now == nil {
			if a.now = a.dial(); a.now == nil {
				a.home = (a.home + 1) % len(w.c.Nodes)
				continue
			}
		}
		a.errand(w.clients[a.random.IntN(len(w.clients))])
		w.rest(a.random, w.o.Pause)
	}
}

func (a *actor) errand(to string) {
	h := a.w.c.history
	e := Errand{From: a.name, To: to, Timeout: a.w.o.Timeout, Call: Now()}
	for {
		left := e.Timeout - (Now() - e.Call)
		if left <= 0 && e.Tries > 0 {
			break
		}
		e.Tries++
		r, closed := a.try(to, max(left, time.Millisecond))
		if e.Code = r.Code; e.Code == wire.Delivered {
			break
		}
		if e.GivenUp = closed || a.w.ctx.Err() != nil; e.GivenUp {
			break
		}
		a.w.rest(a.random, errandPause)
	}
	e.Return = Now()
	h.errand(e)
}

// try sends one message and waits for its outcome, recorded as any other send.
func (a *actor) try(to string, timeout time.Duration) (r client.Result, closed bool) {
	a.seq++
	s := &Send{SDK: a.now.sdk.Number, From: a.name, To: to, Ack: wire.AckClient, Timeout: timeout}
	h := a.w.c.history
	h.sending(s)
	answer := make(chan client.Result, 1)
	id, err := a.now.c.SendAsync(to, fmt.Appendf(nil, "%s|%s|%d", a.name, to, a.seq), s.Ack, timeout, func(r client.Result) {
		h.result(s, r.ID, r.Code, r.Owner, r.Text, errors.Is(r.Err(), client.ErrClosed))
		answer <- r
	})
	h.sent(s, id, err == nil)
	if err != nil {
		return client.Result{Code: wire.Unavailable}, !errors.Is(err, client.ErrOverloaded)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout+answerSlack)
	defer cancel()
	select {
	case r = <-answer:
		return r, errors.Is(r.Err(), client.ErrClosed)
	case <-ctx.Done(): // checkAnswered tells of it
		return client.Result{Code: wire.Timeout}, false
	}
}

// seenLate is by how much later an SDK may learn that its session was ended than the rest of the cluster.
const seenLate = 250 * time.Millisecond

// reachable is how long a recipient must have been in one place for an errand, which tries again all the time, to reach it:
// longer than leadership may take to change.
const reachable = 3 * time.Second

// checkServed (G8, and what drain and leave promise): while nothing but what operators do in order is done to the cluster, no
// send fails whose recipient stays connected in one place for its whole time, and no errand fails whose recipient was in one
// place for long enough, anywhere.
func checkServed(e *Evidence) []string {
	orderly := func(from, to time.Duration) bool {
		for _, s := range e.History.Orderly {
			if from >= s.From && to <= s.To {
				return true
			}
		}
		return false
	}
	at := map[string][]stay{}
	for i := range e.History.SDKs {
		at[e.History.SDKs[i].Client] = append(at[e.History.SDKs[i].Client], stays(&e.History.SDKs[i], e.History.Ended)...)
	}
	var out []string
	for _, s := range e.History.Sends {
		if s.Ack == wire.AckNone || s.Return == 0 || s.GivenUp || s.Code == wire.Delivered || s.Code == wire.Overloaded || s.Return-s.Call < 0 || !orderly(s.Call, s.Return) {
			continue
		}
		if s.Timeout < reachable {
			continue // the rest of an errand's time
		}
		if s.SDK >= 0 && s.SDK < len(e.History.SDKs) && endedForGood(&e.History.SDKs[s.SDK], s.Return) {
			continue
		}
		for _, v := range at[s.To] {
			if v.from <= s.Call && v.to >= s.Return+seenLate {
				out = append(out, fmt.Sprintf("%v from %s to %s failed after %v (%s: %s), and the recipient was at %s all the time (epoch %d)", s.ID, s.From, s.To, s.Return-s.Call, s.Code, s.Text, v.node, v.epoch))
				break
			}
		}
	}
	for _, d := range e.History.Errands {
		if d.Code == wire.Delivered || d.GivenUp || !orderly(d.Call, d.Return) {
			continue
		}
		for _, v := range at[d.To] {
			if there := min(v.to, d.Return) - max(v.from, d.Call); there >= reachable {
				out = append(out, fmt.Sprintf("%s did not reach %s within %v and %d tries (%s), which was at %s for %v of that", d.From, d.To, d.Timeout, d.Tries, d.Code, v.node, there))
				break
			}
		}
	}
	return out
}

// endedForGood tells whether an SDK was told to go by about that time, say kicked: it does not wait for outcomes any more.
func endedForGood(s *SDK, by time.Duration) bool {
	for _, st := range s.States {
		if !st.Connected && st.Code.Class() == wire.Final && st.At <= by+seenLate {
			return true
		}
	}
	return false
}

// errands says what became of them, for people.
func errands(e *Evidence) string {
	served, again, failed := 0, 0, 0
	var longest time.Duration
	for _, d := range e.History.Errands {
		switch {
		case d.Code == wire.Delivered && d.Tries == 1:
			served++
		case d.Code == wire.Delivered:
			again++
		case !d.GivenUp:
			failed++
		}
		if d.Code == wire.Delivered {
			longest = max(longest, d.Return-d.Call)
		}
	}
	return fmt.Sprintf("errands: %d served at once, %d by retries, %d failed, the slowest served one took %v", served, again, failed, longest.Round(time.Millisecond))
}

// stay is a time that an SDK spent in one session.
type stay struct {
	node     string
	epoch    wire.Epoch
	from, to time.Duration
}

func stays(s *SDK, ended time.Duration) []stay {
	var out []stay
	var now *stay
	end := func(at time.Duration) {
		if now != nil {
			now.to = at
			out = append(out, *now)
			now = nil
		}
	}
	for _, st := range s.States {
		end(st.At)
		if st.Connected {
			now = &stay{node: st.Node, epoch: st.Epoch, from: st.At}
		}
	}
	if s.Closed != 0 {
		ended = min(ended, s.Closed)
	}
	end(ended)
	return out
}
