package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// auth decides who may ask.
type auth struct {
	dev   bool
	check func(token string) bool
	key   func(key string) (Key, bool) // nil: there are none
	again func(ctx context.Context, key string) bool
}

func newAuth(c *Config) auth {
	a := auth{dev: c.DevMode, check: c.TokenCheck, key: c.KeyCheck, again: c.KeyCatchUp}
	if a.check == nil && c.Token != "" {
		want := sha256.Sum256([]byte(c.Token))
		a.check = func(token string) bool {
			got := sha256.Sum256([]byte(token)) // equal lengths, so the comparison tells nothing about the length either
			return subtle.ConstantTimeCompare(got[:], want[:]) == 1
		}
	}
	return a
}

// allow returns who asks, or why the request is refused.
func (a *auth) allow(r *http.Request) (who caller, refused *Error) {
	if a.dev {
		return who, fromThisMachine(r)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch token = strings.TrimSpace(token); {
	case !strings.EqualFold(scheme, "bearer") || token == "":
		return who, Errorf(StatusUnauthorized, "no token was given").
			WithHint("send the header Authorization: Bearer TOKEN, with imctl --token-file FILE; each node has the token in its data folder, secrets/admin.token")
	case isKey(token) && a.key != nil:
		k, ok := a.key(token)
		if !ok && a.again != nil {
			ctx, cancel := context.WithTimeout(r.Context(), KeyWait)
			defer cancel()
			if a.again(ctx, token) {
				k, ok = a.key(token)
			}
		}
		if !ok {
			return who, Errorf(StatusUnauthorized, "the API key is not known, was revoked or has expired").
				WithHint("`imctl api key list` shows the keys there are, `imctl api key create` makes one")
		}
		who.key, who.holds = &k, func() bool { _, ok := a.key(token); return ok }
	case !a.check(token):
		return who, Errorf(StatusUnauthorized, "the token is not this cluster's admin token").
			WithHint("each node of the cluster has it in its data folder, secrets/admin.token: is this another cluster?")
	}
	return who, nil
}

// fromThisMachine refuses what a web page may have caused. In development mode there is no token, and a browser on this
// machine reaches loopback too: by a foreign page (Origin, Sec-Fetch-Site), or by a name of the attacker's that was made
// to point here (Host).
func fromThisMachine(r *http.Request) *Error {
	const hint = "development mode answers programs on this machine only"
	if !loopbackHost(r.Host) {
		return Errorf(StatusForbidden, "host %q is not a loopback address", r.Host).
			WithHint(hint + ": use 127.0.0.1 or localhost")
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		return Errorf(StatusForbidden, "a request from another web page (Sec-Fetch-Site: %s)", site).WithHint(hint)
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return Errorf(StatusForbidden, "a request from another web page (Origin: %s)", origin).WithHint(hint)
		}
	}
	return nil
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// calm lets one line a second through and counts the others, so that guessing tokens does not fill the disk.
type calm struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

func (c *calm) allow(now time.Time) (ok bool, skipped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.next) {
		c.skipped++
		return false, 0
	}
	skipped, c.skipped = c.skipped, 0
	c.next = now.Add(time.Second)
	return true, skipped
}
