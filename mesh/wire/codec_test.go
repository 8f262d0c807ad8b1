package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// strict are the errors by which the hand-written decoder refuses what the library accepts; its doc lists them.
var strict = []error{errNotMap, errKey, errKeyOrder, errSimple, errHeader, errAddrs}

func isStrict(err error) bool {
	for _, e := range strict {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// normal makes nil and empty alike, which the codecs do not tell apart.
func normal(v any) any {
	switch v := v.(type) {
	case *Frame:
		if len(v.Addrs) == 0 {
			v.Addrs = nil
		}
		if len(v.Groups) == 0 {
			v.Groups = nil
		}
		if len(v.IDs) == 0 {
			v.IDs = nil
		}
		if len(v.Payload) == 0 {
			v.Payload = nil
		}
	case *Forward:
		if len(v.Payload) == 0 {
			v.Payload = nil
		}
	}
	return v
}

func fullFrame() Frame {
	return Frame{
		Type: TypeDeliver, Client: "a/b", To: "bob", From: "alice/phone", ID: 1 << 63, Instance: 0x1122334455667788, Attempt: 24,
		Ack: AckClient, TimeoutMS: 70000, Code: Replaced, Epoch: MakeEpoch(2, 300), Node: "n1", Token: strings.Repeat("t", 300),
		IdleMS: 30000, Addrs: []string{"127.0.0.1:7000", ""}, RetryMS: 255, Text: "größe", MaxPayload: 1 << 20, Version: 1, Tenant: "acme",
		Kind: ToGroup, Groups: []string{"lobby", "größe"}, Count: 70000, Re: 1 << 50, ReInstance: 1 << 51, Fault: 70001,
		IDs: []string{"bob", "größe"}, Online: 1, Since: 1 << 41, Missed: 70001, MissedIDs: []string{"bob/web", "größe"}, Payload: []byte("hello"),
	}
}

func smallFrames() []Frame {
	return []Frame{
		{Type: TypePing},
		{Type: TypeSend, To: "bob", ID: 7, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("hi")},
		{Type: TypeResult, ID: 7, Code: Delivered, Node: "n2"},
		{Type: TypeLogin, Client: "alice", Instance: 99, Attempt: 1, Version: ProtocolVersion},
		fullFrame(),
	}
}

func fullForward() Forward {
	return Forward{
		Tenant: "acme", To: "bob", Incarnation: 12, Epoch: MakeEpoch(1, 1<<40), From: "alice", Instance: 1 << 60, Counter: 256,
		Ack: AckOwner, Ref: 65536, LeftMS: 4999, Kind: ToGroup, Re: 1 << 50, ReInstance: 1 << 51, Fault: 70001, Payload: []byte{0, 1, 2},
	}
}

func compareFrame(t *testing.T, f *Frame) {
	t.Helper()
	header, err := Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	want := binary.BigEndian.AppendUint32([]byte("x"), uint32(len(header)+len(f.Payload)))
	want = append(want, header...)
	head := AppendFrameHeader([]byte("x"), f)
	if !bytes.Equal(head, want) {
		t.Fatalf("header\n got %x\nwant %x", head, want)
	}
	want = append(want, f.Payload...)
	got := AppendFrame([]byte("x"), f)
	if !bytes.Equal(got, want) {
		t.Fatalf("frame\n got %x\nwant %x", got, want)
	}
	if n := FrameSize(f); len(got)-1 > n {
		t.Fatalf("FrameSize says %d, it took %d", n, len(got)-1)
	}
}

func TestFrameEncodingEqualsLibrary(t *testing.T) {
	for _, f := range smallFrames() {
		compareFrame(t, &f)
		compareFrame(t, f.Clone())
	}
	rv := reflect.ValueOf(new(Frame)).Elem() // each field alone, so that a new one cannot be forgotten
	for i := range rv.NumField() {
		var f Frame
		fv := reflect.ValueOf(&f).Elem().Field(i)
		switch fv.Kind() {
		case reflect.String:
			fv.SetString("value")
		case reflect.Slice:
			if fv.Type().Elem().Kind() == reflect.String {
				fv.Set(reflect.ValueOf([]string{"one", "two"}))
			} else {
				fv.SetBytes([]byte("bytes"))
			}
		default:
			fv.SetUint(200)
		}
		compareFrame(t, &f)
		var back Frame
		if err := DecodeFrame(AppendFrame(nil, &f)[LengthBytes:], &back); err != nil || !reflect.DeepEqual(f, back) {
			t.Errorf("field %s: %v, got %+v", rv.Type().Field(i).Name, err, back)
		}
		if back = *f.Clone(); !reflect.DeepEqual(f, back) {
			t.Errorf("field %s is lost by Clone", rv.Type().Field(i).Name)
		}
	}
}

func FuzzFrameEncode(f *testing.F) {
	f.Add(uint8(4), "c", "to", "from", uint64(1), uint64(2), uint64(3), uint8(1), uint32(9), uint16(300), "node", "a", []byte("p"))
	f.Add(uint8(0), "", "\xff", strings.Repeat("x", 300), uint64(1<<32), uint64(24), uint64(255), uint8(255), uint32(65536), uint16(0), "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, typ uint8, client, to, from string, id, instance, epoch uint64, ack uint8, ms uint32, code uint16, text, addr string, payload []byte) {
		fr := Frame{
			Type: Type(typ), Client: client, To: to, From: from, ID: id, Instance: instance, Attempt: id ^ instance, Epoch: Epoch(epoch),
			Ack: AckMode(ack), TimeoutMS: ms, IdleMS: ms >> 3, RetryMS: ms >> 9, MaxPayload: ms >> 17, Version: ms >> 25,
			Code: Code(code), Node: text, Token: text + to, Text: from + text, Tenant: addr, Kind: Kind(typ >> 1), Count: ms >> 5, Payload: payload,
		}
		if addr != "" {
			fr.Addrs = []string{addr, client}
			fr.Groups = []string{to, "", addr}
		}
		compareFrame(t, &fr)
	})
}

// compareDecode holds the decoder against the library's.
func compareDecode(t *testing.T, body []byte, gotErr error, got any, want any, payload func(any, []byte)) {
	t.Helper()
	rest, libErr := UnmarshalFirst(body, want)
	switch {
	case gotErr == nil && libErr != nil:
		t.Fatalf("%x: accepted, the library says %v", body, libErr)
	case gotErr != nil && libErr == nil && !isStrict(gotErr):
		t.Fatalf("%x: refused with %v, the library accepts", body, gotErr)
	case gotErr != nil && !errors.Is(gotErr, ErrMalformed) && !errors.Is(gotErr, ErrTooLarge):
		t.Fatalf("%x: untyped error %v", body, gotErr)
	case gotErr == nil:
		payload(want, rest)
		if !reflect.DeepEqual(normal(got), normal(want)) {
			t.Fatalf("%x:\n got %+v\nwant %+v", body, got, want)
		}
	}
}

func checkFrameDecode(t *testing.T, body []byte) {
	t.Helper()
	var f, lib Frame
	err := DecodeFrame(body, &f)
	compareDecode(t, body, err, &f, &lib, func(v any, rest []byte) { v.(*Frame).Payload = rest })
	if err != nil && !reflect.DeepEqual(f, Frame{}) {
		t.Fatalf("%x: frame is not zero after %v", body, err)
	}
	if err == nil { // what was read can be written and read again
		var g Frame
		out := AppendFrame(nil, &f)[LengthBytes:]
		if len(out)-len(f.Payload) <= MaxHeader {
			if err := DecodeFrame(out, &g); err != nil || !reflect.DeepEqual(normal(&f), normal(&g)) {
				t.Fatalf("%x → %x: %v", body, out, err)
			}
		}
	}
}

func checkForwardDecode(t *testing.T, body []byte) {
	t.Helper()
	var m, lib Forward
	err := DecodeForward(body, &m)
	compareDecode(t, body, err, &m, &lib, func(v any, rest []byte) { v.(*Forward).Payload = rest })
}

func checkStatusDecode(t *testing.T, body []byte) {
	t.Helper()
	var s, lib Status
	err := DecodeStatus(body, &s)
	libErr := Unmarshal(body, &lib)
	switch {
	case err == nil && libErr != nil:
		t.Fatalf("%x: accepted, the library says %v", body, libErr)
	case err != nil && libErr == nil && !isStrict(err):
		t.Fatalf("%x: refused with %v, the library accepts", body, err)
	case err == nil && !reflect.DeepEqual(s, lib):
		t.Fatalf("%x: got %+v want %+v", body, s, lib)
	}
}

// oddHeaders are bodies on the edges: each is held against the library.
func oddHeaders() [][]byte {
	long := append([]byte{0xa1, 0x10, 0x79, 0xff, 0xff}, bytes.Repeat([]byte("x"), 0xffff)...)
	deep := append([]byte{0xa1, 0x18, 40}, bytes.Repeat([]byte{0x81}, 7)...)
	many := append([]byte{0xa1, 0x0e, 0x99, 4, 1}, bytes.Repeat([]byte{0x60}, 1025)...)
	return [][]byte{
		{},
		{0xa0},
		{0xa0, 'x'},
		{0xf6},                            // null
		{0x80},                            // an array
		{0xa1, 0x00, 0x18, 0x04},          // number not in its shortest form
		{0xa1, 0x18, 0x00, 0x04},          // key not in its shortest form
		{0xa2, 0x00, 0x04, 0x00, 0x04},    // duplicate
		{0xa2, 0x00, 4, 0x18, 0x00, 4},    // duplicate in another form
		{0xa2, 0x18, 70, 0, 0x18, 70, 0},  // duplicate unknown
		{0xa2, 0x18, 71, 0, 0x18, 70, 0},  // unknown, falling
		{0xa2, 0x18, 30, 0, 0x18, 30, 0},  // duplicate unknown below 64
		{0xa1, 0x00, 0x19, 0x01, 0x00},    // 256 for a type
		{0xa1, 0x00, 0x20},                // -1
		{0xa1, 0x00, 0xf6},                // null for a number
		{0xa1, 0x01, 0xf7},                // undefined for a string
		{0xa1, 0x0e, 0x82, 0xf6, 0x61, 9}, // null in an array of strings
		{0xa1, 0x0e, 0x80},
		{0xa1, 0x0e, 0xf6},
		{0xa1, 0x00, 0xe5},                // simple value 5
		{0xa1, 0x00, 0xf8, 0x20},          // simple value 32
		{0xa1, 0x00, 0xf5},                // true
		{0xa1, 0x00, 0xf9, 0x3c, 0x00},    // 1.0
		{0xa1, 0x01, 0x41, 'a'},           // bytes for text
		{0xa1, 0x01, 0x62, 0xc3, 0x28},    // bad UTF-8
		{0xa1, 0x18, 40, 0x62, 0xc3, 40},  // bad UTF-8 in an unknown field
		{0xbf, 0xff},                      // indefinite
		{0xa1, 0x01, 0x7f, 0x61, 97, 255}, // indefinite text
		{0xa1, 0x18, 40, 0x9f, 0xff},      // indefinite array in an unknown field
		{0xa1, 0x18, 40, 0xc1, 0x00},      // tag
		{0xa1, 0x00, 0xc1, 0x04},          // tag on a known field
		{0xd9, 0xd9, 0xf7, 0xa0},          // self-described CBOR
		{0xa1, 0x61, '0', 0x04},           // text key
		{0xa1, 0x20, 0x04},                // negative key
		{0xa1, 0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0, 0},
		{0xa1, 0x18, 40, 0xa1, 0x01, 0x02},
		{0xa1, 0x18, 40, 0xf8, 0x10},
		{0xa1, 0x18, 40, 0xfb, 1, 2, 3, 4, 5, 6, 7, 8},
		{0xa1, 0x18, 40, 0xfc},
		{0xa1, 0x01, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{0xba, 0xff, 0xff, 0xff, 0xff},
		{0xa1, 0x00},
		append(deep, 0x00), append(append(deep[:len(deep):len(deep)], 0x81), 0x00),
		long, many,
	}
}

func TestOddHeaders(t *testing.T) {
	for _, b := range oddHeaders() {
		checkFrameDecode(t, b)
		checkForwardDecode(t, b)
		checkStatusDecode(t, b)
	}
	var f Frame
	for _, b := range [][]byte{{0xf6}, {0xa1, 0x00, 0xe5}, {0xa1, 0x20, 0x04}, {0xa1, 0x61, '0', 0x04}, {0xa2, 0x18, 71, 0, 0x18, 70, 0}} {
		if err := DecodeFrame(b, &f); !isStrict(err) {
			t.Errorf("%x: %v, want one of the strict refusals", b, err)
		}
	}
	if err := DecodeFrame([]byte{0xa2, 0x00, 0x04, 0x18, 99, 0x82, 1, 0xa1, 1, 2}, &f); err != nil || f.Type != TypeSend {
		t.Errorf("unknown fields are not skipped: %v", err)
	}
}

func TestHeaderLimit(t *testing.T) {
	fits := Frame{Type: TypeKick, Text: strings.Repeat("x", MaxHeader-7), Payload: []byte("p")}
	body := AppendFrame(nil, &fits)[LengthBytes:]
	if n := len(body) - 1; n != MaxHeader {
		t.Fatalf("header is %d", n)
	}
	var f Frame
	if err := DecodeFrame(body, &f); err != nil || string(f.Payload) != "p" {
		t.Fatalf("header of MaxHeader: %v", err)
	}
	fits.Text += "x"
	if err := DecodeFrame(AppendFrame(nil, &fits)[LengthBytes:], &f); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("header above MaxHeader: %v", err)
	}
}

func FuzzFrameDecode(f *testing.F) {
	for _, fr := range smallFrames() {
		f.Add(AppendFrame(nil, &fr)[LengthBytes:])
	}
	for _, b := range oddHeaders() {
		f.Add(b)
	}
	f.Fuzz(checkFrameDecode)
}

func FuzzForwardDecode(f *testing.F) {
	m := fullForward()
	f.Add(AppendForward(nil, &m))
	for _, b := range oddHeaders() {
		f.Add(b)
	}
	f.Fuzz(checkForwardDecode)
}

func FuzzStatusDecode(f *testing.F) {
	f.Add(AppendStatus(nil, &Status{Seq: 1, Ref: 300, Code: NotOwner, Index: 1 << 40}))
	f.Add(AppendStatus(nil, &Status{Ref: 300, Code: Delivered, Index: 2, Missed: 2, MissedIDs: []string{"bob", "größe"}}))
	for _, b := range oddHeaders() {
		f.Add(b)
	}
	f.Fuzz(checkStatusDecode)
}

func compareForward(t *testing.T, m *Forward) {
	t.Helper()
	want, err := Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, m.Payload...)
	got := AppendForward(nil, m)
	if !bytes.Equal(got, want) {
		t.Fatalf("forward\n got %x\nwant %x", got, want)
	}
	if len(got) > ForwardSize(m) {
		t.Fatalf("ForwardSize says %d, it took %d", ForwardSize(m), len(got))
	}
}

