package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBearer(t *testing.T) {
	var log logBuffer
	b := &fake{}
	s := start(t, b, func(c *Config) { c.Logger = log.logger() })
	for _, tt := range []struct {
		header string
		want   int
	}{
		{"Bearer " + testToken, 200},
		{"bearer  " + testToken + " ", 200},
		{"", 401},
		{"Bearer", 401},
		{"Bearer ", 401},
		{"Bearer " + testToken[1:], 401},
		{"Bearer " + testToken + "x", 401},
		{"Basic " + testToken, 401},
		{testToken, 401},
	} {
		code, body, h := raw(t, s, "GET", "/v1/nodes", "", "Authorization", tt.header)
		if code != tt.want {
			t.Errorf("%q: %d %s", tt.header, code, body)
		}
		if code == 401 && (h.Get("WWW-Authenticate") == "" || !strings.Contains(body, `"reason":"unauthorized"`) || !strings.Contains(body, `"hint"`)) {
			t.Errorf("%q: %s %v", tt.header, body, h)
		}
	}
	if n := b.count(); n != 2 {
		t.Errorf("the backend was called %d times", n)
	}
	// Everything but health wants the token, endpoints that do not exist included.
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/v1/version", "/v1/routes/watch", "/nothing", "/"} {
		if code, _, _ := raw(t, s, "GET", path, "", "Authorization", ""); code != 401 {
			t.Errorf("%s without a token: %d", path, code)
		}
	}
	for _, path := range []string{"/healthz"} {
		if code, _, _ := raw(t, s, "GET", path, "", "Authorization", ""); code != 200 {
			t.Errorf("%s without a token: %d", path, code)
		}
	}
	if code, _, _ := raw(t, s, "GET", "/debug/pprof/goroutine?debug=1", ""); code != 200 {
		t.Errorf("pprof with a token: %d", code)
	}
	if n := len(log.lines(t, "audit")); n == 0 || n > 3 {
		t.Errorf("%d lines about refused callers: want at least one and no flood", n)
	}
}

func TestTokenCheck(t *testing.T) {
	s := start(t, &fake{}, func(c *Config) {
		c.Token = ""
		c.TokenCheck = func(token string) bool { return token == "second" }
	})
	if code, _, _ := raw(t, s, "GET", "/v1/nodes", "", "Authorization", "Bearer second"); code != 200 {
		t.Errorf("%d", code)
	}
	c := dial(t, s.Addr()) // with testToken
	if _, err := c.Nodes(t.Context()); !IsUnauthorized(err) || !strings.Contains(err.Error(), "admin token") {
		t.Errorf("Nodes = %v", err)
	}
}

// TestDevelopmentMode: no token, but nothing that a web page could have sent.
func TestDevelopmentMode(t *testing.T) {
	b := &fake{}
	s := start(t, b, func(c *Config) { c.Token, c.DevMode = "", true })
	_, port, _ := net.SplitHostPort(s.Addr())
	for _, tt := range []struct {
		name   string
		header []string
		want   int
	}{
		{"a program", nil, 200},
		{"localhost", []string{"Host", "localhost:" + port}, 200},
		{"IPv6", []string{"Host", "[::1]:" + port}, 200},
		{"no port", []string{"Host", "127.0.0.1"}, 200},
		{"typed into a browser", []string{"Sec-Fetch-Site", "none"}, 200},
		{"same origin", []string{"Origin", "http://" + s.Addr(), "Sec-Fetch-Site", "same-origin"}, 200},
		{"rebound name", []string{"Host", "evil.example:" + port}, 403},
		{"rebound name that looks like us", []string{"Host", "127.0.0.1.evil.example"}, 403},
		{"name ending in localhost", []string{"Host", "localhost.evil.example:" + port}, 403},
		{"address beyond loopback", []string{"Host", "192.0.2.1:" + port}, 403},
		{"cross-site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same-site is another port", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"foreign origin", []string{"Origin", "https://evil.example"}, 403},
		{"origin of another port here", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"sandboxed page", []string{"Origin", "null"}, 403},
	} {
		before := b.count()
		code, body, _ := raw(t, s, "POST", "/v1/raft/snapshot", "", append(tt.header, "Authorization", "")...)
		if code != tt.want {
			t.Errorf("%s: %d %s", tt.name, code, body)
		}
		if reached := b.count() > before; reached != (tt.want == 200) {
			t.Errorf("%s: reached the backend: %v", tt.name, reached)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ok := Config{Bind: "127.0.0.1:0", Token: testToken, Backend: &fake{}}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Backend = nil }, "Backend is missing"},
		{func(c *Config) { c.Bind = "" }, "Bind"},
		{func(c *Config) { c.Bind = "localhost" }, "host:port"},
		{func(c *Config) { c.Token = "" }, "Token is missing: without one only development mode (--dev"},
		{func(c *Config) { c.Token = "short" }, "Token has 5 characters"},
		{func(c *Config) { c.TLS = &tls.Config{} }, "TLS has no certificate"},
		{func(c *Config) { c.CallTimeout = -1 }, "CallTimeout"},
		{func(c *Config) { c.Heartbeat = time.Minute }, "Heartbeat"},
		{func(c *Config) { c.MaxConns = -1 }, "MaxConns"},
	} {
		cfg := ok
		tt.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("want %q: %v", tt.want, err)
		}
	}
}

