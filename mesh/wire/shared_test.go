package wire

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func checkShared(t *testing.T, f Frame, epoch Epoch) {
	t.Helper()
	s := NewShared(&f)
	want := Frame{Type: TypeDeliver, From: f.From, To: f.To, ID: f.ID, Instance: f.Instance, Ack: f.Ack, Kind: f.Kind, Payload: f.Payload, Epoch: epoch}
	b := s.Append([]byte("x"), epoch)[1:]
	var got Frame
	if err := DecodeFrame(b[LengthBytes:], &got); err != nil || !reflect.DeepEqual(normal(&got), normal(&want)) || len(b) != s.Size() {
		t.Fatalf("%x: %v: %d bytes of %d,\n got %+v\nwant %+v", b, err, len(b), s.Size(), got, want)
	}
	r := NewFrameReader(strings.NewReader(string(b)), max(1, len(f.Payload)))
	if err := r.Next(&got); err != nil {
		t.Fatalf("its length is wrong: %v", err)
	}
	r.Close()
	if !f.Kind.Known() || f.Ack > AckClient || epoch == 0 {
		return
	}
	j := s.AppendJSON(nil, epoch)
	direct, err := MarshalFrameJSON(&want)
	if err != nil || string(j) != string(direct) || len(j) != s.SizeJSON(epoch) {
		t.Fatalf("%v\n got %s\nwant %s", err, j, direct)
	}
}

func FuzzShared(f *testing.F) {
	f.Add("alice", "lobby", uint64(1), uint64(2), uint64(3), uint8(1), uint8(2), []byte("hello"))
	f.Add("größe", "", uint64(1<<63), uint64(24), uint64(1)<<48|7, uint8(2), uint8(0), []byte{0xff})
	f.Add(`,"epoch":"`, `"`, uint64(1), uint64(24), uint64(10), uint8(5), uint8(2), []byte(`,"epoch":"1"`))
	f.Fuzz(func(t *testing.T, from, to string, id, instance, epoch uint64, kind, ack uint8, payload []byte) {
		if !utf8.ValidString(from) || !utf8.ValidString(to) || len(from)+len(to) > MaxHeader-128 {
			return
		}
		checkShared(t, Frame{From: from, To: to, ID: id, Instance: instance, Kind: Kind(kind), Ack: AckMode(ack), Payload: payload}, Epoch(epoch))
	})
}

func TestSharedEpochs(t *testing.T) {
	for _, epoch := range []Epoch{1, 9, 10, 99, 100, 1 << 32, MakeEpoch(1, 42), 1<<64 - 1} {
		checkShared(t, Frame{From: "alice", To: "lobby", Kind: ToGroup, ID: 7, Instance: 8, Ack: AckClient, Payload: []byte("hi")}, epoch)
	}
}

func TestCastSender(t *testing.T) {
	seen := map[uint64]string{}
	for _, v := range []struct {
		sender uint64
		k      Kind
		to     string
	}{{1, ToGroup, "a"}, {1, ToGroup, "b"}, {2, ToGroup, "a"}, {1, ToPrefix, "a"}, {1, ToAll, ""}, {1, ToOthers, ""}} {
		got := CastSender(v.sender, v.k, v.to)
		if got == 0 || got == v.sender || seen[got] != "" {
			t.Errorf("%+v: %d, as %q", v, got, seen[got])
		}
		seen[got] = v.to
	}
	if CastSender(7, ToClient, "a") != 7 || CastSender(7, ToUser, "a") != 7 {
		t.Error("direct messages have the sender's own instance")
	}
}

func TestLoginGroups(t *testing.T) {
	var many []string
	for range 100 {
		many = append(many, strings.Repeat("g", 250))
	}
	if n := LoginGroups(many); n != MaxLoginGroupBytes/253 {
		t.Errorf("%d long ones", n)
	}
	if n := LoginGroups(make([]string, 100)); n != MaxLoginGroups {
		t.Errorf("%d short ones", n)
	}
}
