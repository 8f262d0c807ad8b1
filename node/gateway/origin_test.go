package gateway

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// TestOriginInDevelopment: pages of this machine may connect, from any port; those of others may not, under whichever name
// they reach this machine.
func TestOriginInDevelopment(t *testing.T) {
	r := newRig(t, nil)
	_, addr := r.Addrs()
	for _, c := range []struct {
		origin, host string
		ok           bool
	}{
		{"", "", true},
		{"http://" + addr, "", true},
		{"http://127.0.0.1:3000", "", true},
		{"http://localhost", "", true},
		{"https://[::1]:8443", "localhost:7902", true},
		{"http://evil.example", "", false},
		{"http://127.0.0.1.evil.example", "", false},
		{"http://evil.example:7902", "evil.example:7902", false}, // rebound to this machine: origin and host agree
		{"", "evil.example:7902", false},
		{"null", "", false},
		{"file://", "", false},
		{"chrome-extension://localhost", "", false},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		ws, res, err := websocket.Dial(t.Context(), "ws://"+addr+PathWS, &websocket.DialOptions{Subprotocols: []string{Subprotocol}, HTTPHeader: header, Host: c.host})
		if err == nil {
			_ = ws.CloseNow()
		}
		if (err == nil) != c.ok {
			t.Errorf("origin %q, host %q: %v", c.origin, c.host, err)
		}
		if !c.ok && (res == nil || res.StatusCode != http.StatusForbidden) {
			t.Errorf("origin %q, host %q: want 403, got %v", c.origin, c.host, res)
		}
	}
}
