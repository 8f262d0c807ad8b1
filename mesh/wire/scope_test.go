package wire

import "testing"

func TestScopes(t *testing.T) {
	s, err := ParseScopes("send, kick", "assign")
	if err != nil || s != ScopeSend|ScopeKick|ScopeAssign || s.String() != "send,kick,assign" {
		t.Fatalf("%v, %v", s, err)
	}
	if again, err := ParseScopes(s.Names()...); err != nil || again != s {
		t.Errorf("read again: %v, %v", again, err)
	}
	if !s.Has(ScopeKick) || s.Has(ScopeGroups) || s.Has(ScopeSend|ScopeGroups) || !ScopeAdmin.Has(ScopeGroups) || s.Has(ScopeAdmin) {
		t.Error("Has is wrong")
	}
	for _, bad := range [][]string{nil, {""}, {"send,,kick"}, {"Send"}, {"root"}} {
		if s, err := ParseScopes(bad...); err == nil {
			t.Errorf("%q gives %v", bad, s)
		}
	}
	if got := (AllScopes | 1<<9).String(); got != "send,presence,groups,kick,assign,admin,scope_9" {
		t.Error(got)
	}
}
