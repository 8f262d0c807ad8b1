package gateway

import (
	"testing"

	"imroute/mesh/wire"
)

// TestGrantsAnd: what two sources say about a client both must allow; where one does not say, the other decides.
func TestGrantsAnd(t *testing.T) {
	grants := func(send, join []string) *Grants {
		var s, j *[]string
		if send != nil {
			s = &send
		}
		if join != nil {
			j = &join
		}
		g, err := ParseGrants(s, j)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	token := grants([]string{"user:*", "group:a*"}, nil)
	asked := grants([]string{"group:*", "client:bob"}, []string{"group:x"})
	third := grants([]string{"*"}, []string{"*"})
	for name, g := range map[string]*Grants{"one way": token.And(asked), "the other": asked.And(token), "three": third.And(token).And(asked), "three, another way": asked.And(third.And(token))} {
		for _, c := range []struct {
			kind         wire.Kind
			to           string
			may, decided bool
		}{
			{wire.ToGroup, "abc", true, true},
			{wire.ToGroup, "b", false, true},
			{wire.ToClient, "bob", true, true},
			{wire.ToClient, "eve", false, true},
			{wire.ToUser, "bob", false, true},
			{wire.ToAll, "", false, true},
		} {
			if may, decided := g.Send(c.kind, c.to); may != c.may || decided != c.decided {
				t.Errorf("%s: %s %s: %v, %v", name, c.kind, c.to, may, decided)
			}
		}
		for group, want := range map[string]bool{"x": true, "y": false} {
			if may, decided := g.Join(wire.TopicGroup, group); may != want || !decided {
				t.Errorf("%s: join %s: %v, %v", name, group, may, decided)
			}
		}
	}
	if (*Grants)(nil).And(nil) != nil || token.And(nil) != token || (*Grants)(nil).And(token) != token {
		t.Error("nothing is not neutral")
	}
	if may, decided := token.Join(wire.TopicGroup, "y"); may || decided {
		t.Error("And changed what it was made of")
	}
}
