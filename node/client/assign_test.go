package client

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func assigner(t *testing.T, status int, body string) (from string, asked *[]string) {
	asked = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.String())
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestAssigned(t *testing.T) {
	good, asked := assigner(t, 200, `{"client":"bob","url":"tcp://127.0.0.1:7911","node":"n2"}`)
	full, _ := assigner(t, 503, `{"error":{"code":3,"reason":"unavailable","message":"no node takes clients"}}`)
	page, _ := assigner(t, 200, `<html>`)
	cfg := Config{Client: "bob/phone 1", Tenant: "acme", Addrs: []string{"127.0.0.1:7901"}, AssignFrom: []string{full, "http://127.0.0.1:1", page, good}}
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	given := cfg.Addrs
	if err := assigned(t.Context(), &cfg); err != nil || !slices.Equal(cfg.Addrs, []string{"127.0.0.1:7911", "127.0.0.1:7901"}) {
		t.Errorf("%v %v", cfg.Addrs, err)
	}
	if len(given) != 1 || given[0] != "127.0.0.1:7901" {
		t.Error("the caller's slice was changed")
	}
	if want := "/v1/assign?client=bob%2Fphone+1&tenant=acme&transport=tcp"; len(*asked) != 1 || (*asked)[0] != want {
		t.Errorf("asked %v", *asked)
	}

	// Nobody knows: the configured addresses are good enough, and without any it is an error that names everybody.
	cfg = Config{Client: "bob", Addrs: []string{"ws://127.0.0.1:7902"}, AssignFrom: []string{full, page}}
	cfg.setDefaults()
	if err := assigned(t.Context(), &cfg); err != nil || len(cfg.Addrs) != 1 {
		t.Errorf("%v %v", cfg.Addrs, err)
	}
	cfg = Config{Client: "bob", AssignFrom: []string{full, page}}
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	if err := assigned(t.Context(), &cfg); err == nil || !strings.Contains(err.Error(), "no node takes clients") || !strings.Contains(err.Error(), "WebSocket port") {
		t.Error(err)
	}
	// What was encrypted never becomes plain.
	cfg = Config{Client: "bob", Addrs: []string{"tls://127.0.0.1:7901"}, AssignFrom: []string{good}}
	cfg.setDefaults()
	if err := assigned(t.Context(), &cfg); err != nil || len(cfg.Addrs) != 1 {
		t.Errorf("%v %v", cfg.Addrs, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg = Config{Client: "bob", AssignFrom: []string{good}}
	cfg.setDefaults()
	if err := assigned(ctx, &cfg); err == nil {
		t.Error("asked although the context had ended")
	}
	for _, bad := range []string{"", "127.0.0.1:7902", "ws://127.0.0.1:7902", "http://127.0.0.1", "http://h:1/v1/assign", "http://u@h:1", "http://h:1?x=1"} {
		cfg := Config{Client: "bob", AssignFrom: []string{bad}}
		cfg.setDefaults()
		if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), "AssignFrom") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseAssigned: whatever a server answers is an address that can be dialled, or an error.
func FuzzParseAssigned(f *testing.F) {
	f.Add(200, []byte(`{"url":"tcp://127.0.0.1:7911"}`))
	f.Add(200, []byte(`{"url":"wss://h:1/v1/ws"}`))
	f.Add(503, []byte(`{"error":{"message":"full"}}`))
	f.Add(200, []byte(`{"url":"tcp://a\u0000b:1"}`))
	f.Fuzz(func(t *testing.T, status int, raw []byte) {
		a, err := parseAssigned(status, raw)
		if (err == nil) != (a != address{}) {
			t.Fatalf("%+v %v", a, err)
		}
		if err != nil {
			return
		}
		if again, err := parseAddress(a.String()); err != nil || again != a {
			t.Fatalf("%v reads as %v, %v", a, again, err)
		}
	})
}
