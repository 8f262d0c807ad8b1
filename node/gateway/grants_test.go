package gateway

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

func grants(t *testing.T, send, join *[]string) *Grants {
	t.Helper()
	g, err := ParseGrants(send, join)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestWhoRefuses: what the login webhook refuses is not said to be the token's doing.
func TestWhoRefuses(t *testing.T) {
	s := &Session{grants: grants(t, &[]string{"user:*"}, &[]string{"group:room-*"})}
	s.Restrict(grants(t, &[]string{"user:ann", "all"}, nil))
	for _, c := range []struct {
		got, want string
	}{
		{s.Grants().RefusesSend(wire.ToUser, "bob"), "the operator's login webhook"},
		{s.Grants().RefusesSend(wire.ToAll, ""), "the token"},
		{s.Grants().RefusesSend(wire.ToGroup, "g"), "the operator's login webhook"},
		{s.Grants().RefusesJoin(wire.TopicGroup, "hall"), "the token"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	s = &Session{}
	s.Restrict(grants(t, nil, &[]string{}))
	if got := s.Grants().RefusesJoin(wire.TopicService, "x"); got != "the operator's login webhook" {
		t.Error(got)
	}
	if s.Restrict(nil); s.Grants() == nil {
		t.Error("nothing more to obey took away what there was")
	}
}

func TestGrants(t *testing.T) {
	type ask struct {
		kind wire.Kind
		to   string
		may  bool
	}
	for _, c := range []struct {
		patterns []string
		asks     []ask
	}{
		{[]string{}, []ask{{wire.ToClient, "bob", false}, {wire.ToGroup, "g", false}, {wire.ToAll, "", false}}},
		{[]string{"*"}, []ask{{wire.ToClient, "bob", true}, {wire.ToGroup, "g", true}, {wire.ToAll, "", true}, {wire.ToPrefix, "x", true}, {wire.Kind(15), "x", true}}},
		{[]string{"client:bob"}, []ask{{wire.ToClient, "bob", true}, {wire.ToClient, "bobby", false}, {wire.ToUser, "bob", false}, {wire.ToGroup, "bob", false}}},
		{[]string{"client:sensor-*"}, []ask{{wire.ToClient, "sensor-", true}, {wire.ToClient, "sensor-1/a", true}, {wire.ToClient, "sensor", false}}},
		{[]string{"user:bob"}, []ask{{wire.ToClient, "bob", true}, {wire.ToClient, "bob/phone", true}, {wire.ToUser, "bob", true}, {wire.ToClient, "bobby", false}, {wire.ToClient, "bobby/phone", false}}},
		{[]string{"user:*"}, []ask{{wire.ToClient, "anybody/phone", true}, {wire.ToUser, "x", true}, {wire.ToGroup, "x", false}, {wire.ToPrefix, "x", false}, {wire.ToAll, "", false}}},
		{[]string{"group:room-*", "group:hall"}, []ask{{wire.ToGroup, "room-1", true}, {wire.ToGroup, "hall", true}, {wire.ToGroup, "hall2", false}, {wire.ToClient, "room-1", false}}},
		{[]string{"group:a:b*"}, []ask{{wire.ToGroup, "a:bc", true}, {wire.ToGroup, "a", false}}},
		{[]string{"prefix:room-*"}, []ask{{wire.ToPrefix, "room-1", true}, {wire.ToPrefix, "room-", true}, {wire.ToPrefix, "room", false}, {wire.ToPrefix, "r", false}}},
		{[]string{"prefix:room-"}, []ask{{wire.ToPrefix, "room-", true}, {wire.ToPrefix, "room-1", false}}},
		{[]string{"all"}, []ask{{wire.ToAll, "", true}, {wire.ToOthers, "", false}}},
		{[]string{"others"}, []ask{{wire.ToAll, "", false}, {wire.ToOthers, "", true}}},
	} {
		g := grants(t, &c.patterns, nil)
		for _, a := range c.asks {
			if may, decided := g.Send(a.kind, a.to); may != a.may || !decided {
				t.Errorf("%q, send to %v %q: %v (decided %v), want %v", c.patterns, a.kind, a.to, may, decided, a.may)
			}
		}
		if _, decided := g.Join(wire.TopicGroup, "x"); decided {
			t.Errorf("%q decides about joining", c.patterns)
		}
	}
	g := grants(t, nil, &[]string{"group:room-*"})
	if may, decided := g.Join(wire.TopicGroup, "room-9"); !may || !decided {
		t.Error("may not join what it may")
	}
	if may, decided := g.Join(wire.TopicGroup, "hall"); may || !decided {
		t.Error("may join what it may not")
	}
	if may, decided := g.Join(wire.TopicService, "room-9"); may || !decided {
		t.Error("a pattern for groups lets into services")
	}
	if _, decided := g.Send(wire.ToAll, ""); decided {
		t.Error("join decides about sending")
	}
	var none *Grants
	if _, decided := none.Send(wire.ToClient, "bob"); decided || grants(t, nil, nil) != nil {
		t.Error("no claims decide")
	}
	if n := testing.AllocsPerRun(100, func() { g.Send(wire.ToClient, "bob/phone") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBadGrants(t *testing.T) {
	for pattern, want := range map[string]string{
		"": "kind", "bob": "kind", "grop:x": "kind", "group": "want KIND:NAME", "group:": "want KIND:NAME", "all:": "takes no name", "others:*": "takes no name",
		"user:*x": `only stand at the end`, "user:a**": `only stand at the end`, "client:" + strings.Repeat("x", 300): "longer",
	} {
		if _, err := ParseGrants(&[]string{"*", pattern}, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "send: ") {
			t.Errorf("%q: %v, want %q in it", pattern, err, want)
		}
	}
	if _, err := ParseGrants(nil, &[]string{"user:x"}); err == nil || !strings.Contains(err.Error(), "join: ") {
		t.Errorf("joining users: %v", err)
	}
	many := make([]string, MaxPatterns+1)
	if _, err := ParseGrants(&many, nil); err == nil {
		t.Error("too many were taken")
	}
}

func TestTokenGrants(t *testing.T) {
	key := Key{"k", AlgHS256, bytes.Repeat([]byte{1}, 32)}
	a := mustAuth(t, key)
	token, err := SignTokenFor(key, Issued{}, "bob", "acme", &[]string{"user:*"}, &[]string{}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.Verify(token, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if may, _ := id.Grants.Send(wire.ToUser, "carol"); !may {
		t.Error("the grant is not in the token")
	}
	if may, decided := id.Grants.Join(wire.TopicGroup, "g"); may || !decided {
		t.Error("an empty list must allow nothing")
	}
	plain, _ := SignToken(key, "bob", "", time.Hour)
	if id, err = a.Verify(plain, "", time.Now()); err != nil || id.Grants != nil {
		t.Errorf("a token without claims: %+v, %v", id, err)
	}
	if _, err := SignTokenFor(key, Issued{}, "bob", "", &[]string{"x"}, nil, time.Hour); err == nil {
		t.Error("a bad pattern was signed")
	}
	long := make([]string, 40)
	for i := range long {
		long[i] = "group:" + strings.Repeat("x", 200)
	}
	if _, err := SignTokenFor(key, Issued{}, "bob", "", &long, nil, time.Hour); err == nil || !strings.Contains(err.Error(), "bytes long") {
		t.Errorf("a token too long for a login: %v", err)
	}
	for name, claim := range map[string]any{"null": nil, "a string": "user:*", "numbers": []int{1}, "a typo": []string{"usr:*"}} {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "bob", "exp": time.Now().Add(time.Hour).Unix(), "send": claim})
		tok.Header["kid"] = "k"
		s, err := tok.SignedString(key.Key)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := a.Verify(s, "", time.Now()); err == nil || errors.Is(err, errTokenExpired) {
			t.Errorf("send is %s: accepted as %+v, %v", name, id, err)
		}
	}
}

// Whatever is accepted decides, without a panic, and what names no kind that is known is refused.
func FuzzGrants(f *testing.F) {
	f.Add("user:*\ngroup:room-*", "bob/phone", uint8(0))
	f.Add("all\nothers\n*", "", uint8(2))
	f.Add("prefix:a:b*", "a:b", uint8(4))
	f.Fuzz(func(t *testing.T, list, to string, kind uint8) {
		patterns := strings.Split(list, "\n")
		g, err := ParseGrants(&patterns, &patterns)
		if err != nil {
			g, err = ParseGrants(&patterns, nil)
		}
		if err != nil {
			return
		}
		may, decided := g.Send(wire.Kind(kind), to)
		if !decided {
			t.Fatalf("%q leaves %d %q open", patterns, kind, to)
		}
		if may && !strings.Contains(list, "*") && !strings.Contains(list, "all") && !strings.Contains(list, "others") {
			if user, _, _ := strings.Cut(to, "/"); !strings.Contains(list, to) && !strings.Contains(list, user) {
				t.Fatalf("%q allows %d %q", patterns, kind, to)
			}
		}
		g.Join(wire.TopicKind(kind), to)
	})
}
