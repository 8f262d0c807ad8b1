package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func TestClientIDValidate(t *testing.T) {
	for _, c := range []ClientID{
		{ID: "a"},
		{ID: "alice/phone"},
		{ID: "größe"},
		{ID: strings.Repeat("x", MaxClientID)},
		{Tenant: "acme", ID: "a:b"},
		{Tenant: strings.Repeat("t", MaxTenant), ID: "a b"},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%q: %v", c, err)
		}
	}
	for _, c := range []ClientID{
		{},
		{ID: strings.Repeat("x", MaxClientID+1)},
		{ID: "a*"},
		{ID: "a\n"},
		{ID: "a\x7f"},
		{ID: "a\u0085"},
		{ID: "\xff"},
		{ID: "/"},
		{ID: "a/"},
		{ID: "/a"},
		{ID: "a/b/c"},
		{ID: "a//b"},
		{Tenant: "a:b", ID: "x"},
		{Tenant: "a/b", ID: "x"},
		{Tenant: "*", ID: "x"},
		{Tenant: strings.Repeat("t", MaxTenant+1), ID: "x"},
	} {
		if c.Validate() == nil {
			t.Errorf("%q is accepted", c)
		}
	}
}

// Hashes lay out tables and lanes: they may never change.
func TestHashes(t *testing.T) {
	if a, b := (ClientID{ID: "alice/phone"}), (ClientID{ID: "alice/tv"}); a.Hash() != b.Hash() || a.HashID() == b.HashID() {
		t.Error("devices of one user must stay together, and differ")
	}
	if (ClientID{Tenant: "a", ID: "b"}).Hash() == (ClientID{Tenant: "ab", ID: ""}).Hash() {
		t.Error("tenant and user run into each other")
	}
	for c, want := range map[ClientID][2]uint64{
		{ID: "alice"}:                       {0x4306c1b8b408e8dc, 0x4306c1b8b408e8dc},
		{Tenant: "acme", ID: "alice/phone"}: {0x4a010090e304b9b4, 0xf993a6b381c507b4},
	} {
		if got := [2]uint64{c.Hash(), c.HashID()}; got != want {
			t.Errorf("%q: %#x, want %#x", c, got, want)
		}
	}
}

func TestTextForms(t *testing.T) {
	n := NodeID(NewID())
	if got, err := ParseNodeID(n.String()); err != nil || got != n {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "0", "0000000000000000", "xyz", "00000000000000001", "+000000000000001"} {
		if _, err := ParseNodeID(s); err == nil {
			t.Errorf("node id %q is accepted", s)
		}
	}
	m := MessageID{NewID(), 77}
	if got, err := ParseMessageID(m.String()); err != nil || got != m {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", ".", "0123456789abcdef", "0123456789abcdef.", "123.4", "0123456789abcdef.x"} {
		if _, err := ParseMessageID(s); err == nil {
			t.Errorf("message id %q is accepted", s)
		}
	}
	if e := MakeEpoch(7, 1<<47+5); e.Generation() != 7 || e.Counter() != 1<<47+5 || MakeEpoch(8, 0) < e {
		t.Errorf("epoch %d", e)
	}
}

// Every code declared in code.go stands in the table, under a name of its own.
func TestCodeTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Code" {
				declared += len(v.Names)
				if len(v.Values) != len(v.Names) {
					t.Errorf("%s: codes are written as numbers", v.Names[0])
				}
			}
		}
	}
	names := map[string]Code{}
	Known(func(c Code, name string, class Class) bool {
		if other, ok := names[name]; ok || name == "" || strings.HasPrefix(name, "code_") {
			t.Errorf("code %d is named %q, so is %d", c, name, other)
		}
		names[name] = c
		if c.String() != name || c.Class() != class || strings.Contains(class.String(), "%") {
			t.Errorf("code %d: %q, %v", c, c, c.Class())
		}
		return true
	})
	if declared < 30 || declared != len(names) {
		t.Errorf("%d codes are declared, %d are in the table", declared, len(names))
	}
	if c := Code(60000); c.String() != "code_60000" || c.Class() != RetryElsewhere {
		t.Errorf("an unknown code is %q, %v", c, c.Class())
	}
}

// Messages carry an identity that only their client can have.
func TestSenderIsBoundToTheClient(t *testing.T) {
	alice := ClientID{ID: "alice"}
	seen := map[uint64]string{}
	for _, c := range []ClientID{alice, {ID: "alicf"}, {Tenant: "alice"}, {Tenant: "a", ID: "lice"}, {Tenant: "al", ID: "ice"}} {
		for _, instance := range []uint64{1, 2, 17} {
			v := Sender(c, instance)
			if other, ok := seen[v]; ok || v == 0 || v == instance {
				t.Errorf("%s with instance %d sends as %d, as does %s", c, instance, v, other)
			}
			seen[v] = c.String()
		}
	}
	again := ClientID{ID: string([]byte("alice"))}
	if Sender(alice, 17) != Sender(again, 17) {
		t.Error("a reconnecting client sends as somebody else")
	}
}
