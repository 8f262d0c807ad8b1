package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// outage is a back end that nobody can reach for a while, in virtual time.
type outage struct {
	from, to time.Time
	answer   time.Duration // that each request takes while it is there

	mu       sync.Mutex
	tries    int // while it was away
	open     int // requests at the same time
	mostOpen int
	seen     []Event
	last     time.Time // that something came
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	o.open++
	o.mostOpen = max(o.mostOpen, o.open)
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.open--
	}()
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = Verify(secret, r.Header.Get(SignatureHeader), raw, time.Now(), time.Minute)
	}
	if err != nil {
		return nil, err
	}
	if at := time.Now(); !at.Before(o.from) && at.Before(o.to) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tries++
		return nil, errors.New("connection refused")
	}
	time.Sleep(o.answer)
	var got body
	if err := json.Unmarshal(raw, &got); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen, o.last = append(o.seen, got.Events...), time.Now()
	return &http.Response{StatusCode: http.StatusNoContent, Status: "204 No Content", Body: http.NoBody, Request: r}, nil
}

// inOrder checks that each client's events came in their order, none twice, and returns how many came.
func (o *outage) inOrder(t *testing.T) int {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	last := map[string]wire.Epoch{}
	for _, e := range o.seen {
		if e.Epoch <= last[e.Client] {
			t.Errorf("%s: epoch %d behind %d", e.Client, e.Epoch, last[e.Client])
		}
		last[e.Client] = e.Epoch
	}
	return len(o.seen)
}

// through emits an event each 5 ms for a minute, from 20 clients in turn, while the back end is away for 20 s.
func through(t *testing.T, queue int) (o *outage, st Stats, log string, emitted int) {
	t.Helper()
	var logged bytes.Buffer
	start := time.Now()
	o = &outage{from: start.Add(10 * time.Second), to: start.Add(30 * time.Second), answer: 3 * time.Millisecond}
	s, err := New(Config{URL: "https://back.example/hook", Secret: secret, Queue: queue, Client: &http.Client{Transport: o}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Open()
	const clients = 20
	for i := 0; time.Since(start) < time.Minute; i++ {
		before := time.Now()
		s.Emit(session(Connected, i%clients, i/clients+1))
		if waited := time.Since(before); waited != 0 {
			t.Fatalf("who emits waited for %v", waited)
		}
		if n := s.Stats().Queued; n > queue {
			t.Fatalf("%d events wait, the limit is %d", n, queue)
		}
		emitted++
		time.Sleep(5 * time.Millisecond)
	}
	closeAll(t, s, time.Minute)
	return o, s.Stats(), logged.String(), emitted
}

// TestOutage: a back end that is away for 20 s has everything afterwards, each client's events in their order, if there is room for
// them; it is not flooded meanwhile, and whoever emits never waits.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, st, log, emitted := through(t, 20_000)
		if n := o.inOrder(t); n != emitted || st.Delivered != uint64(emitted) || st.Dropped() != 0 || st.Failing {
			t.Errorf("%d of %d came: %+v", n, emitted, st)
		}
		// 0.2 s that doubles: some eight times for each of the four queues.
		if o.tries < shards || o.tries > 12*shards || uint64(o.tries) != st.Failures || o.mostOpen > shards {
			t.Errorf("%d requests in vain, %d counted, %d at once", o.tries, st.Failures, o.mostOpen)
		}
		for what, want := range map[string]int{"the webhook fails": 1, "the webhook answers again": 1, "dropped": 0} {
			if got := strings.Count(log, what); got != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", what, got, want, log)
			}
		}
	})
}

// TestOutageOverflows: without room for all of it what comes last is dropped, counted, and said from time to time; what there was
// room for comes in order, and so does what follows the outage.
func TestOutageOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const queue = 400
		o, st, log, emitted := through(t, queue)
		n := o.inOrder(t)
		if st.Overflow == 0 || st.Refused != 0 || st.Lost != 0 || st.Delivered != uint64(n) || st.Delivered+st.Overflow != uint64(emitted) {
			t.Errorf("%d came of %d: %+v", n, emitted, st)
		}
		// It was there for 40 of the 60 s, and may be tried again some 25 s after it came back.
		if least := emitted / 4; n < least {
			t.Errorf("%d came, want %d at least", n, least)
		}
		if told := strings.Count(log, "events are dropped"); told < 1 || told > 6 || !strings.Contains(log, "dropped=1\n") {
			t.Errorf("that events are dropped is logged %d times:\n%s", told, log)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		final := map[string]bool{}
		for _, e := range o.seen[max(0, len(o.seen)-100):] {
			final[e.Client] = true
		}
		if len(final) != 20 {
			t.Errorf("after the outage only %d of 20 clients are heard of", len(final))
		}
	})
}
