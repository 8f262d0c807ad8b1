package wire

import (
	"fmt"
	"strings"
)

// Scope is what an API key may do: a set, in bits. Numbers are append-only.
type Scope uint32

const (
	ScopeSend     Scope = 1 << iota // send messages
	ScopePresence                   // ask who is online
	ScopeGroups                     // list and close groups, list members
	ScopeKick                       // close sessions
	ScopeAssign                     // ask where a client should connect
	ScopeAdmin                      // everything, operators' calls included

	// AllScopes are all that this program knows.
	AllScopes = ScopeSend | ScopePresence | ScopeGroups | ScopeKick | ScopeAssign | ScopeAdmin
)

var scopeNames = [...]string{"send", "presence", "groups", "kick", "assign", "admin"}

// Has tells whether s allows what want asks for; admin allows everything.
func (s Scope) Has(want Scope) bool { return s&ScopeAdmin != 0 || s&want == want }

// Names lists the scopes by name, in the order of their bits; bits of a later version as scope_N.
func (s Scope) Names() (names []string) {
	for i := range 32 {
		switch {
		case s&(1<<i) == 0:
		case i < len(scopeNames):
			names = append(names, scopeNames[i])
		default:
			names = append(names, fmt.Sprintf("scope_%d", i))
		}
	}
	return names
}

func (s Scope) String() string { return strings.Join(s.Names(), ",") }

// ParseScopes reads names, each of which may be several with commas between. At least one is wanted.
func ParseScopes(names ...string) (s Scope, err error) {
	for _, list := range names {
		for name := range strings.SplitSeq(list, ",") {
			bit := Scope(0)
			for i, known := range scopeNames {
				if strings.TrimSpace(name) == known {
					bit = 1 << i
				}
			}
			if bit == 0 {
				return 0, fmt.Errorf("scope %q is not known: want %s", name, strings.Join(scopeNames[:], ", "))
			}
			s |= bit
		}
	}
	if s == 0 {
		return 0, fmt.Errorf("no scope is given: want %s", strings.Join(scopeNames[:], ", "))
	}
	return s, nil
}
