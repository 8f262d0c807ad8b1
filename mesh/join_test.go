package mesh

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// joinPolicy is a Config.Join that knows one token.
func joinPolicy(c *cluster, stored []byte) func(context.Context, *JoinRequest, net.Addr) (*JoinReply, error) {
	return func(_ context.Context, r *JoinRequest, _ net.Addr) (*JoinReply, error) {
		if !CheckToken(r.TokenID, r.Secret, stored) {
			return nil, wire.Errorf(wire.Refused, "the token is not known here")
		}
		if r.Name == "taken" {
			return nil, wire.Errorf(wire.Refused, "the name %q is taken", r.Name)
		}
		cert, err := c.ca.IssueNode(r.Node, r.PublicKey, time.Hour)
		if err != nil {
			return nil, err
		}
		c.dir.set(r.Node, r.Addrs.Mesh)
		return &JoinReply{
			Code: wire.OK, Cluster: c.ca.Cluster(), CertPEM: cert, CAPEM: c.ca.CertPEM(), Secrets: []byte("secret"),
			Members: []Member{{1, "n1", "somewhere:1"}},
		}, nil
	}
}

func TestJoin(t *testing.T) {
	c := newCluster(t)
	tok := NewToken(c.ca.Hash())
	a := c.start(1, configure(func(cfg *Config) { cfg.Join = joinPolicy(c, tok.Hash()) }))
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	base := JoinConfig{Addrs: []string{a.Addr().String()}, Token: tok, Node: 5, Name: "n5", Advertise: wire.Addrs{Mesh: "127.0.0.1:9"}, Key: key, Timeout: 3 * time.Second}

	wrongSecret := NewToken(c.ca.Hash())
	foreign, _ := NewCA(0xc1)
	dead := deadPort(t)
	for _, tc := range []struct {
		name   string
		change func(*JoinConfig)
		is     error
		code   wire.Code
		text   string
	}{
		{"wrong token", func(c *JoinConfig) { c.Token = wrongSecret }, nil, wire.Refused, "not known"},
		{"other CA", func(c *JoinConfig) { c.Token = NewToken(foreign.Hash()) }, ErrWrongCluster, 0, "another CA"},
		{"name", func(c *JoinConfig) { c.Name = "taken" }, nil, wire.Refused, "taken"},
		{"unreachable", func(c *JoinConfig) { c.Addrs = []string{dead}; c.Timeout = 300 * time.Millisecond }, ErrUnreachable, 0, "is that node running"},
		{"no such address", func(c *JoinConfig) { c.Addrs = []string{"nonsense"} }, ErrUnreachable, 0, "host:port"},
		{"no address", func(c *JoinConfig) { c.Addrs = nil }, nil, 0, "any member"},
	} {
		cfg := base
		tc.change(&cfg)
		_, err := Join(testContext(t), cfg)
		if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if e, ok := errors.AsType[*wire.Error](err); ok != (tc.code != 0) || ok && e.Code != tc.code {
			t.Errorf("%s: %v, want code %v", tc.name, err, tc.code)
		}
	}

	// The first address is dead, the second answers.
	cfg := base
	cfg.Addrs = []string{dead, a.Addr().String()}
	cfg.Timeout = time.Second
	reply, err := Join(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, _ := KeyPEM(key)
	id, err := LoadIdentity(reply.CertPEM, keyPEM, reply.CAPEM)
	if err != nil || id.Node != 5 || string(reply.Secrets) != "secret" || len(reply.Members) != 1 {
		t.Fatalf("%+v, %v", reply, err)
	}
	// What it got makes it a member like the others.
	b := c.start(5, configure(func(cfg *Config) { cfg.Identity = id }))
	mustCall(t, b, 1, wire.CallAdmin, "joined")
	mustCall(t, a, 5, wire.CallAdmin, "welcome")
	// Joining again is harmless, also over a mesh that takes no joins: it says so.
	cfg.Addrs = []string{b.Addr().String()}
	if _, err := Join(testContext(t), cfg); err == nil || !strings.Contains(err.Error(), "takes no join requests") {
		t.Errorf("got %v", err)
	}
}

func TestJoinIsRateLimited(t *testing.T) {
	c := newCluster(t)
	tok := NewToken(c.ca.Hash())
	a := c.start(1, configure(func(cfg *Config) { cfg.Join = joinPolicy(c, nil); cfg.JoinRate = 0.001 }))
	key, _ := NewKey()
	for i := range 25 {
		_, err := Join(testContext(t), JoinConfig{Addrs: []string{a.Addr().String()}, Token: tok, Node: 5, Key: key})
		e, ok := errors.AsType[*wire.Error](err)
		if !ok || i < 20 && e.Code != wire.Refused || i >= 20 && e.Code != wire.Busy {
			t.Fatalf("request %d: %v", i, err)
		}
	}
}

func TestJoinerDoesNotTrustTheAnswer(t *testing.T) {
	c := newCluster(t)
	tok := NewToken(c.ca.Hash())
	key, _ := NewKey()
	other, _ := NewKey()
	a := c.start(1, configure(func(cfg *Config) {
		cfg.Join = func(_ context.Context, r *JoinRequest, _ net.Addr) (*JoinReply, error) {
			cert, err := c.ca.IssueNode(r.Node, other.Public(), time.Hour)
			return &JoinReply{Code: wire.OK, Cluster: c.ca.Cluster(), CertPEM: cert, CAPEM: c.ca.CertPEM()}, err
		}
	}))
	_, err := Join(testContext(t), JoinConfig{Addrs: []string{a.Addr().String()}, Token: tok, Node: 5, Key: key})
	if !errors.Is(err, ErrIdentity) {
		t.Errorf("a certificate for another key: %v", err)
	}
}

func joinRequestBytes(tb testing.TB, key crypto.Signer, change func(*JoinRequest)) []byte {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		tb.Fatal(err)
	}
	req := &JoinRequest{TokenID: "0102030405ff", Secret: make([]byte, tokenSecret), Node: 5, CSR: csr}
	change(req)
	b, err := wire.Marshal(req)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestJoinRequestProvesItsKey(t *testing.T) {
	key, _ := NewKey()
	good := joinRequestBytes(t, key, func(*JoinRequest) {})
	req, err := parseJoinRequest(good)
	if err != nil || !samePublic(key.Public(), req.PublicKey) {
		t.Fatalf("%v", err)
	}
	for name, change := range map[string]func(*JoinRequest){
		"signature": func(r *JoinRequest) { r.CSR[len(r.CSR)-1] ^= 1 },
		"node":      func(r *JoinRequest) { r.Node = 0 },
		"secret":    func(r *JoinRequest) { r.Secret = r.Secret[1:] },
		"name":      func(r *JoinRequest) { r.Name = strings.Repeat("x", 300) },
		"address":   func(r *JoinRequest) { r.Addrs.Mesh = strings.Repeat("x", 300) },
	} {
		if _, err := parseJoinRequest(joinRequestBytes(t, key, change)); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

func FuzzJoinRequest(f *testing.F) {
	key, _ := NewKey()
	f.Add(joinRequestBytes(f, key, func(*JoinRequest) {}))
	f.Add([]byte{0xa1, 1, 0x60})
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := parseJoinRequest(b)
		if err == nil && (req.Node == 0 || req.PublicKey == nil || len(req.Secret) != tokenSecret) {
			t.Fatalf("%+v", req)
		}
	})
}
