package wire

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestFrameJSON(t *testing.T) {
	for want, f := range map[string]Frame{
		`{"type":"ping"}`: {Type: TypePing},
		`{"type":"send","to":"bob","id":"18446744073709551615","ack":"owner","timeout_ms":5000,"payload":"hi \"you\"\u0001\n"}`: {
			Type: TypeSend, To: "bob", ID: math.MaxUint64, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("hi \"you\"\x01\n"),
		},
		`{"type":"result","id":"7","code":2,"reason":"offline"}`: {Type: TypeResult, ID: 7, Code: Offline},
		`{"type":"deliver","from":"größe","id":"1","instance":"2","epoch":"3","payload_b64":"/wA="}`: {
			Type: TypeDeliver, From: "größe", ID: 1, Instance: 2, Epoch: 3, Payload: []byte{0xff, 0},
		},
		`{"type":"send","to":"bob","payload_b64":"AQEi"}`:    {Type: TypeSend, To: "bob", Payload: []byte("\x01\x01\"")},
		`{"type":"send","to":"bob","payload":"\\\\\\\"\""}`:  {Type: TypeSend, To: "bob", Payload: []byte(`\\\""`)},
		`{"type":"send","to":"bob","payload":"abc\u0001de"}`: {Type: TypeSend, To: "bob", Payload: []byte("abc\x01de")},
		`{"type":"kick","code":101,"reason":"replaced","addrs":["a:1","b:2"],"retry_ms":9,"text":"x"}`: {
			Type: TypeKick, Code: Replaced, Addrs: []string{"a:1", "b:2"}, RetryMS: 9, Text: "x",
		},
	} {
		got, err := MarshalFrameJSON(&f)
		if err != nil || string(got) != want {
			t.Errorf("%v\n got %s\nwant %s", err, got, want)
		}
		var back Frame
		if err := UnmarshalFrameJSON(got, &back); err != nil || !reflect.DeepEqual(back, f) {
			t.Errorf("%s: %v, %+v", got, err, back)
		}
	}
	full := fullFrame()
	b, err := MarshalFrameJSON(&full)
	var back Frame
	if err != nil || UnmarshalFrameJSON(b, &back) != nil || !reflect.DeepEqual(full, back) {
		t.Errorf("%s: %v, %+v", b, err, back)
	}
	var generic map[string]any // the tags of Frame name the same fields
	if err := json.Unmarshal(b, &generic); err != nil {
		t.Fatal(err)
	}
	rt := reflect.TypeFor[Frame]()
	for i := range rt.NumField() {
		name, _, _ := strings.Cut(rt.Field(i).Tag.Get("json"), ",")
		if _, ok := generic[name]; !ok && name != "-" {
			t.Errorf("%s is not written", name)
		}
	}
	for _, f := range []Frame{{}, {Type: 99}, {Type: TypeSend, Ack: 3}} {
		if _, err := MarshalFrameJSON(&f); err == nil {
			t.Errorf("%+v is written", f)
		}
	}
}