func TestForwardAndStatus(t *testing.T) {
	m := fullForward()
	for _, m := range []Forward{{}, {To: "x"}, m, *m.Clone()} {
		compareForward(t, &m)
		var back Forward
		if err := DecodeForward(AppendForward(nil, &m), &back); err != nil || !reflect.DeepEqual(m, back) {
			t.Fatalf("%v: got %+v want %+v", err, back, m)
		}
	}
	for _, s := range []Status{{}, {Code: Delivered}, {Seq: 1, Ref: 2, Code: NotOwner, Index: 4}, {Seq: 1 << 63, Ref: 1 << 32, Code: 0xffff, Index: 1 << 63, Missed: 1<<32 - 1}, {Ref: 2, Code: Delivered, Index: 3, Missed: 300, MissedIDs: []string{"bob", "größe", ""}}} {
		want, err := Marshal(s)
		got := AppendStatus(nil, &s)
		var back Status
		if err != nil || !bytes.Equal(got, want) || len(got) > StatusSize(&s) || len(s.MissedIDs) == 0 && len(got) > MaxStatusSize || DecodeStatus(got, &back) != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%+v: %x, want %x, back %+v, %v", s, got, want, back, err)
		}
		if DecodeStatus(append(got, 0), &back) == nil {
			t.Fatal("bytes behind a status are accepted")
		}
	}
}

