package admin

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// Key is what Config.KeyCheck finds out about an API key.
type Key struct {
	ID        string
	Scopes    wire.Scope
	Tenant    string
	OneTenant bool // only for Tenant, which may be the empty one; else for all
}

// KeyPrefix is how every API key begins; a bearer token that does not is the operators'.
const KeyPrefix = "imk1-"

// caller is who asks. The zero value is an operator, or anybody in development mode: everything is allowed.
type caller struct {
	key   *Key
	holds func() bool // set with key: whether it is still valid
}

// keyLook is how often the key of a stream is looked at again.
const keyLook = 250 * time.Millisecond

// errKeyGone is the cause of the context of a stream whose key holds no more.
var errKeyGone = Errorf(StatusUnauthorized, "the API key was revoked or has expired").
	WithHint("`imctl api key list` shows the keys there are, `imctl api key create` makes one")

// whileAllowed runs f, whose answer may go on for long, and ends the request's context once the caller's key holds no more. A
// write that waits for a slow reader then ends as well.
func (s *Server) whileAllowed(r *request, w http.ResponseWriter, f func()) {
	if r.who.key == nil {
		f()
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	r.Request, r.ctx = r.WithContext(ctx), ctx
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		look := time.NewTicker(keyLook)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
			if !r.who.holds() {
				cancel(errKeyGone)
				s.writeDeadline(w, keyLook)
				return
			}
		}
	})
	f()
}

// anyScope marks what every key may ask.
const anyScope wire.Scope = 1 << 31

// may returns why a caller may not use a route that wants that scope, or nil. No scope means admin.
func (c *caller) may(want wire.Scope) *Error {
	if want == 0 {
		want = wire.ScopeAdmin
	}
	if c.key == nil || want == anyScope || c.key.Scopes.Has(want) {
		return nil
	}
	return Errorf(StatusForbidden, "API key %s does not have the scope %q", c.key.ID, want).
		WithHint("it has %s; imctl api key create --scope %s makes one that may", c.key.Scopes, want)
}

// tenant returns the tenant that a request is about: for a key of one tenant that one, also where none is named.
func (r *request) tenant(asked string) (string, error) {
	k := r.who.key
	switch {
	case k == nil || !k.OneTenant || asked == k.Tenant:
		return asked, nil
	case asked == "":
		return k.Tenant, nil
	}
	return "", Errorf(StatusForbidden, "API key %s is for tenant %q alone, not for %q", k.ID, k.Tenant, asked).
		WithHint("leave the tenant out, or use a key of that tenant")
}

func isKey(token string) bool { return strings.HasPrefix(token, KeyPrefix) }
