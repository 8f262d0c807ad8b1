package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

const vectorDir = "../../testdata/wire"

// golden compares a file of testdata/wire with what it should hold.
func golden(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join(vectorDir, name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n"))) != want {
		t.Errorf("%s differs from what this version writes. The protocol must not change by accident; if it grew, run: go test ./mesh/wire -update", path)
	}
}

// grouped writes hex in groups that can be read: a mark at each given offset.
func grouped(b []byte, cuts ...int) string {
	var parts []string
	from := 0
	for _, c := range append(cuts, len(b)) {
		if c > from {
			parts = append(parts, hex.EncodeToString(b[from:c]))
		}
		from = c
	}
	return strings.Join(parts, " ")
}

func TestFrameVectors(t *testing.T) {
	var out strings.Builder
	out.WriteString("# Client frames: as JSON on WebSocket, as bytes on TCP (length, header, payload; spaces do not count).\n")
	for _, v := range []struct {
		what string
		f    Frame
	}{
		{"log in", Frame{Type: TypeLogin, Client: "alice/phone", Instance: 0x0123456789abcdef, Attempt: 1, Version: 1, Token: "eyJ"}},
		{"log in to a tenant (development mode)", Frame{Type: TypeLogin, Client: "alice", Instance: 1, Attempt: 2, Version: 1, Tenant: "acme"}},
		{"the registration holds", Frame{Type: TypeWelcome, Epoch: MakeEpoch(1, 42), Node: "n1", IdleMS: 30000, MaxPayload: 1 << 20, Addrs: []string{"10.0.0.2:7001", "10.0.0.3:7001"}}},
		{"the former owner is being fenced", Frame{Type: TypeWaiting, TimeoutMS: 4250}},
		{"send, ack by the owner", Frame{Type: TypeSend, To: "bob", ID: 1, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("hello")}},
		{"send, no ack, bytes that are no text", Frame{Type: TypeSend, To: "größe", ID: 24, Payload: []byte{0, 0xff}}},
		{"send, empty, largest id", Frame{Type: TypeSend, To: "bob", ID: 1<<64 - 1, Ack: AckClient}},
		{"deliver, to be acknowledged", Frame{Type: TypeDeliver, From: "alice", Instance: 0x0123456789abcdef, ID: 1, Epoch: MakeEpoch(1, 43), Ack: AckClient, Payload: []byte("hello")}},
		{"acknowledge it", Frame{Type: TypeAck, Instance: 0x0123456789abcdef, ID: 1}},
		{"result: delivered", Frame{Type: TypeResult, ID: 1, Code: Delivered, Node: "n2"}},
		{"result: offline", Frame{Type: TypeResult, ID: 255, Code: Offline}},
		{"result: overloaded, with a text", Frame{Type: TypeResult, ID: 256, Code: Overloaded, Text: "the lane to n2 is full"}},
		{"ping", Frame{Type: TypePing}},
		{"pong", Frame{Type: TypePong}},
		{"kicked: replaced", Frame{Type: TypeKick, Code: Replaced}},
		{"kicked: busy, come back later", Frame{Type: TypeKick, Code: Busy, RetryMS: 1500, Addrs: []string{"10.0.0.2:7001"}}},
		{"go away within ten seconds", Frame{Type: TypeGoaway, Code: Draining, TimeoutMS: 10000, Addrs: []string{"10.0.0.3:7001"}}},
		{"bye", Frame{Type: TypeBye}},
		{"log in to two groups", Frame{Type: TypeLogin, Client: "alice", Instance: 1, Attempt: 3, Version: 1, Groups: []string{"lobby", "news/größe"}}},
		{"join a group", Frame{Type: TypeJoin, To: "lobby", ID: 2}},
		{"result: joined", Frame{Type: TypeResult, ID: 2, Code: Joined}},
		{"send to a group", Frame{Type: TypeSend, Kind: ToGroup, To: "lobby", ID: 3, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("hello")}},
		{"deliver to a member", Frame{Type: TypeDeliver, From: "alice", Kind: ToGroup, To: "lobby", Instance: 0x0123456789abcdef, ID: 3, Epoch: 43, Payload: []byte("hello")}},
		{"result: 9998 members reached", Frame{Type: TypeResult, ID: 3, Code: Delivered, Count: 9998}},
		{"result: 9998 members reached, two did not acknowledge it in time", Frame{Type: TypeResult, ID: 3, Code: Delivered, Count: 9998, Missed: 2, MissedIDs: []string{"bob", "größe/web"}}},
		{"send to all", Frame{Type: TypeSend, Kind: ToAll, ID: 4, Payload: []byte("hello")}},
		{"send to all but oneself", Frame{Type: TypeSend, Kind: ToOthers, ID: 5, Payload: []byte("hello")}},
		{"send to everybody whose id begins with bot-", Frame{Type: TypeSend, Kind: ToPrefix, To: "bot-", ID: 6, Payload: []byte("hello")}},
		{"send to all devices of a user", Frame{Type: TypeSend, Kind: ToUser, To: "alice", ID: 7, Ack: AckClient, Payload: []byte("hello")}},
		{"leave a group", Frame{Type: TypeLeave, To: "lobby", ID: 8}},
		{"be an instance of a service, for 64 requests at a time", Frame{Type: TypeJoin, Kind: ToService, To: "clock", ID: 9, Count: 64}},
		{"request of a service", Frame{Type: TypeSend, Kind: ToService, To: "clock", ID: 10, Ack: AckOwner, TimeoutMS: 5000, Payload: []byte("now?")}},
		{"the request as an instance gets it", Frame{Type: TypeDeliver, From: "alice", Kind: ToService, To: "clock", Instance: 0x0123456789abcdef, ID: 10, Epoch: 43, TimeoutMS: 4990, Payload: []byte("now?")}},
		{"its answer", Frame{Type: TypeSend, To: "alice", ID: 1, Ack: AckOwner, Re: 10, ReInstance: 0x0123456789abcdef, Payload: []byte("12:00")}},
		{"the answer: it failed", Frame{Type: TypeDeliver, From: "clock/1", Instance: 7, ID: 1, Epoch: 44, Re: 10, ReInstance: 0x0123456789abcdef, Fault: 503, Payload: []byte("stopped")}},
		{"no instance any more", Frame{Type: TypeLeave, Kind: ToService, To: "clock", ID: 11}},
		{"watch two users and a device", Frame{Type: TypeWatch, ID: 12, IDs: []string{"bob", "größe", "carol/web"}}},
		{"watch friends", Frame{Type: TypeWatch, ID: 13, To: FriendsList}},
		{"online", Frame{Type: TypePresence, Client: "bob", Online: 1, Node: "n2", Epoch: 45, Since: 1700000000000}},
		{"offline", Frame{Type: TypePresence, Client: "bob", Epoch: 45}},
		{"a friend is offline", Frame{Type: TypePresence, Client: "dave", To: FriendsList}},
		{"watch one of them no more", Frame{Type: TypeUnwatch, ID: 14, IDs: []string{"bob"}}},
		{"watch nobody any more", Frame{Type: TypeUnwatch, ID: 15}},
		{"the group was closed", Frame{Type: TypeLeave, To: "lobby", Code: GroupClosed}},
	} {
		if err := v.f.Validate(true); err != nil {
			if err := v.f.Validate(false); err != nil {
				t.Errorf("%s: %v", v.what, err)
			}
		}
		j, err := MarshalFrameJSON(&v.f)
		if err != nil {
			t.Fatal(err)
		}
		b := AppendFrame(nil, &v.f)
		fmt.Fprintf(&out, "\n# %s\njson %s\ntcp  %s\n", v.what, j, grouped(b, LengthBytes, len(b)-len(v.f.Payload)))
		var viaJSON, viaTCP Frame
		if err := errors.Join(UnmarshalFrameJSON(j, &viaJSON), DecodeFrame(b[LengthBytes:], &viaTCP)); err != nil || !reflect.DeepEqual(viaJSON, viaTCP) {
			t.Errorf("%s: %v: %+v, %+v", v.what, err, viaJSON, viaTCP)
		}
	}
	golden(t, "frames.txt", out.String())
}

