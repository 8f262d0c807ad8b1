package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

const askSecret = "a secret of some length"

// backEnd answers with what answer says, after it has checked the signature.
func backEnd(t *testing.T, answer func(asked string) (status int, body string)) (url string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = Verify(askSecret, r.Header.Get(SignatureHeader), raw, time.Now(), time.Minute)
		}
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.Method, raw, err)
		}
		status, body := answer(string(raw))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func asker(t *testing.T, cfg AskConfig) *Asker {
	t.Helper()
	cfg.Secret = askSecret
	a, err := NewAsker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		status     int
		body       string
		send, join []string // nil: does not say
		denied     string
		fails      string
	}{
		{200, `{"send":["user:*"],"join":[]}`, []string{"user:*"}, []string{}, "", ""},
		{201, `{"join":["group:x"]}`, nil, []string{"group:x"}, "", ""},
		// What was meant otherwise than it is understood lets nobody in.
		{200, `{"error":"banned"}`, nil, nil, "", `it has an "error" but a status 2xx: to refuse, answer 403`},
		{200, `{"send":[],"error":""}`, nil, nil, "", "to refuse, answer 403"},
		{200, `{"allow":false}`, nil, nil, "", `"allow", which means nothing here`},
		{200, `{"sned":["*"]}`, nil, nil, "", `"sned", which means nothing here`},
		{200, `{"Send":["*"]}`, nil, nil, "", `"Send", which means nothing here`},
		{200, `{"send":[],"SEND":["*"]}`, nil, nil, "", `"SEND", which means nothing here`},
		{200, `{"send":[],"send":["*"]}`, nil, nil, "", `"send" is given twice`},
		{200, `{"send":[null]}`, nil, nil, "", "send must be a list"},
		{200, `{} {"send":[]}`, nil, nil, "", "something follows"},
		{204, ``, nil, nil, "", "it is empty"},
		{200, "\n", nil, nil, "", "it is empty"},
		{200, `{}`, nil, nil, "", ""},
		{200, `{"send":null}`, nil, nil, "", "send must be a list"},
		{200, `{"join":"*"}`, nil, nil, "", "join must be a list"},
		{200, `null`, nil, nil, "", "not what was asked for"},
		{200, `[]`, nil, nil, "", "not what was asked for"},
		{200, `<html>`, nil, nil, "", "not what was asked for"},
		{200, ``, nil, nil, "", "not what was asked for"},
		{200, `{"x":"` + strings.Repeat("y", maxAnswer) + `"}`, nil, nil, "", "longer than"},
		{403, `{"error":"banned\nfor spam"}`, nil, nil, "banned for spam", ""},
		{401, `no JSON`, nil, nil, "the back end answers Unauthorized", ""},
		{403, `{"error":"` + strings.Repeat("é", 300) + `"}`, nil, nil, strings.Repeat("é", 100) + "…", ""},
		{429, `{"error":"later"}`, nil, nil, "", "429"},
		{408, ``, nil, nil, "", "408"},
		{500, ``, nil, nil, "", "500"},
		{302, ``, nil, nil, "", "302"},
	} {
		url := backEnd(t, func(asked string) (int, string) {
			if want := `{"login":{"client":"bob/phone","tenant":"acme","user":"bob","node":"n1"}}`; asked != want {
				t.Errorf("asked %s, want %s", asked, want)
			}
			return c.status, c.body
		})
		got, err := asker(t, AskConfig{URL: url}).Allowed(t.Context(), wire.ClientID{Tenant: "acme", ID: "bob/phone"}, "n1")
		var denied *Denied
		switch {
		case c.denied != "":
			if !errors.As(err, &denied) || denied.Status != c.status || denied.Error() != c.denied {
				t.Errorf("%d %.60s: %v", c.status, c.body, err)
			}
		case c.fails != "":
			if err == nil || errors.As(err, &denied) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%d %.60s: %v, want %s", c.status, c.body, err, c.fails)
			}
		case err != nil || !sameList(got.Send, c.send) || !sameList(got.Join, c.join):
			t.Errorf("%d %s: %+v, %v", c.status, c.body, got, err)
		}
	}
}

func sameList(got *[]string, want []string) bool {
	return (got == nil) == (want == nil) && (got == nil || slices.Equal(*got, want))
}