func TestUnmarshalFrameJSON(t *testing.T) {
	var f Frame
	for in, want := range map[string]Frame{
		`{"type":"send","id":9007199254740991,"to":null,"x":{"y":[1]},"reason":5}`: {Type: TypeSend, ID: maxSafeInteger},
		` {"payload":"","type":"bye"} `:                                            {Type: TypeBye},
		`{"type":"ack","ack":"none","payload_b64":"aGk="}`:                         {Type: TypeAck, Payload: []byte("hi")},
		`{"type":"ping","TO":"x"}`:                                                 {Type: TypePing},
	} {
		if err := UnmarshalFrameJSON([]byte(in), &f); err != nil || !reflect.DeepEqual(f, want) {
			t.Errorf("%s: %v, %+v", in, err, f)
		}
	}
	for in, field := range map[string]string{
		`{}`:                                            "type: missing",
		`{"type":"nonsense"}`:                           "type: ",
		`{"type":4}`:                                    "type: ",
		`{"type":"send","id":9007199254740992}`:         "id: ",
		`{"type":"send","id":"x"}`:                      "id: ",
		`{"type":"send","id":-1}`:                       "id: ",
		`{"type":"send","id":1.5}`:                      "id: ",
		`{"type":"send","instance":""}`:                 "instance: ",
		`{"type":"login","instance":12345}`:             "instance: 64-bit numbers are decimal strings",
		`{"type":"send","epoch":[]}`:                    "epoch: ",
		`{"type":"send","ack":"later"}`:                 "ack: ",
		`{"type":"send","ack":1}`:                       "ack: ",
		`{"type":"send","timeout_ms":"5"}`:              "timeout_ms: ",
		`{"type":"send","timeout_ms":4294967296}`:       "timeout_ms: ",
		`{"type":"result","code":65536}`:                "code: ",
		`{"type":"send","to":7}`:                        "to: ",
		`{"type":"kick","addrs":[1]}`:                   "addrs: ",
		`{"type":"send","payload":1}`:                   "payload: ",
		`{"type":"send","payload":"","payload_b64":""}`: "payload: ",
		`{"type":"send","payload_b64":"!"}`:             "payload_b64: ",
		`[]`:                                            "not a JSON object",
		`null`:                                          "type: missing",
		`{"type":"ping"} {}`:                            "not a JSON object",
		"{\"type\":\"ping\",\"x\":\"\xff\"}":            "UTF-8",
	} {
		err := UnmarshalFrameJSON([]byte(in), &f)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want a word on %q", in, err, field)
		}
		if !reflect.DeepEqual(f, Frame{}) {
			t.Errorf("%s: frame is not zero", in)
		}
	}
}

func FuzzFrameJSON(f *testing.F) {
	for _, fr := range smallFrames() {
		b, err := MarshalFrameJSON(&fr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"type":"send","id":1,"payload":"\ud800"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var f1, f2 Frame
		if UnmarshalFrameJSON(in, &f1) != nil {
			return
		}
		b, err := MarshalFrameJSON(&f1)
		if err != nil || !json.Valid(b) {
			t.Fatalf("%s → %s: %v", in, b, err)
		}
		if err := UnmarshalFrameJSON(b, &f2); err != nil || !reflect.DeepEqual(normal(&f1), normal(&f2)) {
			t.Fatalf("%s → %s: %v", in, b, err)
		}
	})
}

