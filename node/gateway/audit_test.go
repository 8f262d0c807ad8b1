package gateway

import (
	"log/slog"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

// In development mode logins and ends of sessions are details; a refused login is not, and elsewhere all are written.
func TestAuditLevels(t *testing.T) {
	for _, dev := range []bool{true, false} {
		var out strings.Builder
		g := &Gateway{cfg: Config{DevMode: dev, Clock: systemClock{}}, log: slog.New(slog.NewTextHandler(&out, nil))}
		g.auditLine(true, "session login", func() slog.Attr { return slog.Group("audit", "event", "login") })
		g.auditLine(false, "session refused", func() slog.Attr { return slog.Group("audit", "reason", wire.BadToken.String()) })
		if got := strings.Contains(out.String(), "session login"); got == dev {
			t.Errorf("dev mode %v: %s", dev, out.String())
		}
		if !strings.Contains(out.String(), "session refused") {
			t.Errorf("dev mode %v: the refused login is missing: %s", dev, out.String())
		}
	}
}
