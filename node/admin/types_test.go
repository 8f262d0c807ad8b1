package admin

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestNumbersInJSON: 64-bit numbers are strings, by their tag or their own marshalling; nothing else is 64 bits wide.
func TestNumbersInJSON(t *testing.T) {
	seen := map[reflect.Type]bool{}
	wide := 0
	var walk func(t *testing.T, path string, typ reflect.Type)
	walk = func(t *testing.T, path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t, path, typ.Elem())
			return
		case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64, reflect.Uintptr, reflect.Float32, reflect.Float64:
			if _, ok := typ.MethodByName("MarshalText"); !ok {
				t.Errorf("%s: a bare %v", path, typ)
			}
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			where := path + "." + f.Name
			if name == "" && !f.Anonymous {
				t.Errorf("%s has no JSON name", where)
			}
			if strings.ToLower(name) != name || strings.Contains(name, "-") {
				t.Errorf("%s: JSON name %q", where, name)
			}
			asString := strings.Contains(","+opts+",", ",string,")
			if k := f.Type.Kind(); k == reflect.Uint64 || k == reflect.Int64 {
				wide++
				if _, marshals := f.Type.MethodByName("MarshalText"); !asString && !marshals {
					t.Errorf("%s is a %v and not a string in JSON", where, f.Type)
				}
				continue
			} else if asString {
				t.Errorf("%s is a %v: no string", where, f.Type)
			}
			walk(t, where, f.Type)
		}
	}
	for _, v := range []any{
		Node{},
		NodeDetail{},
		ClusterStatus{},
		Settings{},
		SettingsChange{},
		JoinToken{},
		JoinTokenInfo{},
		RaftPeers{},
		TransferResult{},
		VerifyResult{},
		SnapshotResult{},
		Route{},
		RoutePage{},
		RouteStats{},
		RouteEvent{},
		KickResult{},
		SendRequest{},
		SendResult{},
		ClientToken{},
		Readiness{},
		VersionInfo{},
		drainBody{},
		tokenBody{},
		transferBody{},
		kickBody{},
		clientTokenBody{},
		errorBody{},
	} {
		walk(t, reflect.TypeOf(v).Name(), reflect.TypeOf(v))
	}
	if wide < 30 {
		t.Errorf("only %d wide fields seen: the test does not look where it should", wide)
	}
}

// TestFixedWords: these names are promised to scripts.
func TestFixedWords(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{
		{Node{}, "name id role state incarnation voter leader applied_index clients version mesh client_tcp client_ws admin"},
		{Route{}, "client found node incarnation node_state session epoch consistency index leader owner_check"},
		{SendResult{}, "result code owner rtt_us id"},
	} {
		raw, err := encode(tt.v)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(tt.want) {
			if !strings.Contains(string(raw), `"`+name+`":`) {
				t.Errorf("%T has no %q: %s", tt.v, name, raw)
			}
		}
	}
}
