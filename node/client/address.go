package client

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imroute/mesh/wire"
)

// maxLearned bounds the addresses kept from what nodes told.
const maxLearned = 32

// address is one place to log in at; comparable.
type address struct {
	scheme string // tcp, tls, ws or wss
	host   string // host:port
	path   string // of WebSocket
}

func (a address) String() string {
	if a.scheme == "tcp" {
		return a.host
	}
	return a.scheme + "://" + a.host + a.path
}

func (a address) secure() bool    { return a.scheme == "tls" || a.scheme == "wss" }
func (a address) webSocket() bool { return a.scheme == "ws" || a.scheme == "wss" }

func parseAddress(s string) (address, error) {
	if !strings.Contains(s, "://") {
		s = "tcp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return address{}, fmt.Errorf("address %q: want host:port, tls://host:port, ws://host:port or wss://host:port: %w", s, err)
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return address{}, fmt.Errorf("address %q: a user, query or fragment means nothing here; a token goes into Config.Token", s)
	}
	a := address{scheme: u.Scheme, path: u.EscapedPath()}
	port := u.Port()
	switch a.scheme {
	case "tcp", "tls":
		if a.path != "" && a.path != "/" {
			return address{}, fmt.Errorf("address %q: a path means nothing with %s://", s, a.scheme)
		}
		a.path = ""
	case "ws", "wss":
		if a.path == "" || a.path == "/" {
			a.path = "/v1/ws"
		}
		if port == "" {
			port = map[string]string{"ws": "80", "wss": "443"}[a.scheme]
		}
	default:
		return address{}, fmt.Errorf("address %q: scheme %q is not known: use tcp, tls, ws or wss", s, a.scheme)
	}
	host := u.Hostname()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || !validHost(host) {
		return address{}, fmt.Errorf("address %q: want host and port, for example 127.0.0.1:7901", s)
	}
	a.host = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	return a, nil
}

// validHost is generous to names and strict about what would read differently as a URL.
func validHost(host string) bool {
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Zone() == ""
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\?#@[]%<>"^`+"`{|}", r)
	})
}

// resolveTold makes an address out of what a node told over a session to from. Without a scheme it is reached the same
// way; what was secure never becomes plain, since the next login carries a token.
func resolveTold(told string, from address) (address, bool) {
	bare := !strings.Contains(told, "://")
	if bare {
		told = from.scheme + "://" + told
	}
	a, err := parseAddress(told)
	if err != nil || from.secure() && !a.secure() {
		return address{}, false
	}
	if bare && from.webSocket() {
		a.path = from.path
	}
	return a, true
}

// addressBook knows where a Client may log in. Owned by the loop.
type addressBook struct {
	configured []address
	learned    []address // newest first
	random     func() float64
}

func newAddressBook(addrs []string, random func() float64) (addressBook, error) {
	b := addressBook{random: random}
	for i, s := range addrs {
		a, err := parseAddress(s)
		if err != nil {
			return b, fmt.Errorf("client config: Addrs[%d]: %w", i, err)
		}
		if !slices.Contains(b.configured, a) {
			b.configured = append(b.configured, a)
		}
	}
	return b, nil
}

// learn keeps what a node told and returns it as addresses, in the order told.
func (b *addressBook) learn(told []string, from address) []address {
	var out []address
	for _, s := range told[:min(len(told), maxLearned)] {
		if a, ok := resolveTold(s, from); ok && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	var fresh []address
	for _, a := range out {
		if !slices.Contains(b.configured, a) {
			fresh = append(fresh, a)
		}
	}
	for _, a := range b.learned {
		if !slices.Contains(fresh, a) {
			fresh = append(fresh, a)
		}
	}
	b.learned = fresh[:min(len(fresh), maxLearned)]
	return out
}

// all is every address once, the configured ones first.
func (b *addressBook) all() []address { return slices.Concat(b.configured, b.learned) }

// spread is all in random order: thousands of clients that lose the same node must not all come to the one that follows it in
// everybody's list.
func (b *addressBook) spread() []address { return b.shuffle(b.all()) }

func (b *addressBook) shuffle(as []address) []address {
	as = slices.Clone(as)
	for i := len(as) - 1; i > 0; i-- {
		j := int(b.random() * float64(i+1))
		as[i], as[j] = as[j], as[i]
	}
	return as
}

// plan is the order of one round of logins after something ended at from. told comes first unless the same node is to be
// tried again, in the order told; then all the others in random order; from itself is first (RetryHere) or last.
func (b *addressBook) plan(from address, class wire.Class, told []address) []address {
	all := b.all()
	if i := slices.Index(all, from); i >= 0 {
		all = slices.Concat(all[i+1:], all[:i])
	}
	all = b.shuffle(all)
	var out []address
	add := func(as ...address) {
		for _, a := range as {
			if a != from && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	if class == wire.RetryHere {
		add(all...)
		add(told...)
		return slices.Insert(out, 0, from)
	}
	add(told...)
	add(all...)
	return append(out, from)
}
