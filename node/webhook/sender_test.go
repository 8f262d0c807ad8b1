package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of enough characters"

// backend is a back end that fails as it is told.
type backend struct {
	*httptest.Server
	fail func(request int) (status int, cut bool) // status 0: it takes the events

	mu       sync.Mutex
	requests int     // guarded by mu
	seen     []Event // guarded by mu: each time it took one
	bad      []error // guarded by mu
}

func newBackend(t *testing.T, fail func(int) (int, bool)) *backend {
	b := &backend{fail: fail}
	b.Server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) serve(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = Verify(secret, r.Header.Get(SignatureHeader), raw, time.Now(), time.Minute)
	}
	var got body
	if err == nil {
		err = json.Unmarshal(raw, &got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests++
	if err != nil {
		b.bad = append(b.bad, err)
	}
	if len(got.Events) == 0 || len(got.Events) > maxBatch {
		b.bad = append(b.bad, fmt.Errorf("%d events", len(got.Events)))
	}
	status, cut := 0, false
	if b.fail != nil {
		status, cut = b.fail(b.requests)
	}
	if status == 0 {
		b.seen = append(b.seen, got.Events...)
	}
	if cut { // after it took them, or not: the sender cannot know
		panic(http.ErrAbortHandler)
	}
	if status != 0 {
		w.WriteHeader(status)
	}
}

func (b *backend) events() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Event(nil), b.seen...)
}

func open(t *testing.T, cfg Config) *Sender {
	cfg.Secret = secret
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin, cfg.BackoffMax = time.Millisecond, 5*time.Millisecond
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Open()
	return s
}

