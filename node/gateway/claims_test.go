package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

// signRaw signs claims exactly as they are written.
func signRaw(t *testing.T, key Key, header, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sig, err := jwt.SigningMethodHS256.Sign(text, key.Key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

const rawHeader = `{"alg":"HS256","kid":"k"}`

// TestClaimNamesAreExact: an issuer that lets users choose claims of their own, other than those that are read, hands nothing out by
// names that look alike; and a name given twice, of which issuer and node could each take another, is refused.
func TestClaimNamesAreExact(t *testing.T) {
	key := Key{"k", AlgHS256, bytes.Repeat([]byte{1}, 32)}
	a := mustAuth(t, key)
	now := time.Now()
	for claims, want := range map[string]string{ // tenant:sub, may send to all, may join x; or the error
		`{"sub":"u","Sub":"admin","exp":EXP}`:                          "u false false",
		`{"Sub":"admin","sub":"u","SUB":"root","exp":EXP}`:             "u false false",
		`{"sub":"u","exp":EXP,"send":[],"Send":["*"]}`:                 "u false false",
		`{"sub":"u","exp":EXP,"SEND":["*"],"Join":["*"]}`:              "u false false",
		`{"sub":"u","exp":EXP,"\u017fend":["*"],"\u017fub":"admin"}`:   "u false false", // ſ folds to s
		`{"sub":"u","exp":EXP,"tenant":"a","Tenant":"b"}`:              "a:u false false",
		`{"sub":"u","exp":EXP,"Tenant":"b"}`:                           "u false false",
		`{"sub":"u","exp":EXP,"\u0073end":["all"],"join":["group:x"]}`: "u true true",
		`{"sub":"u","exp":EXP,"send":null,"Send":["*"]}`:               "! claim send must be a list of patterns",
		`{"Sub":"admin","exp":EXP}`:                                    "! sub is missing",
		`{"sub":"u","Exp":EXP}`:                                        "! exp is missing",
		`{"sub":"u","exp":1,"Exp":EXP}`:                                "! expired",
		`{"sub":"u","exp":EXP,"nbf":EXP,"Nbf":1}`:                      "! not valid yet",
		`{"sub":"u","sub":"admin","exp":EXP}`:                          `! "sub" is given twice`,
		`{"sub":"u","exp":EXP,"send":[],"s\u0065nd":["*"]}`:            `! "send" is given twice`,
		`{"sub":"u","exp":1,"exp":EXP}`:                                `! "exp" is given twice`,
	} {
		id, err := a.Verify(signRaw(t, key, rawHeader, strings.ReplaceAll(claims, "EXP", fmt.Sprint(now.Add(time.Hour).Unix()))), "", now)
		if text, refused := strings.CutPrefix(want, "! "); refused {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, %v, want %q", claims, id, err, text)
			}
			continue
		}
		all, _ := id.Grants.Send(wire.ToAll, "")
		join, _ := id.Grants.Join(wire.TopicGroup, "x")
		if got := fmt.Sprint(id.Client, all, join); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", claims, got, err, want)
		}
	}
}

