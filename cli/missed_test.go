package cli

import "testing"

func TestMissedText(t *testing.T) {
	for want, c := range map[string]struct {
		n   int
		ids []string
	}{
		"":                     {},
		"  3 not":              {3, nil},
		"  2 not: ann, bob":    {2, []string{"bob", "ann"}},
		"  9 not: ann, bob, …": {9, []string{"bob", "ann"}},
	} {
		if got := missedText(c.n, c.ids); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
