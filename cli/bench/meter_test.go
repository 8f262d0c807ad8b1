package bench

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// testMeter is a meter in virtual time whose link is given.
func testMeter(o SendOptions, l func(m *meter) link) *meter {
	o.Placement, o.Duration = Across, time.Second
	if o.Size == 0 {
		o.Size = 64
	}
	if o.Window == 0 {
		o.Window = DefaultWindow(o)
	}
	if err := o.Validate(); err != nil {
		panic(err)
	}
	m := newMeter(o)
	m.nap = time.Sleep
	m.link = l(m)
	return m
}

// runFor measures for d of virtual time.
func runFor(m *meter, d time.Duration) Result {
	var r Result
	m.start()
	m.measure(&r, nil, func() { time.Sleep(d) })
	m.finish(context.Background(), &r)
	return r
}

// fault is what becomes of the n-th message to a recipient: it arrives so many times.
type fault func(n int, b []byte) [][]byte

// network delivers after a delay, in order, one goroutine for each recipient.
type network struct {
	wg     sync.WaitGroup
	queues []chan []byte
}

func newNetwork(m *meter, delay time.Duration, f fault) *network {
	w := &network{}
	for i := range m.pairs {
		q := make(chan []byte, 1<<15)
		w.queues = append(w.queues, q)
		w.wg.Go(func() {
			n := 0
			for b := range q {
				time.Sleep(delay)
				for _, c := range f(n, b) {
					m.received(i, c)
				}
				n++
			}
		})
	}
	return w
}

func (w *network) send(_, to int, b []byte, _ func(client.Result)) error {
	w.queues[to] <- bytes.Clone(b)
	return nil
}

func (w *network) close() {
	for _, q := range w.queues {
		close(q)
	}
	w.wg.Wait()
}

func whole(_ int, b []byte) [][]byte { return [][]byte{b} }

// TestBooks: what a network loses, repeats, overtakes or damages is noticed, and nothing else is.
func TestBooks(t *testing.T) {
	var held []byte
	type counts struct{ lost, duplicated, disordered, damaged int64 }
	for _, c := range []struct {
		name  string
		pairs int // each has one fault
		fault fault
		want  counts
		word  string
	}{
		{"clean", 3, whole, counts{}, ""},
		{"one dropped", 2, func(n int, b []byte) [][]byte {
			if n == 50 {
				return nil
			}
			return [][]byte{b}
		}, counts{lost: 2}, "2 messages were lost"},
		{"one twice", 2, func(n int, b []byte) [][]byte {
			if n == 50 {
				return [][]byte{b, b}
			}
			return [][]byte{b}
		}, counts{duplicated: 2}, "2 messages arrived twice"},
		{"an old one again", 1, func(n int, b []byte) [][]byte {
			switch n {
			case 10:
				held = b
			case 90:
				return [][]byte{held, b}
			}
			return [][]byte{b}
		}, counts{duplicated: 1}, "1 message arrived twice"},
		{"overtaken", 1, func(n int, b []byte) [][]byte {
			switch n {
			case 10:
				held = b
				return nil
			case 20:
				return [][]byte{b, held}
			}
			return [][]byte{b}
		}, counts{disordered: 1}, "behind a later one"},
		{"cut short", 2, func(n int, b []byte) [][]byte {
			if n == 50 {
				return [][]byte{b[:30]}
			}
			return [][]byte{b}
		}, counts{lost: 2, damaged: 2}, "damaged"},
		{"a stranger", 2, func(n int, b []byte) [][]byte {
			if n == 50 {
				c := bytes.Clone(b)
				c[12] = 200
				return [][]byte{b, c}
			}
			return [][]byte{b}
		}, counts{damaged: 2}, "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w *network
				m := testMeter(SendOptions{Pairs: c.pairs, Window: 8}, func(m *meter) link {
					w = newNetwork(m, time.Millisecond, c.fault)
					return w.send
				})
				r := runFor(m, time.Second)
				w.close()
				if got := (counts{r.Lost, r.Duplicated, r.Disordered, r.Damaged}); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				if text := strings.Join(r.Problems, "; "); (text == "") != (c.word == "") || !strings.Contains(text, c.word) {
					t.Errorf("problems: %q, want %q", text, c.word)
				}
				if r.Received < int64(c.pairs)*950 {
					t.Errorf("only %d received", r.Received)
				}
			})
		})
	}
}

// TestWindow: never more in flight for a recipient than allowed, and all of it used.
func TestWindow(t *testing.T) {
	for _, spread := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var w *network
			most := int64(0)
			m := testMeter(SendOptions{Pairs: 4, Window: 16, Spread: spread}, func(m *meter) link {
				w = newNetwork(m, time.Millisecond, whole)
				var mu sync.Mutex
				return func(from, to int, b []byte, done func(client.Result)) error {
					mu.Lock()
					most = max(most, m.recipients[to].sent.Load()-m.recipients[to].over.Load())
					mu.Unlock()
					return w.send(from, to, b, done)
				}
			})
			r := runFor(m, time.Second)
			w.close()
			limit := int64(16)
			if spread {
				limit += 3 // senders that looked at the same moment
			}
			if most < 16 || most > limit {
				t.Errorf("spread %v: %d in flight", spread, most)
			}
			if len(r.Problems) > 0 || r.Received < 3900 { // 4 recipients, one message a millisecond each
				t.Errorf("spread %v: %+v", spread, r)
			}
		})
	}
}