// TestTokenRefusalsArePlain: who logs in reads words that say what to do, not what the program is made of; the log has the rest.
func TestTokenRefusalsArePlain(t *testing.T) {
	key := Key{"k", AlgHS256, bytes.Repeat([]byte{1}, 32)}
	var log lockedBuffer
	r := newRig(t, func(c *Config, _ *fakeNode) {
		c.DevMode, c.Auth, c.Logger = false, mustAuth(t, key), slog.New(slog.NewJSONHandler(&log, nil))
	})
	for i, x := range []struct{ header, claims, want string }{
		{rawHeader, `{"sub":7,"exp":EXP}`, "its claim sub must be a string"},
		{rawHeader, `{"sub":"u","exp":"soon"}`, "its claim exp must be a number of seconds since 1970"},
		{rawHeader, `{"sub":"u","exp":EXP,"nbf":{}}`, "its claim nbf must be a number"},
		{rawHeader, `{"sub":"u","exp":EXP,"aud":[1]}`, "its claim aud must be a string or a list of strings"},
		{rawHeader, `{"sub":"u","exp":EXP,"tenant":[]}`, "its claim tenant must be a string"},
		{rawHeader, `{"sub":"u","exp":EXP,"send":"*"}`, "its claim send must be a list of patterns"},
		{rawHeader, `{"sub":"u","exp":EXP,"join":[1]}`, "its claim join must be a list of patterns"},
		{rawHeader, `{"sub":"u","exp":EXP,"join":["room"]}`, "join: pattern"},
		{rawHeader, `[]`, "not a JSON object"},
		{rawHeader, `{"sub"`, "not a JWT"},
		{`{"alg":7,"kid":"k"}`, `{"sub":"u","exp":EXP}`, "alg must be EdDSA or HS256"},
		{`{"alg":"XS1","kid":"k"}`, `{"sub":"u","exp":EXP}`, "alg must be EdDSA or HS256"},
		{`[1]`, `{"sub":"u","exp":EXP}`, "not a JWT"},
		{`{"alg":"HS256","kid":"k","crit":["x"]}`, `{"sub":"u","exp":EXP}`, "critical extensions"},
	} {
		c := r.dial()
		f := loginFrame("u")
		f.Token = signRaw(t, key, x.header, strings.ReplaceAll(x.claims, "EXP", fmt.Sprint(time.Now().Add(time.Hour).Unix())))
		c.send(f)
		text := expectKick(t, c, wire.BadToken).Text
		if !strings.HasPrefix(text, "token refused: ") || !strings.Contains(text, x.want) {
			t.Errorf("%s: %s, want %s", x.claims, text, x.want)
		}
		for _, inside := range []string{"json:", "Go ", "unmarshal", "wire.", "jwt.", "keyfunc"} {
			if strings.Contains(text, inside) {
				t.Errorf("%s: %s shows %s", x.claims, text, inside)
			}
		}
		if i == 0 && !strings.Contains(log.String(), "cannot unmarshal number") {
			t.Errorf("no details in the log: %s", log.String())
		}
	}
}

// TestIssued: who says for whom and by whom tokens are made gets no others; who does not takes all.
func TestIssued(t *testing.T) {
	key := Key{"k", AlgHS256, bytes.Repeat([]byte{1}, 32)}
	now := time.Now()
	for _, c := range []struct {
		issued Issued
		claims string
		want   string // "": accepted
	}{
		{Issued{}, ``, ""},
		{Issued{}, `,"iss":"other","aud":["a","b"]`, ""},
		{Issued{Issuer: "me"}, `,"iss":"me"`, ""},
		{Issued{Issuer: "me"}, ``, "issuer (iss)"},
		{Issued{Issuer: "me"}, `,"iss":""`, "issuer (iss)"},
		{Issued{Issuer: "me"}, `,"iss":"Me"`, "issuer (iss)"},
		{Issued{Issuer: "me"}, `,"Iss":"me"`, "issuer (iss)"},
		{Issued{Issuer: "me"}, `,"iss":["me"]`, "iss must be a string"},
		{Issued{Audience: "chat"}, `,"aud":"chat"`, ""},
		{Issued{Audience: "chat"}, `,"aud":["shop","chat"]`, ""},
		{Issued{Audience: "chat"}, `,"aud":["shop"]`, "audience (aud)"},
		{Issued{Audience: "chat"}, `,"aud":[]`, "audience (aud)"},
		{Issued{Audience: "chat"}, `,"aud":null`, "audience (aud)"},
		{Issued{Audience: "chat"}, ``, "audience (aud)"},
		{Issued{"me", "chat"}, `,"iss":"me","aud":"chat"`, ""},
		{Issued{"me", "chat"}, `,"iss":"me"`, "audience (aud)"},
	} {
		a, err := NewAuth([]Key{key}, c.issued)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Verify(signRaw(t, key, rawHeader, fmt.Sprintf(`{"sub":"u","exp":%d%s}`, now.Add(time.Hour).Unix(), c.claims)), "", now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v, %s: %v, want %q", c.issued, c.claims, err, c.want)
		}
		token, err := SignTokenFor(key, c.issued, "u", "", nil, nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Verify(token, "u", now); err != nil {
			t.Errorf("%+v: a token made for it: %v", c.issued, err)
		}
	}
}

func FuzzClaims(f *testing.F) {
	for _, s := range []string{`{"sub":"u","Sub":"admin"}`, `{"send":["*"],"send":[]}`, `{"Send":["*"]}`, `{"exp":1e300,"aud":["x"]}`, `{"join":null}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c claims
		if json.Unmarshal(b, &c) != nil {
			return
		}
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(b, &exact); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if _, ok := exact["send"]; ok != (c.Send.list != nil) {
			t.Errorf("%s: send %v", b, c.Send.list)
		}
		if _, ok := exact["sub"]; !ok && c.Subject != "" {
			t.Errorf("%s: sub %q", b, c.Subject)
		}
	})
}
