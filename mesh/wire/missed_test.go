package wire

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestMissed(t *testing.T) {
	var m Missed
	m.Add("ann")
	m.Join(Missed{Count: 5, IDs: []string{"bob", "ann"}})
	m.AddNamed("eve/web")
	if m.Count != 6 || !slices.Equal(m.IDs, []string{"ann", "bob", "eve/web"}) {
		t.Errorf("%+v", m)
	}
	if m.Join(Missed{Count: math.MaxUint32}); m.Count != math.MaxUint32 {
		t.Errorf("%d: the count goes round", m.Count)
	}
	for i := range 2 * MaxMissedIDs {
		m.AddNamed(strings.Repeat("x", i+1))
	}
	if len(m.IDs) != MaxMissedIDs {
		t.Errorf("%d ids", len(m.IDs))
	}
	if got := m.Fit(); len(got.IDs) != MaxMissedIDs || got.Count != m.Count {
		t.Errorf("short ids do not fit: %+v", got)
	}

	t.Log("the longest ids still make a status that every lane takes, and a result that validates")
	var long Missed
	for i := range MaxMissedIDs {
		long.Add(strings.Repeat(string(rune('a'+i)), MaxClientID))
	}
	fit := long.Fit()
	st := Status{Ref: math.MaxUint64, Code: math.MaxUint16, Index: math.MaxUint64, Missed: fit.Count, MissedIDs: fit.IDs}
	if n := len(AppendStatus(nil, &st)); n > 1<<10 || len(fit.IDs) == 0 || fit.Count != MaxMissedIDs {
		t.Errorf("%d bytes with %d ids", n, len(fit.IDs))
	}
	f := Frame{Type: TypeResult, ID: 1, Code: Delivered, Node: "n", Text: strings.Repeat("t", MaxText), Missed: long.Count, MissedIDs: long.IDs}
	if err := f.Validate(false); err != nil {
		t.Error(err)
	}
	if n := len(AppendFrameHeader(nil, &f)) - LengthBytes; n > MaxHeader {
		t.Errorf("a header of %d bytes validates", n)
	}
	for what, bad := range map[string]Frame{
		"too many":        {Type: TypeResult, ID: 1, Code: Delivered, Missed: 17, MissedIDs: slices.Repeat([]string{"a"}, 17)},
		"not an id":       {Type: TypeResult, ID: 1, Code: Delivered, Missed: 1, MissedIDs: []string{"a*"}},
		"another type":    {Type: TypePong, Missed: 1},
		"with much else":  {Type: TypeResult, ID: 1, Code: Delivered, Missed: 1, Token: "t"},
		"with much else2": {Type: TypeResult, ID: 1, Code: Delivered, Missed: 1, Addrs: []string{"a:1"}},
	} {
		if bad.Validate(false) == nil {
			t.Errorf("%s validates", what)
		}
	}
}
