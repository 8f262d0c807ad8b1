package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imroute/node"
)

func TestParsePeers(t *testing.T) {
	a, b := node.RecoverPeer{Node: "n1", Voter: true}, node.RecoverPeer{Node: "n4", Voter: false}
	for in, want := range map[string][]node.RecoverPeer{
		"n1\nn4 non-voter\n": {a, b},
		"\ufeff# left\r\n n1 voter # first\r\n\r\nn4 non-voter": {a, b},
		`["n1"]`: {a},
		`[{"name":"n1"},{"id":"n4","name":"x","voter":false}]`: {a, b},
		// As "raft peers --output json" prints it, after the last two were deleted.
		"{\n  \"leader\": \"\",\n  \"peers\": [\n    {\n      \"name\": \"n1\",\n      \"voter\": true,\n      \"mesh\": \"127.0.0.1:7900\"\n    },\n  ]\n}\n": {a},
		"": nil, `{"peers":[]}`: nil,
	} {
		got, err := parsePeers([]byte(in))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"n1 n2", "n1 nonvoter", "{", `[{"voter":true}]`, `[3]`, `[""]`, `{"peers":3}`} {
		if got, err := parsePeers([]byte(in)); err == nil {
			t.Errorf("%q was taken for %v", in, got)
		}
	}
}

func FuzzParsePeers(f *testing.F) {
	f.Add([]byte("n1\nn4 non-voter\n"))
	f.Add([]byte(`{"peers":[{"name":"n1","voter":true},]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := parsePeers(b)
		for _, p := range peers {
			if err == nil && p.Node == "" {
				t.Errorf("%q: a peer without a name", b)
			}
		}
	})
}

func TestRecoverWantsItsFlags(t *testing.T) {
	dir := t.TempDir()
	peers := filepath.Join(dir, "peers")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "--data is missing"},
		{[]string{"--data", dir}, "--peers is missing"},
		{[]string{"--data", dir, "--peers", peers}, "cannot read the peers"},
		{[]string{"--data", dir, "--peers", peers, "--addr", "127.0.0.1:1"}, "stopped node"},
	} {
		var errs strings.Builder
		if code := Main(append([]string{"raft", "recover"}, c.args...), IOStreams{Err: &errs}); code != ExitError || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: exit code %d, %q, want %q", c.args, code, errs.String(), c.want)
		}
	}
}