// TestReach: beyond loopback not without TLS, in development mode not at all; the error says what to set.
func TestReach(t *testing.T) {
	secure := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	for _, tt := range []struct {
		bind string
		dev  bool
		tls  *tls.Config
		want string // empty: it opens
	}{
		{"127.0.0.1:0", false, nil, ""},
		{"127.9.9.9:0", false, nil, ""},
		{"localhost:0", true, nil, ""},
		{"0.0.0.0:0", false, nil, "--admin-cert and --admin-key"},
		{":0", false, nil, "--admin-cert and --admin-key"},
		{"[::]:0", false, nil, "--admin-cert and --admin-key"},
		{"192.0.2.1:0", false, nil, "--admin-cert and --admin-key"},
		{"0.0.0.0:0", true, nil, "loopback only"},
		{"0.0.0.0:0", true, secure, "loopback only"},
		{"0.0.0.0:0", false, secure, ""},
		{"no.such.host.invalid:1", false, nil, "no.such.host.invalid"},
	} {
		if tt.bind == "127.9.9.9:0" && !canListen(tt.bind) {
			continue // only 127.0.0.1 is configured here
		}
		cfg := Config{Bind: tt.bind, Token: testToken, DevMode: tt.dev, TLS: tt.tls, Backend: &fake{}}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Open()
		if err == nil {
			if cerr := s.Close(t.Context()); cerr != nil {
				t.Errorf("close: %v", cerr)
			}
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s dev=%v tls=%v: %v, want %q", tt.bind, tt.dev, tt.tls != nil, err, tt.want)
		}
	}
	// A taken port says so.
	s := start(t, &fake{}, nil)
	second, err := New(Config{Bind: s.Addr(), Token: testToken, Backend: &fake{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Open(); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("Open at a taken port = %v", err)
	}
}

func canListen(addr string) bool {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		_ = ln.Close()
	}
	return err == nil
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestTLS(t *testing.T) {
	cert := selfSigned(t)
	s := start(t, filled(&fake{}), func(c *Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	try := func(addr string, conf *tls.Config) error {
		c, err := NewClient(ClientConfig{Addrs: []string{addr}, Token: testToken, TLS: conf, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Nodes(context.Background())
		return err
	}
	if err := try(s.Addr(), &tls.Config{RootCAs: pool}); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	if err := try(s.Addr(), &tls.Config{}); !IsUnreachable(err) || !strings.Contains(err.Error(), "--ca") {
		t.Errorf("with the system's authorities: %v", err)
	}
	if err := try("http://"+s.Addr(), nil); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("http to a TLS port: %v", err)
	}
	plain := start(t, &fake{}, nil)
	if err := try("https://"+plain.Addr(), nil); !IsUnreachable(err) || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("https to a plain port: %v", err)
	}
}

// TestRedirectsAreNotFollowed: the token would go along.
func TestRedirectsAreNotFollowed(t *testing.T) {
	got := make(chan string, 1)
	target := serveFunc(t, func(w http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") })
	from := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+target+r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := dial(t, from).Nodes(t.Context()); err == nil {
		t.Error("a redirect passed for an answer")
	}
	select {
	case auth := <-got:
		t.Errorf("the redirect was followed, with %q", auth)
	default:
	}
}
