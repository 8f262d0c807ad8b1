package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// revocable is a server with one API key of every scope that the test can end.
func revocable(t *testing.T, b Backend) (s *Server, revoked *atomic.Bool) {
	revoked = new(atomic.Bool)
	return start(t, b, func(c *Config) {
		c.KeyCheck = func(key string) (Key, bool) {
			return Key{ID: "k", Scopes: wire.ScopeAdmin}, key == KeyPrefix+"x" && !revoked.Load()
		}
	}), revoked
}

// TestStreamEndsWithItsKey: a watch says that its key holds no more, whether its table is quiet or busy, and ends; a profile is
// cut short.
func TestStreamEndsWithItsKey(t *testing.T) {
	for name, busy := range map[string]bool{"quiet": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			b := &fake{}
			b.watch = func(ctx context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
				if err := emit(RouteEvent{Event: EventResync}); err != nil {
					return err
				}
				for busy {
					if err := emit(RouteEvent{Event: EventSet, Client: "a"}); err != nil {
						return err
					}
				}
				<-ctx.Done()
				return nil
			}
			s, revoked := revocable(t, b)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr()+"/v1/routes/watch", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+KeyPrefix+"x")
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			var last RouteEvent
			var at time.Time
			for lines.Scan() {
				last = RouteEvent{}
				if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
					t.Fatal(err)
				}
				if at.IsZero() {
					at = time.Now()
					revoked.Store(true)
				}
			}
			if err := lines.Err(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(at); last.Event != EventEnd || last.Status != StatusUnauthorized || !strings.Contains(last.Reason, "revoked") || took > 3*time.Second {
				t.Errorf("after %v: %+v", took, last)
			}
		})
	}
	t.Run("client", func(t *testing.T) {
		b := &fake{}
		b.watch = func(ctx context.Context, _ WatchQuery, emit func(RouteEvent) error) error {
			_ = emit(RouteEvent{Event: EventResync})
			<-ctx.Done()
			return nil
		}
		s, revoked := revocable(t, b)
		c, err := NewClient(ClientConfig{Addrs: []string{s.Addr()}, Token: KeyPrefix + "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.WatchRoutes(t.Context(), WatchQuery{}, func(RouteEvent) error { revoked.Store(true); return nil })
		if !IsUnauthorized(err) || !strings.Contains(err.Error(), "revoked") {
			t.Error(err)
		}
	})
	t.Run("profile", func(t *testing.T) {
		var looks atomic.Int32
		s := start(t, &fake{}, func(c *Config) { // it is revoked behind the first look
			c.KeyCheck = func(string) (Key, bool) { return Key{ID: "k", Scopes: wire.ScopeAdmin}, looks.Add(1) == 1 }
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if code, body, _ := raw(t, s, "GET", "/debug/pprof/trace?seconds=60", "", "Authorization", "Bearer "+KeyPrefix+"x"); code != http.StatusOK {
				t.Errorf("%d %.100s", code, body)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("a trace goes on after its key was revoked")
		}
	})
}

// TestKeyCatchUp: a key that is not known is looked for again once the table has caught up, and only then.
func TestKeyCatchUp(t *testing.T) {
	var known atomic.Bool
	var asked atomic.Int32
	s := start(t, &fake{}, func(c *Config) {
		c.KeyCheck = func(string) (Key, bool) { return Key{ID: "k", Scopes: wire.ScopeAdmin}, known.Load() }
		c.KeyCatchUp = func(_ context.Context, key string) bool {
			asked.Add(1)
			known.Store(key == KeyPrefix+"new")
			return true
		}
	})
	for _, tt := range []struct {
		key   string
		code  int
		asked int32
	}{{"old", 401, 1}, {"new", 200, 2}, {"new", 200, 2}} {
		if code, body, _ := raw(t, s, "GET", "/v1/version", "", "Authorization", "Bearer "+KeyPrefix+tt.key); code != tt.code || asked.Load() != tt.asked {
			t.Errorf("%s: %d %s, asked %d times", tt.key, code, body, asked.Load())
		}
	}
}
