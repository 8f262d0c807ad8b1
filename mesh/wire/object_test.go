package wire

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestEachMember(t *testing.T) {
	for in, want := range map[string]string{ // what is read, or the error
		`{}`:                              "",
		` {"a":1,"A":{"b":[1,{"a":2}]}} `: `a=1 A={"b":[1,{"a":2}]}`,
		`{"b":null,"a":"x"}`:              `b=null a="x"`,
		``:                                "! it is empty",
		"  \n":                            "! it is empty",
		`null`:                            "! it is not a JSON object",
		`[]`:                              "! it is not a JSON object",
		`"x"`:                             "! it is not a JSON object",
		`<html>`:                          "! it is not JSON",
		`{"a":1`:                          "! it is not JSON",
		`{"a"}`:                           "! it is not JSON",
		`{"a":}`:                          "! it is not JSON",
		`{"a":1 "b":2}`:                   "! it is not JSON",
		`{a:1}`:                           "! it is not JSON",
		`{"a":1,"a":1}`:                   `! "a" is given twice`,
		`{"a":1,"\u0061":2}`:              `! "a" is given twice`,
		`{"a":1}{}`:                       "! something follows",
		`{"a":1} x`:                       "! something follows",
	} {
		var got []string
		err := EachMember([]byte(in), func(name string, value json.RawMessage) error {
			got = append(got, name+"="+string(value))
			return nil
		})
		if text, bad := strings.CutPrefix(want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q", in, err, text)
			}
		} else if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
	stop := errors.New("stop")
	if err := EachMember([]byte(`{"a":1,"b":`), func(string, json.RawMessage) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// FuzzEachMember: what it accepts encoding/json accepts as well, with the same members.
func FuzzEachMember(f *testing.F) {
	for _, s := range []string{`{"a":1,"A":2}`, `{"a":{"a":[]}}`, `{"a":1,"\u0061":2}`, `{"a":1}x`, `{`, "{\"\xff\":1}", `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var names []string
		if EachMember(b, func(name string, _ json.RawMessage) error { names = append(names, name); return nil }) != nil {
			return
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil || len(all) != len(names) {
			t.Fatalf("%q: %q, but %v, %v", b, names, all, err)
		}
		for name := range all {
			if !slices.Contains(names, name) {
				t.Fatalf("%q: %q is missing in %q", b, name, names)
			}
		}
	})
}

func TestStrings(t *testing.T) {
	for in, want := range map[string][]string{`[]`: {}, `["a",""]`: {"a", ""}} {
		if got, err := Strings([]byte(in)); err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{`null`, `["a",null]`, `"a"`, `{}`, `[1]`, ``} {
		if got, err := Strings([]byte(in)); err == nil {
			t.Errorf("%s is taken for %v", in, got)
		}
	}
}