func TestValidate(t *testing.T) {
	good := []Frame{
		{Type: TypeLogin, Client: "alice", Instance: 1, Attempt: 1, Version: 1, Token: "t", Tenant: "acme"},
		{Type: TypeSend, To: "bob", ID: 1, Ack: AckClient, Payload: []byte("x")},
		{Type: TypeAck, Instance: 1, ID: 1},
		{Type: TypePing},
		{Type: TypeBye},
		{Type: TypeJoin, To: "lobby/a/b", ID: 1},
		{Type: TypeSend, Kind: ToAll, ID: 1},
		{Type: TypeSend, Kind: ToGroup, To: "a/b/c", ID: 1},
		{Type: TypeSend, Kind: ToPrefix, To: "a/", ID: 1},
		{Type: TypeLogin, Client: "alice", Instance: 1, Attempt: 1, Version: 1, Token: strings.Repeat("t", MaxToken), Groups: slices.Repeat([]string{strings.Repeat("g", 45)}, 64)},
		{Type: TypeWelcome, Epoch: 1, Node: "n1", IdleMS: 1, MaxPayload: 1, Addrs: []string{"a"}},
		{Type: TypeWaiting, TimeoutMS: 1},
		{Type: TypeDeliver, From: "a", Instance: 1, ID: 1, Epoch: 1},
		{Type: TypeResult, ID: 1, Code: Delivered},
		{Type: TypePong},
		{Type: TypeKick, Code: Kicked},
		{Type: TypeGoaway, Code: Draining},
	}
	for i, f := range good {
		client := i < 10
		if err := f.Validate(client); err != nil {
			t.Errorf("%s: %v", f.Type, err)
		}
		if err := f.Validate(!client); err == nil || !strings.Contains(err.Error(), f.Type.String()+": only ") {
			t.Errorf("%s from the wrong side: %v", f.Type, err)
		}
		if b := AppendFrameHeader(nil, &f); len(b)-LengthBytes > MaxHeader {
			t.Errorf("%s: header of %d", f.Type, len(b))
		}
	}
	for want, f := range map[string]Frame{
		"type is 0":                 {},
		"type is 99":                {Type: 99},
		"login: client is missing":  {Type: TypeLogin, Instance: 1, Attempt: 1, Version: 1},
		"login: version is missing": {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1},
		"send: to is missing":       {Type: TypeSend, ID: 1},
		"send: id is missing":       {Type: TypeSend, To: "x"},
		"send: to: ":                {Type: TypeSend, To: "a*", ID: 1},
		"send: ack is 3":            {Type: TypeSend, To: "a", ID: 1, Ack: 3},
		"ack: instance is missing":  {Type: TypeAck, ID: 1},
		"ping: payload":             {Type: TypePing, Payload: []byte("x")},
		"login: token is":           {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Token: strings.Repeat("x", MaxToken+1)},
		"login: tenant":             {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Tenant: "a/b"},
		"join: to is missing":       {Type: TypeJoin, ID: 1},
		"join: id is missing":       {Type: TypeJoin, To: "a"},
		"join: to: ":                {Type: TypeJoin, To: "a*", ID: 1},
		"leave: id is missing":      {Type: TypeLeave, To: "a"},
		"send: kind is 99":          {Type: TypeSend, Kind: 99, To: "a", ID: 1},
		"send: to: must be empty":   {Type: TypeSend, Kind: ToAll, To: "a", ID: 1},
		"send: to: user":            {Type: TypeSend, Kind: ToUser, To: "a/b", ID: 1},
		"send: to: prefix":          {Type: TypeSend, Kind: ToPrefix, To: "a*", ID: 1},
		"send: groups":              {Type: TypeSend, To: "a", ID: 1, Groups: []string{"g"}},
		"login: groups is not":      {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Groups: []string{"g"}, Addrs: []string{"a"}},
		"login: groups has 65":      {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Groups: slices.Repeat([]string{"g"}, 65)},
		"login: groups has 13":      {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Groups: slices.Repeat([]string{strings.Repeat("g", 250)}, 13)},
		"login: groups: ":           {Type: TypeLogin, Client: "a", Instance: 1, Attempt: 1, Version: 1, Groups: []string{"a*"}},
		"send: addrs has":           {Type: TypeSend, To: "a", ID: 1, Addrs: make([]string, 9)},
	} {
		if err := f.Validate(true); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// The largest header that validates fits.
	id := strings.Repeat("x", MaxClientID)
	addr := strings.Repeat("a", maxAddr)
	f := Frame{
		Type: TypeLogin, Client: id, To: id, From: id, ID: math.MaxUint64, Instance: math.MaxUint64, Attempt: math.MaxUint64, Ack: AckClient,
		TimeoutMS: math.MaxUint32, Code: 65535, Epoch: math.MaxUint64, Node: strings.Repeat("n", maxNodeName), Token: strings.Repeat("t", MaxToken),
		IdleMS: math.MaxUint32, Addrs: []string{addr, addr, addr, addr, addr, addr, addr, addr}, RetryMS: math.MaxUint32, Text: strings.Repeat("t", MaxText),
		MaxPayload: math.MaxUint32, Version: math.MaxUint32, Tenant: strings.Repeat("t", MaxTenant), Kind: ToUser, Count: math.MaxUint32,
	}
	if err := f.Validate(true); err != nil {
		t.Error(err)
	}
	if n := len(AppendFrameHeader(nil, &f)) - LengthBytes; n > MaxHeader {
		t.Errorf("a header of %d bytes validates", n)
	}
}