// TestAskIsBounded: a back end that does not answer is waited for so long, and by so many at once.
func TestAskIsBounded(t *testing.T) {
	release := make(chan struct{})
	var open, most atomic.Int32
	url := backEnd(t, func(string) (int, string) {
		most.Store(max(most.Load(), open.Add(1)))
		<-release
		open.Add(-1)
		return 200, "{}"
	})
	a := asker(t, AskConfig{URL: url, Timeout: 100 * time.Millisecond, AtOnce: 2})
	ended := make(chan error)
	for range 6 {
		go func() {
			_, err := a.Allowed(t.Context(), wire.ClientID{ID: "bob"}, "n1")
			ended <- err
		}()
	}
	for range 6 {
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	close(release)
	if most.Load() > 4 { // two requests, and two that came when these were given up
		t.Errorf("%d requests at once", most.Load())
	}
	for url, want := range map[string]string{"http://example.com/x": "loopback", "ftp://x": "https", "": "https"} {
		if _, err := NewAsker(AskConfig{URL: url, Secret: askSecret}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := NewAsker(AskConfig{URL: "https://example.com", Secret: "short"}); err == nil {
		t.Error("a short secret is taken")
	}
}

func TestFriendsCache(t *testing.T) {
	clock := time.Unix(1000, 0)
	var asked atomic.Int32
	status, long := http.StatusOK, strings.Repeat("x", 200)
	url := backEnd(t, func(q string) (int, string) {
		asked.Add(1)
		var of struct {
			Of Login `json:"friends_of"`
		}
		if err := json.Unmarshal([]byte(q), &of); err != nil || of.Of.User == "" {
			t.Errorf("%s: %v", q, err)
		}
		b, _ := json.Marshal(map[string]any{"friends": []string{of.Of.Client + "-1", long}})
		return status, string(b)
	})
	f, err := NewFriends(FriendsConfig{Ask: AskConfig{URL: url, Secret: askSecret}, TTL: time.Minute, Max: 2000, now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ask := func(id string, wantAsked int32) {
		t.Helper()
		got, err := f.Friends(t.Context(), wire.ClientID{ID: id})
		if err != nil || !slices.Equal(got, []string{id + "-1", long}) || asked.Load() != wantAsked {
			t.Errorf("%v, %v, asked %d times, want %d", got, err, asked.Load(), wantAsked)
		}
	}
	ask("a", 1)
	ask("a", 1)
	ask("b", 2)
	clock = clock.Add(time.Minute)
	ask("a", 3)
	for i, id := range []string{"c", "d", "e", "f", "g"} { // more than there is room for: b and a go
		ask(id, int32(4+i))
	}
	if f.size > f.max || f.old.Len() != len(f.by) || f.by[wire.ClientID{ID: "a"}] != nil || f.by[wire.ClientID{ID: "g"}] == nil {
		t.Errorf("%d bytes in %d lists", f.size, f.old.Len())
	}
	ask("a", 9)

	status = http.StatusBadGateway
	for range 2 { // failures are not kept
		if _, err := f.Friends(t.Context(), wire.ClientID{ID: "z"}); err == nil || !strings.Contains(err.Error(), "friend lists: it answered 502") {
			t.Error(err)
		}
	}
	status = http.StatusForbidden
	if _, err := f.Friends(t.Context(), wire.ClientID{ID: "z"}); err == nil || !strings.Contains(err.Error(), "it refuses") {
		t.Error(err)
	}
	status = http.StatusNotFound
	if got, err := f.Friends(t.Context(), wire.ClientID{ID: "z"}); err != nil || len(got) != 0 || asked.Load() != 13 {
		t.Error(got, err, asked.Load())
	}
}

// TestFriendsAnswers: answers that were meant otherwise are no lists of friends.
func TestFriendsAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`{"friends":["bob"]}`:             "",
		`{"friends":[]}`:                  "",
		`{}`:                              `has no "friends"`,
		``:                                "it is empty",
		`{"Friends":["bob"]}`:             `"Friends", which means nothing here`,
		`{"friends":["bob"],"error":"x"}`: `it has an "error"`,
		`{"friends":["bob"],"friends":["carol"]}`: "given twice",
		`{"friends":null}`:                        "must be a list of client ids",
		`{"friends":[null]}`:                      "must be a list of client ids",
		`{"friends":"bob"}`:                       "must be a list of client ids",
		`{"friends":{"bob":1}}`:                   "must be a list of client ids",
	} {
		f, err := NewFriends(FriendsConfig{Ask: AskConfig{URL: backEnd(t, func(string) (int, string) { return 200, body }), Secret: askSecret}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Friends(t.Context(), wire.ClientID{ID: "ann"})
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || len(got) != 0) {
			t.Errorf("%s: %v, %v, want %q", body, got, err, want)
		}
		f.Close()
	}
}

func FuzzAllowed(f *testing.F) {
	for _, s := range []string{`{"send":["*"]}`, `{"send":null}`, `{"join":[1]}`, `null`, `{"send":[],"send":["x"]}`, "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Allowed
		if wire.EachMember(b, a.member) == nil && (a.Send != nil && *a.Send == nil || a.Join != nil && *a.Join == nil) {
			t.Errorf("%s: a list that allows nothing is taken for none", b)
		}
	})
}