// TestStall: an open loop charges a stall to everything that was due meanwhile, although little was sent in it.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := testMeter(SendOptions{Pairs: 1, Rate: 1000, Window: 10_000}, func(m *meter) link {
			return func(_, to int, b []byte, _ func(client.Result)) error {
				if n++; n == 100 {
					time.Sleep(500 * time.Millisecond)
				}
				m.received(to, b)
				return nil
			}
		})
		r := runFor(m, time.Second)
		// 500 of 1000 were late, by 0 to 500 ms in equal parts.
		if r.Received < 950 || r.Lost != 0 || r.P99 < 450e3 || r.P99 > 520e3 || r.P50 > 50e3 {
			t.Errorf("%+v", r)
		}
		if r.Send.SentP99 > 10e3 {
			t.Errorf("from the real sending time: %+v", *r.Send)
		}
		if r.Offered != 1000 {
			t.Errorf("offered %g", r.Offered)
		}
	})
}

// TestClosedLoop: results drive it; a bad one counts as lost, even if the message came.
func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		n := 0
		m := testMeter(SendOptions{Pairs: 3, Ack: wire.AckClient}, func(m *meter) link {
			return func(_, to int, b []byte, done func(client.Result)) error {
				mu.Lock()
				n++
				code := wire.Delivered
				if n == 100 {
					code = wire.Timeout
				}
				mu.Unlock()
				b = bytes.Clone(b)
				wg.Go(func() {
					time.Sleep(10 * time.Millisecond)
					m.received(to, b)
					done(client.Result{Code: code})
				})
				return nil
			}
		})
		r := runFor(m, time.Second)
		wg.Wait()
		if r.Lost != 1 || r.Received < 290 || r.Received > 300 || r.P50 < 9900 || r.P50 > 10_200 || !strings.Contains(strings.Join(r.Problems, ""), "1 timeout") {
			t.Errorf("%+v", r)
		}
	})
}

// TestFalseResult: a message that was called delivered and never came is lost.
func TestFalseResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		n := 0
		m := testMeter(SendOptions{Pairs: 1, Ack: wire.AckOwner}, func(m *meter) link {
			return func(_, to int, b []byte, done func(client.Result)) error {
				n++
				arrives := n != 5
				b = bytes.Clone(b)
				wg.Go(func() {
					time.Sleep(time.Millisecond)
					if arrives {
						m.received(to, b)
					}
					done(client.Result{Code: wire.Delivered})
				})
				return nil
			}
		})
		r := runFor(m, 100*time.Millisecond)
		wg.Wait()
		if r.Lost != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestRefused: what the cluster refuses is lost, with its reason, and makes room for more.
func TestRefused(t *testing.T) {
	for _, spread := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			count := [2]uint64{}
			var w *network
			m := testMeter(SendOptions{Pairs: 2, Window: 4, Spread: spread}, func(m *meter) link {
				w = newNetwork(m, time.Millisecond, whole)
				return func(from, to int, b []byte, done func(client.Result)) error {
					mu.Lock()
					defer mu.Unlock()
					if count[from]++; count[from]%10 == 0 {
						m.refused(from, count[from], wire.Overloaded)
						return nil
					}
					return w.send(from, to, b, done)
				}
			})
			r := runFor(m, time.Second)
			w.close()
			if m.pending() != 0 || r.Received < 1800 || r.Lost < 180 || !strings.Contains(strings.Join(r.Problems, ""), "overloaded") {
				t.Errorf("spread %v: pending %d, %+v", spread, m.pending(), r)
			}
		})
	}
}

// TestBroken: a sender whose client ends is told of, and the run ends as planned.
func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMeter(SendOptions{Pairs: 2}, func(m *meter) link {
			return func(int, int, []byte, func(client.Result)) error { return errors.New("client is closed") }
		})
		if r := runFor(m, time.Second); !strings.Contains(strings.Join(r.Problems, ""), "client is closed") {
			t.Errorf("%+v", r)
		}
	})
}

// TestSilence: nothing arrives at all, and it still ends.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := testMeter(SendOptions{Pairs: 2, Window: 5}, func(m *meter) link {
			return func(int, int, []byte, func(client.Result)) error { return nil }
		})
		r := runFor(m, time.Second)
		if r.Lost != 10 || r.Received != 0 || time.Since(start) > 5*time.Second {
			t.Errorf("after %v: %+v", time.Since(start), r)
		}
	})
}
