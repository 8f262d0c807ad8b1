package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"imroute/node/gateway"
)

func TestTenantLimitsFile(t *testing.T) {
	rest := gateway.Limits{ClientRate: 10, TenantRate: 100}
	got, err := ParseTenantLimits([]byte("acme:\n  tenant-rate: 500\n  client-rate: 0 # none\n\"\": {tenant-sessions: 7}\nplain: {}\n"), rest)
	want := map[string]gateway.Limits{"acme": {TenantRate: 500}, "": {ClientRate: 10, TenantRate: 100, TenantSessions: 7}, "plain": rest}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseTenantLimits(nil, rest); err != nil || len(got) != 0 {
		t.Errorf("an empty file: %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"acme: {tenant-rat: 1}": "tenant-rat", "a:\n  client-rate: -1": "client-rate is -1", "\"a:b\": {}": "must not contain", "- a": "cannot unmarshal",
		"a: {}\na: {}": "already defined", "a: {client-rate: x}": "cannot unmarshal", strings.Repeat("#", maxTenantsFile+1): "larger",
	} {
		if _, err := ParseTenantLimits([]byte(text), rest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q in it", text, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	if err := os.WriteFile(file, []byte("acme: {client-rate: x}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&Config{Data: "x", Limits: Limits{File: file}}).validate(); isError(err, "tenants.yaml", "cannot unmarshal") != nil {
		t.Error(err)
	}
	if err := (&Config{Data: "x", Limits: Limits{File: file + "x"}}).validate(); isError(err, "tenants", "no such file") != nil && isError(err, "cannot find") != nil {
		t.Error(err)
	}
}

func FuzzTenantLimits(f *testing.F) {
	f.Add([]byte("acme:\n  tenant-rate: 500\n  client-rate: 0\n"))
	f.Add([]byte("\"\": {tenant-sessions: 7}\n"))
	f.Add([]byte("a: &x {client-rate: 1}\nb: *x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseTenantLimits(b, gateway.Limits{ClientRate: 5})
		if err != nil {
			return
		}
		for name, l := range got {
			if err := l.Validate(); err != nil {
				t.Fatalf("%q: %v", name, err)
			}
		}
	})
}
