package gateway

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

func TestTokens(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ed := Key{"ed", AlgEdDSA, priv}
	hs := Key{"hs", AlgHS256, bytes.Repeat([]byte{1}, 32)}
	a := mustAuth(t, Key{"ed", AlgEdDSA, pub}, hs)
	now := time.Now()
	for _, k := range []Key{ed, hs} {
		token, err := SignToken(k, "bob", "acme", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		id, err := a.Verify(token, "bob", now)
		if err != nil || id.Client.String() != "acme:bob" || id.Expires.Sub(now) < 59*time.Minute {
			t.Errorf("%v: %v %v", k, id, err)
		}
		if _, err := a.Verify(token, "carol", now); err == nil {
			t.Error("accepted for another client")
		}
		if _, err := a.Verify(token, "bob", now.Add(2*time.Hour)); !errors.Is(err, errTokenExpired) {
			t.Errorf("expired: %v", err)
		}
		if _, err := a.Verify(token[:len(token)-6]+"AAAAAA", "bob", now); err == nil {
			t.Error("wrong signature accepted")
		}
	}
	sign := func(m jwt.SigningMethod, key any, kid any, c jwt.MapClaims) string {
		tok := jwt.NewWithClaims(m, c)
		if kid != nil {
			tok.Header["kid"] = kid
		}
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exp := now.Add(time.Hour).Unix()
	for name, x := range map[string][2]string{
		"public key as secret": {sign(jwt.SigningMethodHS256, []byte(pub), "ed", jwt.MapClaims{"sub": "bob", "exp": exp}), "is for EdDSA"},
		"alg none":             {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "ed", jwt.MapClaims{"sub": "bob", "exp": exp}), "refused"},
		"HS512":                {sign(jwt.SigningMethodHS512, hs.Key, "hs", jwt.MapClaims{"sub": "bob", "exp": exp}), "refused"},
		"no kid":               {sign(jwt.SigningMethodHS256, hs.Key, nil, jwt.MapClaims{"sub": "bob", "exp": exp}), "kid"},
		"kid not a string":     {sign(jwt.SigningMethodHS256, hs.Key, 7, jwt.MapClaims{"sub": "bob", "exp": exp}), "kid"},
		"unknown kid":          {sign(jwt.SigningMethodHS256, hs.Key, "new", jwt.MapClaims{"sub": "bob", "exp": exp}), "not known"},
		"no exp":               {sign(jwt.SigningMethodHS256, hs.Key, "hs", jwt.MapClaims{"sub": "bob"}), "exp"},
		"no sub":               {sign(jwt.SigningMethodHS256, hs.Key, "hs", jwt.MapClaims{"exp": exp}), "sub is missing"},
		"bad sub":              {sign(jwt.SigningMethodHS256, hs.Key, "hs", jwt.MapClaims{"sub": "a*", "exp": exp}), "refused"},
		"not yet":              {sign(jwt.SigningMethodHS256, hs.Key, "hs", jwt.MapClaims{"sub": "bob", "exp": exp, "nbf": exp}), "not valid yet"},
		"forged and expired":   {sign(jwt.SigningMethodHS256, []byte("x"), "hs", jwt.MapClaims{"sub": "bob", "exp": 1}), "signature"},
	} {
		if _, err := a.Verify(x[0], "", now); err == nil || !strings.Contains(err.Error(), x[1]) {
			t.Errorf("%s: %v, want %q in it", name, err, x[1])
		}
	}
	if _, err := SignToken(Key{"ed", AlgEdDSA, pub}, "bob", "", time.Hour); err == nil || !strings.Contains(err.Error(), "private") {
		t.Errorf("signing with a public key: %v", err)
	}
	token, _ := SignToken(hs, "bob", "", time.Hour)
	if err := a.SetKeys([]Key{ed}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Verify(token, "bob", now); err == nil {
		t.Error("a key that was taken away still counts")
	}
	if a.SetKeys(nil) == nil || a.SetKeys([]Key{ed, ed}) == nil {
		t.Error("bad key sets accepted")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", hs, hs, hs, hs); strings.Contains(s, "1 1 1") || strings.Contains(s, "0x1") {
		t.Errorf("printing shows the key: %s", s)
	}
}

func TestParseKeys(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, _ := x509.MarshalPKIXPublicKey(pub)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(priv)
	file, _ := json.Marshal([]map[string]string{
		{"kid": "a", "alg": "EdDSA", "key": base64.StdEncoding.EncodeToString(pub)},
		{"kid": "b", "alg": "EdDSA", "key": base64.RawURLEncoding.EncodeToString(priv)},
		{"kid": "c", "alg": "HS256", "key": base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 40))},
		{"kid": "d", "alg": "EdDSA", "key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))},
		{"kid": "e", "alg": "EdDSA", "key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))},
	})
	keys, err := ParseKeys(file)
	if err != nil || len(keys) != 5 || !bytes.Equal(keys[0].Key, pub) || !bytes.Equal(keys[1].Key, priv) ||
		len(keys[2].Key) != 40 || !bytes.Equal(keys[3].Key, pub) || !bytes.Equal(keys[4].Key, priv) {
		t.Fatalf("%v %v", keys, err)
	}
	pemPublic := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	asSecret := func(key string) string {
		b, _ := json.Marshal([]map[string]string{{"kid": "a", "alg": "HS256", "key": key}})
		return string(b)
	}
	secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("S"), 31))
	for in, want := range map[string]string{
		``:   "JSON list",
		`{}`: "JSON list",
		`[]`: "empty",
		`[{"kid":"a","alg":"HS256","key":"x","more":1}]`:                                                    "more",
		`[{"kid":"a","alg":"HS256","key":""}]`:                                                              "entry 1 (kid \"a\"): key is missing",
		`[{"kid":"a","alg":"HS256","key":"` + secret + `"}]`:                                                "at least 32",
		`[{"kid":"a","alg":"RS256","key":"` + secret + `"}]`:                                                "RS256",
		`[{"kid":"","alg":"HS256","key":"` + secret + `aaaa"}]`:                                             "kid",
		`[{"kid":"a","alg":"EdDSA","key":"` + secret + `"}]`:                                                "EdDSA key",
		`[{"kid":"a","alg":"EdDSA","key":"§"}]`:                                                             "neither",
		asSecret(pemPublic):                                                                                 "not a public or private key", // everybody could make tokens
		asSecret(base64.StdEncoding.EncodeToString([]byte(pemPublic))):                                      "not a public or private key",
		asSecret(base64.StdEncoding.EncodeToString(spki)):                                                   "not a public or private key",
		asSecret(base64.StdEncoding.EncodeToString(pkcs8)):                                                  "not a public or private key",
		asSecret(string(pem.EncodeToMemory(&pem.Block{Type: "OTHER", Bytes: bytes.Repeat([]byte{1}, 40)}))): "not a public or private key",
		asSecret("\n" + pemPublic):                                                                          "openssl rand",
		`[{"kid":"a","alg":"EdDSA","key":"-----BEGIN nothing"}]`:                                            "PEM",
		strings.TrimSuffix(string(file), "]") + "," + string(file[1:]):                                      "given twice",
		string(file) + "x": "follows",
	} {
		_, err := ParseKeys([]byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q in it", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`[{"kid":"a","alg":"HS256","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]`))
	f.Add([]byte(`[{"kid":"a","alg":"EdDSA","key":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ParseKeys(b)
		if err != nil {
			return
		}
		if _, err := NewAuth(keys, Issued{}); err != nil {
			t.Fatalf("parsed but not usable: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	key := Key{"k", AlgHS256, make([]byte, 32)}
	a, err := NewAuth([]Key{key}, Issued{})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	good, _ := signToken(key, Issued{}, "bob", "", nil, nil, now, time.Hour)
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := a.Verify(token, "", now); err == nil && (id.Client.ID != "bob" || token != good) {
			t.Fatalf("accepted %q for %v", token, id.Client)
		}
	})
}

// TestAuditLines: one line for each login and each close, with the reason and without the token.
func TestAuditLines(t *testing.T) {
	var log lockedBuffer
	key := Key{"k", AlgHS256, make([]byte, 32)}
	token, err := SignToken(key, "bob", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config, _ *fakeNode) {
		c.DevMode, c.Auth, c.Logger = false, mustAuth(t, key), slog.New(slog.NewJSONHandler(&log, nil))
	})
	for _, as := range []string{"bob", "carol"} {
		c := r.dial()
		f := loginFrame(as)
		f.Token = token
		c.send(f)
		if as == "bob" {
			expect(t, c, wire.TypeWelcome)
			r.node.session(t, "bob").Close(wire.Kicked, "")
			expectKick(t, c, wire.Kicked)
		} else {
			expectKick(t, c, wire.BadToken)
		}
	}
	eventually(t, "three lines", func() bool { return strings.Count(log.String(), `"audit"`) == 3 })
	for _, want := range []string{
		`"event":"login","ok":true,"client":"bob"`, `"event":"close","ok":true,"client":"bob"`, `"reason":"kicked"`,
		`"event":"login","ok":false,"client":"carol"`, `"reason":"bad_token"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), token) {
		t.Error("the token is in the log")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