func TestForwardVectors(t *testing.T) {
	var out strings.Builder
	out.WriteString("# Between nodes: forwards (header, payload) and statuses, without the lane's framing.\n")
	for _, m := range []Forward{
		{To: "bob", Incarnation: 3, Epoch: MakeEpoch(1, 42), From: "alice", Instance: 0x0123456789abcdef, Counter: 1, Payload: []byte("hello")},
		fullForward(),
	} {
		b := AppendForward(nil, &m)
		fmt.Fprintf(&out, "\n# to %s, incarnation %d, epoch %d, from %s, message %s, ack %s, ref %d, left %d ms, kind %s, tenant %q, payload %q\nforward %s\n",
			m.To, m.Incarnation, m.Epoch, m.From, MessageID{m.Instance, m.Counter}, m.Ack, m.Ref, m.LeftMS, m.Kind, m.Tenant, m.Payload, grouped(b, len(b)-len(m.Payload)))
	}
	for _, s := range []Status{{Ref: 7, Code: Delivered}, {Seq: 300, Ref: 8, Code: NotOwner, Index: 70000}, {Seq: 301, Code: Overloaded}} {
		fmt.Fprintf(&out, "\n# seq %d, ref %d, %s, index %d\nstatus %x\n", s.Seq, s.Ref, s.Code, s.Index, AppendStatus(nil, &s))
	}
	golden(t, "forwards.txt", out.String())
}

// testdata/wire/malformed.txt is written by hand: bodies (without length) that every reader must refuse, and odd ones it must take.
func TestMalformedVectors(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(vectorDir, "malformed.txt"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		verdict, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verdict == "" {
			continue
		}
		seen++
		body, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var f Frame
		switch err := DecodeFrame(body, &f); {
		case verdict == "refuse" && !errors.Is(err, ErrMalformed), verdict == "take" && err != nil, verdict != "refuse" && verdict != "take":
			t.Errorf("%q: %v", strings.TrimSpace(line), err)
		}
	}
	if seen < 20 {
		t.Errorf("only %d vectors", seen)
	}
}
