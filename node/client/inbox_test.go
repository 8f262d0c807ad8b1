package client

import (
	"context"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestInboxTakers: several takers, of which some give up all the time, get every message once, each of them in order, and all
// of them end with the inbox. The writer waits for room as a session does.
func TestInboxTakers(t *testing.T) {
	const messages, takers = 20_000, 6
	q := newInbox(4 * messageCost)
	var wg sync.WaitGroup
	got := make([][]uint64, takers)
	for i := range takers {
		wg.Go(func() {
			for {
				ctx, cancel := context.WithCancel(context.Background())
				if i%2 == 1 { // gives up while it may be waiting
					go cancel()
				}
				if i < 2 { // as OnMessage's dispatcher does
					if b := q.take(ctx.Done()); b != nil {
						for _, m := range b.m[b.from:b.to] {
							got[i] = append(got[i], m.ID.Counter)
						}
						b.free()
						cancel()
						continue
					}
				} else if m, ok := q.takeOne(ctx.Done()); ok {
					got[i] = append(got[i], m.ID.Counter)
					cancel()
					continue
				}
				gaveUp := ctx.Err() != nil
				cancel()
				q.mu.Lock()
				over := q.ended && q.first == nil
				q.mu.Unlock()
				if over || !gaveUp {
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := uint64(1); n <= messages; n++ {
			ack := wire.AckMode(n % 3)
			m := Message{ID: wire.MessageID{Instance: 7, Counter: n}, Epoch: 1}
			v, room := q.put(&m, ack)
			if v != taken {
				t.Errorf("message %d: verdict %d", n, v)
			}
			if again, _ := q.put(&m, ack); again != duplicate {
				t.Errorf("message %d again: verdict %d", n, again)
			}
			if !room {
				q.wait(nil)
			}
		}
		q.end()
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("somebody sleeps although there is something to take, or room, or nothing more to come")
	}
	seen := make(map[uint64]bool)
	for i, ids := range got {
		for k, id := range ids {
			if k > 0 && id <= ids[k-1] {
				t.Fatalf("taker %d got %d behind %d", i, id, ids[k-1])
			}
			if seen[id] {
				t.Fatalf("message %d came twice", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != messages || q.bytes != 0 || q.first != nil || q.last != nil {
		t.Errorf("%d messages came, %d bytes are left", len(seen), q.bytes)
	}
}

// TestInboxOneEach: takers that come once and not again wake each other, and those that give up take nobody's turn.
func TestInboxOneEach(t *testing.T) {
	const messages, quitters = 2000, 500
	q := newInbox(1 << 30)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg, gaveUp sync.WaitGroup
	got := make(chan uint64, messages+quitters)
	for range messages {
		wg.Go(func() {
			if m, ok := q.takeOne(nil); ok {
				got <- m.ID.Counter
			}
		})
	}
	for range quitters {
		gaveUp.Go(func() {
			if m, ok := q.takeOne(ctx.Done()); ok {
				got <- m.ID.Counter
			}
		})
	}
	for n := uint64(1); n <= messages; n++ {
		if n == messages/2 {
			go cancel()
		}
		m := Message{ID: wire.MessageID{Instance: 7, Counter: n}, Epoch: 1}
		q.put(&m, wire.AckNone)
	}
	gaveUp.Wait()
	seen := make(map[uint64]bool)
	for late := time.After(20 * time.Second); len(seen) < messages; {
		select {
		case n := <-got:
			if seen[n] {
				t.Fatalf("message %d came twice", n)
			}
			seen[n] = true
		case <-late:
			t.Fatalf("%d of %d messages were taken, though enough wait for them", len(seen), messages)
		}
	}
	q.end() // for those whose turn the quitters had
	wg.Wait()
}
