package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
	"imroute/node/webhook"
)

// newAsked is a back end that is asked: it denies mallory, lets eve do little, and everybody else what the node lets them do; ann's
// friends are bob and carol.
func newAsked(t *testing.T, down *atomic.Bool) (url string, asked *atomic.Int32) {
	asked = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(hookSecret, r.Header.Get(webhook.SignatureHeader), raw, time.Now(), time.Minute)
		}
		var q struct {
			Login *webhook.Login `json:"login"`
			Of    *webhook.Login `json:"friends_of"`
		}
		if err == nil {
			err = json.Unmarshal(raw, &q)
		}
		if err != nil || (q.Login == nil) == (q.Of == nil) {
			t.Errorf("%s: %v", raw, err)
		}
		answer := func(status int, body string) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
		asked.Add(1)
		switch {
		case down.Load():
			answer(http.StatusBadGateway, "")
		case q.Of != nil && q.Of.User == "ann":
			answer(200, `{"friends":["bob","carol"]}`)
		case q.Of != nil:
			answer(http.StatusNotFound, "")
		case q.Login.User == "odd": // its author took a status 200 for a refusal
			answer(200, `{"error":"banned"}`)
		case q.Login.User == "mallory":
			answer(http.StatusForbidden, `{"error":"banned"}`)
		case q.Login.User == "eve":
			answer(200, `{"send":["user:ann"],"join":[]}`)
		default:
			answer(200, `{}`)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// TestAskedAtLogin: A4, what a client may do is asked by webhook when it logs in, once; the back end may say no, and without its answer
// nobody is let in until it answers again.
func TestAskedAtLogin(t *testing.T) {
	var down atomic.Bool
	url, asked := newAsked(t, &down)
	c := newCluster(t)
	n := c.found("n1", func(cfg *Config) { cfg.Webhook.LoginURL, cfg.Webhook.Secret = url, hookSecret })
	ann := c.dial("ann", n)
	eve := c.dial("eve/phone", n)
	for range 3 { // nobody is asked for each message
		eve.send("ann", "hello", wire.AckOwner, wire.Delivered, patience)
		ann.hears("hello")
		eve.send("bob", "hello", wire.AckOwner, wire.Forbidden, patience)
		ann.send("nobody", "hello", wire.AckOwner, wire.Offline, patience)
	}
	var we *wire.Error
	if err := eve.Join(c.ctx, "room"); !errors.As(err, &we) || we.Code != wire.Forbidden || !strings.Contains(we.Text, "the operator's login webhook does not let") {
		t.Errorf("eve joins: %v", err)
	}
	if err := ann.Join(c.ctx, "room"); err != nil {
		t.Errorf("ann joins: %v", err)
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times for two logins", asked.Load())
	}
	cfg, u := dialConfig("mallory", n)
	if err := c.dialErr(cfg, u); !errors.As(err, &we) || we.Code != wire.Forbidden || !strings.Contains(we.Text, "banned") {
		t.Errorf("mallory logs in: %v", err)
	}

	t.Log("an answer that means something else than it says lets nobody in, and the operator is told why")
	cfg, u = dialConfig("odd", n)
	ctx, cancel := context.WithCancel(c.ctx)
	in := make(chan error, 1)
	go func() { in <- c.dialIn(ctx, cfg, u) }()
	u.t = t
	refused := u.sees("busy", func(s client.State) bool { return s.Code == wire.Busy })
	if !strings.Contains(refused.Text, "login webhook fails") || strings.Contains(refused.Text, "json") {
		t.Errorf("%+v", refused)
	}
	cancel()
	if err := <-in; err == nil {
		t.Error("odd was let in")
	}
	if got := n.metrics.loginAsksFailed.Load(); got == 0 {
		t.Error("the failure is not counted")
	}

	t.Log("without an answer nobody is let in; with one everybody who tried")
	says := func(problem string) bool { return strings.Contains(problem, "login webhook") }
	down.Store(true)
	cfg, u = dialConfig("bob", n)
	in = make(chan error, 1)
	go func() { in <- c.dialErr(cfg, u) }()
	u.t = t
	refused = u.sees("busy", func(s client.State) bool { return s.Code == wire.Busy })
	if !strings.Contains(refused.Text, "login webhook fails") {
		t.Errorf("%+v", refused)
	}
	if st, err := (api{n}).ClusterStatus(c.ctx); err != nil || !slices.ContainsFunc(st.Problems, says) {
		t.Errorf("problems: %v, %v", st.Problems, err)
	}
	eve.send("ann", "meanwhile", wire.AckOwner, wire.Delivered, patience)
	down.Store(false)
	if err := <-in; err != nil {
		t.Errorf("bob: %v", err)
	}
	if got := n.metrics.loginAsksFailed.Load(); got == 0 {
		t.Error("the failure is not counted")
	}
	if st, err := (api{n}).ClusterStatus(c.ctx); err != nil || slices.ContainsFunc(st.Problems, says) {
		t.Errorf("it answers again, and there is a problem still: %v, %v", st.Problems, err)
	}
}

// TestFriendsByWebhook: E4, a friend source can be plugged in by URL. Whose friends it names sees them come and go, on whichever node.
func TestFriendsByWebhook(t *testing.T) {
	var down atomic.Bool
	url, asked := newAsked(t, &down)
	c := newCluster(t)
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.Webhook.FriendsURL, cfg.Webhook.Secret = url, hookSecret })
	ann := c.dial("ann", n1)
	w := ann.watch()
	w.seesOffline("bob")
	w.seesOffline("carol")
	bob := c.dial("bob", n2)
	w.seesOnline("bob", "n2")
	c.dial("carol/phone", n3)
	w.seesOnline("carol", "n3")
	bob.hangUp()
	w.seesOffline("bob")
	w.stop()
	<-w.result

	t.Log("the answer serves for a while, even if the back end does not answer")
	down.Store(true)
	before := asked.Load()
	w = ann.watch()
	w.seesOffline("bob")
	if asked.Load() != before {
		t.Error("asked again at once")
	}
	dan := c.dial("dan", n1)
	var we *wire.Error
	if err := <-dan.watch().result; !errors.As(err, &we) || we.Code != wire.Unavailable || we.Text != "the friend source: it fails, and nobody can be shown: try again later" {
		t.Errorf("dan, whose friends nobody can say: %v", err)
	}
	down.Store(false)
	dan.watch() // and now they can: he has none, which is no error
	c.until("asked about dan", func() error {
		if asked.Load() < before+2 {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestAskedConfig: what does not fit together is said at the start.
func TestAskedConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Webhook.LoginURL = "https://x/y" }, "login-webhook: webhook: the secret"},
		{func(c *Config) { c.Webhook.FriendsURL, c.Webhook.Secret = "http://example.com", hookSecret }, "friends-webhook: webhook: URL"},
		{func(c *Config) { c.Webhook.FriendsTTL = time.Second }, "friends-ttl without"},
		{func(c *Config) { c.Webhook.URL, c.Webhook.Events = "https://x/y", []string{"connect"} }, `unknown event "connect": want some of connected, disconnected, undeliverable`},
		{func(c *Config) { c.Webhook.Secret = hookSecret }, "a secret without --webhook, --login-webhook"},
		{func(c *Config) {
			c.Webhook.FriendsURL, c.Webhook.Secret, c.Friends = "https://x/y", hookSecret, FriendFunc(nil)
		}, "a friend source of its own"},
		{func(c *Config) { c.Webhook.LoginURL, c.Webhook.Secret = "https://x/y", hookSecret }, ""},
	} {
		cfg := Config{Name: "n1", Data: t.TempDir()}
		c.change(&cfg)
		_, err := New(cfg, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestFriendsTold: what goes wrong with a friend source is for the operator's log, once until it answers again; the client reads plain
// words, and what the back end says to it.
func TestFriendsTold(t *testing.T) {
	var log bytes.Buffer
	var err error
	f := &friendsTold{log: slog.New(slog.NewTextHandler(&log, nil)), source: FriendFunc(func(context.Context, wire.ClientID) ([]string, error) { return []string{"bob"}, err })}
	ask := func(ctx context.Context, fails error, want string, lines int) {
		t.Helper()
		err = fails
		ids, got := f.Friends(ctx, wire.ClientID{ID: "ann"})
		if (got == nil) != (want == "") || got != nil && (got.Error() != want || ids != nil) || strings.Count(log.String(), "\n") != lines {
			t.Errorf("%v, %v, want %q; %d lines in\n%s", ids, got, want, lines, log.String())
		}
	}
	var typed struct{ Friends []string }
	inside := json.Unmarshal([]byte(`{"friends":{"a":1}}`), &typed)
	const plain = "it fails, and nobody can be shown: try again later"
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ask(t.Context(), nil, "", 0)
	ask(gone, context.Canceled, plain, 0)
	ask(t.Context(), inside, plain, 1)
	ask(t.Context(), inside, plain, 1)
	if !strings.Contains(log.String(), "cannot unmarshal object") {
		t.Errorf("no details in the log: %s", log.String())
	}
	ask(t.Context(), &webhook.Denied{Status: 403, Text: "not for guests"}, "it refuses: not for guests", 2)
	ask(t.Context(), inside, plain, 3)
	ask(t.Context(), nil, "", 4)
}
