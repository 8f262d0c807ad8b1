package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"imroute/mesh/wire"
)

// checkOrigin says why a WebSocket handshake is refused in development mode, where no login is checked: a browser on this
// machine reaches loopback too, for a page from elsewhere (Origin), or under a name that was made to point here (Host). Pages
// that this machine serves may connect, from whichever port: one node's page to another node, an application's page while it
// is written.
func checkOrigin(r *http.Request) error {
	if !loopbackHost(r.Host) {
		return wire.Errorf(wire.Forbidden, "host %q is not this machine: development mode is for 127.0.0.1 and localhost only", r.Host)
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil // no browser
	}
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || !loopbackHost(u.Host) {
		return wire.Errorf(wire.Forbidden, "origin %q is not this machine: development mode takes pages from 127.0.0.1 and localhost only", fmt.Sprintf("%.80s", origin))
	}
	return nil
}

// loopbackHost is loopback for what may have a port.
func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return loopback(strings.ToLower(strings.Trim(host, "[]")))
}
