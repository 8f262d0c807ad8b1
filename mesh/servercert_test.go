package mesh

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestServerCert: a certificate for a server stands for its names and for nothing else, least of all for a member.
func TestServerCert(t *testing.T) {
	ca, err := NewCA(7)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	node, err := ca.IssueNode(3, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := LoadIdentity(node, keyPEM, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"api.example.org", "10.0.0.7", "::1"}
	cert, err := ca.IssueServer(names, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.ParseServer(cert, names); err != nil {
		t.Error(err)
	}
	if _, err := id.ParseServer(cert, append(slices.Clone(names), "localhost")); err == nil {
		t.Error("it is taken for a name that it does not have")
	}
	if _, err := id.ParseServer(node, names); err == nil {
		t.Error("a node's certificate is taken for a server's")
	}
	if _, err := LoadIdentity(cert, keyPEM, ca.CertPEM()); err == nil {
		t.Error("a server's certificate is taken for a member's")
	}
	for _, bad := range [][]string{nil, {""}, {"*.example.org"}, {"a b"}, {"-a"}, {"a..b"}, {strings.Repeat("a", 64)}, make([]string, MaxServerNames+1)} {
		if _, err := ca.IssueServer(bad, key.Public(), time.Hour); err == nil {
			t.Errorf("issued for %q", bad)
		}
	}
}
