package admin

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestBodyTypes: every body consists of fields that decodeBody has words for, and has a name for each.
func TestBodyTypes(t *testing.T) {
	n := 0
	for path, e := range endpoints {
		if e.in == nil {
			continue
		}
		n++
		typ := reflect.TypeOf(e.in)
		for i := range typ.NumField() {
			if f := typ.Field(i); fieldWants(f.Type) == "" || f.Tag.Get("json") == "" || f.Anonymous {
				t.Errorf("%s: field %s", path, f.Name)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d bodies", n)
	}
}

func TestLoneSurrogate(t *testing.T) {
	for s, want := range map[string]bool{
		`"a"`: false, `"\u0041"`: false, `"\ud83d\ude00"`: false, `"\uD83D\uDE00\ud83d\ude00"`: false, `"\\ud800"`: false,
		`"\\\\ud800"`: false, `"\ud800"`: true, `"\udc00"`: true, `"\ud800\ud800"`: true, `"\ude00\ud83d"`: true, `"\\\ud800"`: true,
		`"\ud83d\ude00\ude00"`: true, `"\ud83dx\ude00"`: true, `"\ud83d\n\ude00"`: true,
	} {
		if got := loneSurrogate([]byte(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}

// FuzzDecodeBody: what is taken is taken by encoding/json as well, with the same meaning, and its text came as it is.
func FuzzDecodeBody(f *testing.F) {
	f.Add(`{"to":"a","payload":"\ud83d\ude00","timeout_ms":5}`)
	f.Add(`{"To":"a"}`)
	f.Add(`{"to":"a","t\u006f":"b"}`)
	f.Add(`{"payload":"\ud800"}`)
	f.Add(` null `)
	f.Add(`{"to":["a"]}{`)
	f.Fuzz(func(t *testing.T, body string) {
		var got SendRequest
		err := decodeBody([]byte(body), &got)
		if err != nil {
			for _, word := range []string{"slice", "string", "struct", "uint32", "json:", "admin."} {
				if e := asError(err); strings.Contains(e.Text, word) && !strings.Contains(body, word) && !strings.Contains(e.Text, "not valid JSON") {
					t.Errorf("%q: %v", body, err)
				}
			}
			return
		}
		var want SendRequest
		if err := json.Unmarshal([]byte(body), &want); err != nil && strings.TrimSpace(body) != "" {
			t.Fatalf("%q: %v", body, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, encoding/json: %+v", body, got, want)
		}
		if strings.ContainsRune(got.To, utf8.RuneError) && !strings.ContainsRune(body, utf8.RuneError) && !strings.Contains(strings.ToLower(body), `\ufffd`) {
			t.Fatalf("%q became %q", body, got.To)
		}
	})
}