func FuzzForwardEncode(f *testing.F) {
	f.Add("", "bob", "alice", uint64(1), uint64(2), uint64(3), uint64(4), uint64(5), uint8(1), uint32(7), []byte("p"))
	f.Fuzz(func(t *testing.T, tenant, to, from string, inc, epoch, instance, counter, ref uint64, ack uint8, left uint32, payload []byte) {
		compareForward(t, &Forward{tenant, to, Incarnation(inc), Epoch(epoch), from, instance, counter, AckMode(ack), ref, left, Kind(ack >> 4), counter >> 1, ref, left >> 3, uint8(left >> 28), payload, nil})
	})
}

func TestCodecAllocations(t *testing.T) {
	f, m, s := fullFrame(), fullForward(), Status{Seq: 1, Ref: 2, Code: 3, Index: 4}
	f.Addrs, f.Groups, f.IDs, f.MissedIDs = nil, nil, nil, nil
	buf := make([]byte, 0, FrameSize(&f)+ForwardSize(&m))
	fb, mb, sb := AppendFrame(nil, &f)[LengthBytes:], AppendForward(nil, &m), AppendStatus(nil, &s)
	var f2 Frame
	var m2 Forward
	var s2 Status
	for name, fn := range map[string]func(){
		"AppendFrame":       func() { AppendFrame(buf, &f) },
		"AppendFrameHeader": func() { AppendFrameHeader(buf, &f) },
		"DecodeFrame":       func() { _ = DecodeFrame(fb, &f2) },
		"AppendForward":     func() { AppendForward(buf, &m) },
		"DecodeForward":     func() { _ = DecodeForward(mb, &m2) },
		"AppendStatus":      func() { AppendStatus(buf, &s) },
		"DecodeStatus":      func() { _ = DecodeStatus(sb, &s2) },
		"Validate":          func() { _ = (&Frame{Type: TypeSend, To: "bob", ID: 1}).Validate(true) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkFrameCodec(b *testing.B) {
	f := Frame{Type: TypeSend, To: "user-000123", ID: 123456, Ack: AckOwner, TimeoutMS: 5000, Payload: make([]byte, 128)}
	buf := AppendFrame(nil, &f)
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			AppendFrame(buf[:0], &f)
		}
	})
	b.Run("decode", func(b *testing.B) {
		var g Frame
		for b.Loop() {
			_ = DecodeFrame(buf[LengthBytes:], &g)
		}
	})
}
