package raftfsm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imroute/mesh/wire"
)

func keyCommand(id string) *Command {
	return &Command{
		Kind: KindKeyCreate, ID: id, Hash: []byte("hash of " + id), Scopes: wire.ScopeSend | wire.ScopeKick, Name: "shop", Tenant: "acme", OneTenant: true, ExpiresUnix: 99,
	}
}

func TestAPIKeys(t *testing.T) {
	d := &driver{t: NewTable()}
	d.do(&Command{Kind: KindInit, ClusterID: 7})
	if r := d.t.Apply(2, 1, keyCommand("k1")); r.Code != wire.BadRequest {
		t.Errorf("below its feature level: %+v", r)
	}
	plain := d.t.Hash()
	d.do(&Command{Kind: KindFeatureLevel, Level: KeyFeatureLevel})
	d.do(keyCommand("k1"))
	d.do(keyCommand("k1")) // a copy
	d.do(&Command{Kind: KindKeyCreate, ID: "k0", Hash: []byte{1}, Scopes: wire.ScopeAdmin})
	other := keyCommand("k1")
	other.Scopes = wire.ScopeAdmin
	if r := d.t.Apply(6, 1, other); r.Code != wire.Refused {
		t.Errorf("another key of the same id: %+v", r)
	}
	want := []APIKey{
		{ID: "k0", Hash: []byte{1}, Scopes: wire.ScopeAdmin},
		{ID: "k1", Hash: []byte("hash of k1"), Scopes: wire.ScopeSend | wire.ScopeKick, Name: "shop", Tenant: "acme", OneTenant: true, ExpiresUnix: 99},
	}
	if diff := cmp.Diff(want, d.t.sortedKeys()); diff != "" {
		t.Error(diff)
	}

	var b bytes.Buffer
	v := d.t.Grab(70)
	err := v.WriteSnapshot(&b)
	v.Close()
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := ReadSnapshot(bytes.NewReader(b.Bytes()), 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.sortedKeys()); diff != "" {
		t.Error(diff)
	}
	if again.Hash() != d.t.Hash() || d.t.Hash() == plain {
		t.Error("the hash does not cover the keys, or not what was restored")
	}
	if _, _, err := readSnapshot(bytes.NewReader(b.Bytes()), 0, TopicFeatureLevel); !errors.Is(err, ErrSnapshotVersion) {
		t.Errorf("a program without keys reads it: %v", err)
	}

	d.do(&Command{Kind: KindKeyRevoke, ID: "k1"})
	if r := d.t.Apply(80, 1, &Command{Kind: KindKeyRevoke, ID: "k1"}); r.Code != wire.Refused {
		t.Errorf("revoked twice: %+v", r)
	}
	for i := range MaxAPIKeys - 1 {
		c := keyCommand("k1")
		c.ID = strings.Repeat("x", 1+i%60) + string(rune('a'+i/60))
		d.do(c)
	}
	if r := d.t.Apply(5000, 1, keyCommand("last")); r.Code != wire.Refused {
		t.Errorf("one too many: %+v", r)
	}
}

func TestAPIKeyCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Command){
		"no hash":          func(c *Command) { c.Hash = nil },
		"no scope":         func(c *Command) { c.Scopes = 0 },
		"no id":            func(c *Command) { c.ID = "" },
		"long name":        func(c *Command) { c.Name = strings.Repeat("n", MaxKeyName+1) },
		"unbound tenant":   func(c *Command) { c.OneTenant = false },
		"impossible":       func(c *Command) { c.Tenant = "a\x00b" },
		"negative expiry":  func(c *Command) { c.ExpiresUnix = -1 },
		"hash is too long": func(c *Command) { c.Hash = make([]byte, maxHash+1) },
	} {
		c := keyCommand("k")
		if err := c.Check(KeyFeatureLevel); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(TopicFeatureLevel); err == nil {
			t.Fatal("allowed below its level")
		}
		if spoil(c); c.Check(KeyFeatureLevel) == nil {
			t.Errorf("%s: allowed", name)
		}
	}
}
