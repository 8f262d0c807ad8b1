package mesh

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCARoundTrip(t *testing.T) {
	ca, err := NewCA(7)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(ca.CertPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if again.Cluster() != 7 || again.Hash() != ca.Hash() {
		t.Error("another CA came back")
	}
	other, _ := NewCA(7)
	if _, err := LoadCA(other.CertPEM(), keyPEM); err == nil {
		t.Error("a key of another CA was taken")
	}
	if other.Hash() == ca.Hash() {
		t.Error("two CAs with one hash")
	}
	if _, err := NewCA(0); err == nil {
		t.Error("cluster 0")
	}
}

func TestLoadIdentityChecksThatPartsFit(t *testing.T) {
	ca, _ := NewCA(7)
	other, _ := NewCA(7)
	key, _ := NewKey()
	otherKey, _ := NewKey()
	keyPEM, _ := KeyPEM(key)
	otherPEM, _ := KeyPEM(otherKey)
	cert, err := ca.IssueNode(5, key.Public(), 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	id, err := LoadIdentity(cert, keyPEM, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	if id.Node != 5 || id.Cluster != 7 || !bytes.Equal(id.CertPEM(), cert) {
		t.Errorf("%+v", id)
	}
	now := time.Now()
	if id.NeedsRenewal(now) || !id.NeedsRenewal(now.Add(21*24*time.Hour)) {
		t.Error("renewal: want it after two thirds")
	}
	if id.Expired(now) || !id.Expired(now.Add(31*24*time.Hour)) {
		t.Error("expiry")
	}
	if _, err := LoadIdentity(cert, otherPEM, ca.CertPEM()); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "key") {
		t.Errorf("another key: %v", err)
	}
	if _, err := LoadIdentity(cert, keyPEM, other.CertPEM()); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "CA") {
		t.Errorf("another CA: %v", err)
	}
	if _, err := LoadIdentity(ca.CertPEM(), keyPEM, ca.CertPEM()); err == nil {
		t.Error("a CA's certificate passed for a node's")
	}
	old, err := ca.issue(5, key.Public(), now.Add(-2*time.Hour), now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := LoadIdentity(old, keyPEM, ca.CertPEM()); err != nil || !id.Expired(now) {
		t.Errorf("an expired certificate must load: %v", err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), cert[:len(cert)/2]} {
		if _, err := LoadIdentity(bad, keyPEM, ca.CertPEM()); err == nil {
			t.Errorf("%q loaded", bad)
		}
	}
}

func TestTokenTellsTypos(t *testing.T) {
	ca, _ := NewCA(7)
	tok := NewToken(ca.Hash())
	s := tok.String()
	if strings.ContainsAny(s, " \n\"'$") || !strings.HasPrefix(s, "imj1-") {
		t.Errorf("not one word: %q", s)
	}
	for _, good := range []string{s, " " + s + "\n", strings.ToUpper(s)} {
		back, err := ParseToken(good)
		if err != nil || back.ID != tok.ID || !bytes.Equal(back.Secret, tok.Secret) || back.CAHash != tok.CAHash {
			t.Errorf("%q: %v", good, err)
		}
		if !back.Check(tok.Hash()) {
			t.Error("check")
		}
	}
	for i := len(tokenPrefix); i < len(s); i++ {
		c := byte('a')
		if s[i] == c {
			c = 'b'
		}
		if _, err := ParseToken(s[:i] + string(c) + s[i+1:]); err == nil {
			t.Errorf("a typo at %d passed", i)
		}
	}
	for _, bad := range []string{"", "imj1-", s[1:], s[:len(s)-1], s + "a", "SWMTKN-1-abc"} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	if NewToken(ca.Hash()).Check(tok.Hash()) || tok.Check(nil) {
		t.Error("another token passed")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken([32]byte{1}).String())
	f.Add("imj1-")
	f.Add("imj1-aaaa")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Fatalf("%q reads as %q", s, tok)
		}
	})
}