func closeAll(t *testing.T, s *Sender, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

func session(kind string, client, epoch int) Event {
	return Session(kind, "n1", wire.ClientID{Tenant: "acme", ID: fmt.Sprint("c", client)}, wire.Epoch(epoch), "")
}

// TestFailingBackend: a back end that answers errors, breaks connections before and after it took what was sent, and then goes
// on, has every event at least once, and each client's in their order.
func TestFailingBackend(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := newBackend(t, func(int) (int, bool) {
		switch rnd.IntN(5) {
		case 0:
			return []int{500, 503, 429, 404, 302}[rnd.IntN(5)], false
		case 1:
			return 500, true
		case 2:
			return 0, true
		}
		return 0, false
	})
	s := open(t, Config{URL: b.URL})
	const clients, each = 20, 50
	for epoch := range each {
		for c := range clients {
			s.EmitWait(t.Context(), session(Connected, c, epoch+1))
		}
	}
	closeAll(t, s, 20*time.Second)
	if st := s.Stats(); st.Queued != 0 || st.Delivered != clients*each || st.Dropped() != 0 || st.Failures == 0 {
		t.Errorf("%+v", st)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, err := range b.bad {
		t.Error(err)
	}
	first := map[string]bool{}
	last := map[string]wire.Epoch{}
	repeated := 0
	for _, e := range b.seen {
		if first[e.ID+e.Client] {
			repeated++
			continue
		}
		first[e.ID+e.Client] = true
		if e.Epoch != last[e.Client]+1 {
			t.Fatalf("%s: epoch %d behind %d", e.Client, e.Epoch, last[e.Client])
		}
		last[e.Client] = e.Epoch
		if e.Tenant != "acme" || e.Node != "n1" || e.Event != Connected || e.Time.IsZero() {
			t.Fatalf("%+v", e)
		}
	}
	if len(first) != clients*each {
		t.Errorf("%d of %d events arrived", len(first), clients*each)
	}
	t.Logf("%d requests, %d events repeated", b.requests, repeated)
}

// TestBounded: while the back end is gone events beyond the limit are dropped, the newest first, and counted; Close does not wait
// for ever and counts what is lost.
func TestBounded(t *testing.T) {
	b := newBackend(t, func(int) (int, bool) { return 503, false })
	s := open(t, Config{URL: b.URL, Queue: 40})
	for i := range 30 {
		s.Emit(session(Connected, 1, i+1)) // one client, one shard: ten find room
	}
	if st := s.Stats(); st.Queued != 10 || st.Overflow != 20 {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s.EmitWait(ctx, session(Connected, 1, 99))
	wait(t, func() bool { return s.Stats().Failing })
	waiting := make(chan struct{})
	go func() { s.EmitWait(context.Background(), session(Connected, 1, 100)); close(waiting) }()
	closeAll(t, s, 50*time.Millisecond)
	<-waiting // Close lets those go who wait for room
	s.Emit(session(Connected, 1, 101))
	if st := s.Stats(); st.Lost != 10 || st.Overflow != 23 || st.Queued != 0 || st.Delivered != 0 {
		t.Errorf("%+v", st)
	}
	closeAll(t, s, time.Second) // again
}

func wait(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s")
		}
		<-time.After(time.Millisecond)
	}
}

// TestRefusedForGood: what the back end can never take does not keep what is behind it from arriving.
func TestRefusedForGood(t *testing.T) {
	b := newBackend(t, func(n int) (int, bool) {
		if n == 1 {
			return http.StatusUnprocessableEntity, false
		}
		return 0, false
	})
	s := open(t, Config{URL: b.URL, Events: []string{Disconnected}})
	s.Emit(session(Connected, 1, 1)) // not asked for
	s.Emit(session(Disconnected, 1, 1))
	wait(t, func() bool { return s.Stats().Refused == 1 })
	s.Emit(session(Disconnected, 1, 2))
	closeAll(t, s, 10*time.Second)
	if got := b.events(); len(got) != 1 || got[0].Epoch != 2 {
		t.Errorf("%+v", got)
	}
	if st := s.Stats(); st.Dropped() != 1 || st.Delivered != 1 {
		t.Errorf("%+v", st)
	}
}

// TestIDs: whoever reports the same thing gives it the same id, and different things get different ones.
func TestIDs(t *testing.T) {
	alice, bob := wire.ClientID{ID: "alice"}, wire.ClientID{ID: "bob"}
	a := Session(Disconnected, "n1", alice, 7, "kicked")
	if b := Session(Disconnected, "n2", alice, 7, NodeLost); a.ID != b.ID {
		t.Error(a.ID, b.ID)
	}
	ids := map[string]bool{
		a.ID: true, Session(Connected, "n1", alice, 7, "").ID: true, Session(Disconnected, "n1", alice, 8, "").ID: true,
		Message("n1", alice, "x", wire.MessageID{Instance: 1, Counter: 2}, wire.Offline).ID: true,
		Message("n1", bob, "x", wire.MessageID{Instance: 1, Counter: 2}, wire.Offline).ID:   true,
		Message("n1", bob, "x", wire.MessageID{Instance: 1, Counter: 3}, wire.Offline).ID:   true,
	}
	if len(ids) != 6 {
		t.Error(ids)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"URL":        {Secret: secret},
		"plain http": {URL: "http://example.com/hook", Secret: secret},
		"secret":     {URL: "https://example.com/hook", Secret: "short"},
		`unknown event "born": want some of connected, disconnected, undeliverable`: {URL: "https://example.com/hook", Secret: secret, Events: []string{"born"}},
		"want https:": {URL: "https://user@example.com/hook", Secret: secret},
		"Queue":       {URL: "https://example.com/hook", Secret: secret, Queue: 1},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, u := range []string{"http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:5/x", "https://example.com"} {
		if _, err := New(Config{URL: u, Secret: secret}); err != nil {
			t.Error(err)
		}
	}
	if got := Shown("https://example.com/hook?key=secret"); got != "https://example.com/hook" {
		t.Error(got)
	}
	a, err := NewAsker(AskConfig{URL: "http://127.0.0.1:1/hook?key=hidden", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Ask(t.Context(), 1, nil); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("nobody is there: %v", err)
	}
	var none *Sender // what a node without a webhook has
	none.Emit(session(Connected, 1, 1))
	if none.Wants(Connected) || none.Stats() != (Stats{}) || none.Close(t.Context()) != nil {
		t.Error("nil does something")
	}
}

func TestVerify(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	raw := []byte(`{"events":[]}`)
	good := Sign(secret, at, raw)
	if want := "t=1800000000,v1="; !strings.HasPrefix(good, want) || len(good) != len(want)+64 {
		t.Fatal(good)
	}
	for name, tt := range map[string]struct {
		header string
		body   string
		now    time.Time
		ok     bool
	}{
		"good":        {good, string(raw), at.Add(time.Minute), true},
		"two secrets": {good + ",v1=00", string(raw), at, true},
		"old":         {good, string(raw), at.Add(time.Hour), false},
		"early":       {good, string(raw), at.Add(-time.Hour), false},
		"body":        {good, string(raw) + " ", at, false},
		"time":        {strings.Replace(good, "t=18", "t=17", 1), string(raw), time.Unix(1_700_000_000, 0), false},
		"empty":       {"", string(raw), at, false},
		"no sum":      {"t=1800000000", string(raw), at, false},
		"other":       {Sign(secret+"x", at, raw), string(raw), at, false},
	} {
		err := Verify(secret, tt.header, []byte(tt.body), tt.now, 5*time.Minute)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzVerify: nothing but the right signature is taken, and nothing crashes.
func FuzzVerify(f *testing.F) {
	at := time.Unix(1_800_000_000, 0)
	f.Add(Sign(secret, at, []byte("x")), []byte("x"))
	f.Add("t=,v1=", []byte{})
	f.Add("t=1800000000,v1=zz,v1=", []byte("x"))
	f.Fuzz(func(t *testing.T, header string, raw []byte) {
		if Verify(secret, header, raw, at, time.Minute) != nil {
			return
		}
		_, rest, _ := strings.Cut(Sign(secret, at, raw), "v1=")
		if !strings.Contains(strings.ToLower(header), rest) && !strings.Contains(header, "t=") {
			t.Fatalf("%q is taken for %q", header, raw)
		}
	})
}
