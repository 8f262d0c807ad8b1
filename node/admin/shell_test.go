package admin

import "testing"

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"eve/phone:1": "eve/phone:1", "127.0.0.1:7901": "127.0.0.1:7901", "": "''", "a b": "'a b'", "x;rm -r ~": "'x;rm -r ~'",
		"it's": `'it'\''s'`, "$(id)": "'$(id)'", "`id`": "'`id`'", "a\nb": "'a\nb'", "größe": "'größe'",
	} {
		if got := ShellWord(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
