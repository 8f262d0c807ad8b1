package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the short way accepts, the long way accepts with the same result, and Validate has nothing to say about it.
func checkShort(t *testing.T, body []byte, decode func([]byte, *Frame) bool) bool {
	t.Helper()
	var short, long Frame
	if !decode(body, &short) {
		return false
	}
	if err := DecodeFrame(body, &long); err != nil {
		t.Fatalf("%x: %v", body, err)
	}
	if diff := cmp.Diff(long, short); diff != "" {
		t.Fatalf("%x: %s", body, diff)
	}
	if err := short.Validate(short.Type == TypeSend); err != nil {
		t.Fatalf("%x: %v", body, err)
	}
	return true
}

func TestDecodeSend(t *testing.T) {
	for name, c := range map[string]struct {
		f    Frame
		want bool
	}{
		"usual":        {Frame{Type: TypeSend, To: "bob", ID: 7, Payload: []byte("hi")}, true},
		"everything":   {Frame{Type: TypeSend, To: "a user of 40 bytes, which is still usual", ID: 1 << 40, Ack: AckClient, TimeoutMS: 70000, Payload: []byte("hi")}, true},
		"no payload":   {Frame{Type: TypeSend, To: "bob", ID: 7, Ack: AckOwner}, true},
		"other type":   {Frame{Type: TypeAck, Instance: 1, ID: 7}, false},
		"no id":        {Frame{Type: TypeSend, To: "bob"}, false},
		"no recipient": {Frame{Type: TypeSend, ID: 7}, false},
		"a device":     {Frame{Type: TypeSend, To: "bob/phone", ID: 7}, false},
		"a pattern":    {Frame{Type: TypeSend, To: "bob*", ID: 7}, false},
		"not ASCII":    {Frame{Type: TypeSend, To: "böb", ID: 7}, false},
		"more fields":  {Frame{Type: TypeSend, To: "bob", ID: 7, Text: "x"}, false},
		"unknown ack":  {Frame{Type: TypeSend, To: "bob", ID: 7, Ack: 3}, false},
	} {
		body := AppendFrame(nil, &c.f)[LengthBytes:]
		if got := checkShort(t, body, DecodeSend); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for n := range body[:len(body)-len(c.f.Payload)] {
			checkShort(t, body[:n], DecodeSend)
		}
	}
}

func FuzzDecodeSend(f *testing.F) {
	f.Add(AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 300, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("hi")})[LengthBytes:])
	f.Add(AppendFrame(nil, &Frame{Type: TypeSend, To: "a recipient of more than 23 bytes", ID: 1})[LengthBytes:])
	f.Fuzz(func(t *testing.T, body []byte) { checkShort(t, body, DecodeSend) })
}

func TestDecodeDeliver(t *testing.T) {
	for name, c := range map[string]struct {
		f    Frame
		want bool
	}{
		"usual":       {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 1 << 60, Epoch: 300, Payload: []byte("hi")}, true},
		"everything":  {Frame{Type: TypeDeliver, From: "a user of 40 bytes, which is still usual", ID: 1 << 40, Instance: 9, Epoch: 1, Ack: AckClient, Payload: []byte("hi")}, true},
		"no payload":  {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 9, Epoch: 1, Ack: AckOwner}, true},
		"other type":  {Frame{Type: TypePresence, Client: "bob", Epoch: 3, Online: 1}, false},
		"no instance": {Frame{Type: TypeDeliver, From: "bob", ID: 7, Epoch: 300}, false},
		"no epoch":    {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 9, Ack: AckOwner}, false},
		"a device":    {Frame{Type: TypeDeliver, From: "bob/phone", ID: 7, Instance: 9, Epoch: 1}, false},
		"a group":     {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 9, Epoch: 1, Kind: ToGroup, To: "g"}, false},
		"an answer":   {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 9, Epoch: 1, Re: 4, ReInstance: 5}, false},
		"unknown ack": {Frame{Type: TypeDeliver, From: "bob", ID: 7, Instance: 9, Epoch: 1, Ack: 3}, false},
	} {
		body := AppendFrame(nil, &c.f)[LengthBytes:]
		if got := checkShort(t, body, DecodeDeliver); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for n := range body[:len(body)-len(c.f.Payload)] {
			checkShort(t, body[:n], DecodeDeliver)
		}
	}
}

func FuzzDecodeDeliver(f *testing.F) {
	f.Add(AppendFrame(nil, &Frame{Type: TypeDeliver, From: "bob", ID: 300, Instance: 1 << 60, Epoch: 70000, Ack: AckOwner, Payload: []byte("hi")})[LengthBytes:])
	f.Add(AppendFrame(nil, &Frame{Type: TypeDeliver, From: "a sender of more than 23 bytes", ID: 1, Instance: 1, Epoch: 1})[LengthBytes:])
	f.Fuzz(func(t *testing.T, body []byte) { checkShort(t, body, DecodeDeliver) })
}

func FuzzAppendSend(f *testing.F) {
	f.Add("bob", uint64(7), uint8(2), uint32(5000), []byte("hi"))
	f.Add("", uint64(0), uint8(0), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, to string, id uint64, ack uint8, ms uint32, payload []byte) {
		if ack > uint8(AckClient) {
			return // no send frame has one
		}
		got := AppendSend([]byte("x"), to, id, AckMode(ack), ms, payload)
		want := AppendFrame([]byte("x"), &Frame{Type: TypeSend, To: to, ID: id, Ack: AckMode(ack), TimeoutMS: ms, Payload: payload})
		if !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
		if len(got)-1 > SendSize(to, len(payload)) {
			t.Fatalf("%d bytes, but SendSize says %d", len(got)-1, SendSize(to, len(payload)))
		}
	})
}

func checkAppendDeliver(t *testing.T, m *Forward, epoch Epoch) {
	want := Frame{Type: TypeDeliver, From: m.From, Instance: m.Instance, ID: m.Counter, Epoch: epoch, Ack: m.Ack, Payload: m.Payload}
	got := AppendDeliver([]byte("x"), m, epoch)
	if b := AppendFrame([]byte("x"), &want); !bytes.Equal(got, b) {
		t.Fatalf("%+v: %x, want %x", m, got, b)
	}
	if len(got)-1 > DeliverSize(m) {
		t.Fatalf("%+v: %d bytes, but DeliverSize says %d", m, len(got)-1, DeliverSize(m))
	}
}

func FuzzAppendDeliver(f *testing.F) {
	f.Add("alice", uint64(1), uint64(2), uint64(3), uint8(2), []byte("hi"))
	f.Add("", uint64(0), uint64(1<<63), uint64(1<<50), uint8(1), []byte{})
	f.Fuzz(func(t *testing.T, from string, instance, counter, epoch uint64, ack uint8, payload []byte) {
		checkAppendDeliver(t, &Forward{To: "bob", From: from, Instance: instance, Counter: counter, Ack: AckMode(ack), Payload: payload}, Epoch(epoch))
	})
}
