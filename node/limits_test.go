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
		"acme:\n  tenant-rat: 1": `line 2: tenant "acme": unknown limit "tenant-rat"; known are client-rate, client-bytes, tenant-rate`,
		"a:\n  client-rate: -1":  "client-rate is -1", "\"a:b\": {}": "must not contain", "- a": "line 1: want tenants with their limits",
		"a: {}\na: {}": `line 2: tenant "a" is already defined at line 1`, "b:\na: {client-rate: x}": `line 2: tenant "a": client-rate is "x": want a whole number, 0 for no limit`,
		"a: 7": `line 1: tenant "a": want its limits; known are`, "a: {client-rate: [1]}": "client-rate: want a whole number",
		"a: {client-rate: 1.5}": `client-rate is "1.5": want a whole number`, "a: {client-rate: 1, client-rate: 2}": `"client-rate" is already defined`,
		"x: &x {client-rat: 1}\na: *x": `tenant "x": unknown limit`, "a: {": "yaml: line", strings.Repeat("#", maxTenantsFile+1): "larger",
	} {
		if _, err := ParseTenantLimits([]byte(text), rest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q in it", text, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	if err := os.WriteFile(file, []byte("acme: {client-rate: x}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&Config{Data: "x", Limits: Limits{File: file}}).validate(); isError(err, "tenants.yaml", "want a whole number") != nil {
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
