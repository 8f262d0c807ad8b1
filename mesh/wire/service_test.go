package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestServiceAndPresenceFrames(t *testing.T) {
	long := strings.Repeat("x", 200)
	many := strings.Split(strings.Repeat("a,", MaxWatchIDs), ",") // one more than fits, the last one empty
	for name, c := range map[string]struct {
		f          Frame
		fromClient bool
		want       string // in the error; "": valid
	}{
		"request":             {Frame{Type: TypeSend, Kind: ToService, To: "a/b", ID: 1}, true, ""},
		"request to nobody":   {Frame{Type: TypeSend, Kind: ToService, ID: 1}, true, "to is missing"},
		"request to all":      {Frame{Type: TypeSend, Kind: ToService, To: "a*", ID: 1}, true, "service name"},
		"answer":              {Frame{Type: TypeSend, To: "bob", ID: 1, Re: 2, ReInstance: 3, Fault: 4}, true, ""},
		"answer to nothing":   {Frame{Type: TypeSend, To: "bob", ID: 1, Fault: 4}, true, "re is missing"},
		"answer half":         {Frame{Type: TypeSend, To: "bob", ID: 1, Re: 4}, true, "re_instance is missing"},
		"answer to a group":   {Frame{Type: TypeSend, Kind: ToGroup, To: "bob", ID: 1, Re: 2, ReInstance: 3}, true, "one client"},
		"answer as a join":    {Frame{Type: TypeJoin, To: "g", ID: 1, Re: 2, ReInstance: 3}, true, "not allowed"},
		"serve":               {Frame{Type: TypeJoin, Kind: ToService, To: "s", ID: 1, Count: 5}, true, ""},
		"join everybody":      {Frame{Type: TypeJoin, Kind: ToAll, To: "s", ID: 1}, true, "want group or service"},
		"join a group":        {Frame{Type: TypeJoin, Kind: ToGroup, To: "s", ID: 1}, true, ""},
		"watch":               {Frame{Type: TypeWatch, ID: 1, IDs: []string{"a", "b/c"}}, true, ""},
		"watch nobody":        {Frame{Type: TypeWatch, ID: 1}, true, "ids is missing"},
		"watch friends":       {Frame{Type: TypeWatch, ID: 1, To: FriendsList}, true, ""},
		"watch enemies":       {Frame{Type: TypeWatch, ID: 1, To: "enemies"}, true, "want friends"},
		"watch a pattern":     {Frame{Type: TypeWatch, ID: 1, IDs: []string{"a*"}}, true, "ids:"},
		"watch an empty id":   {Frame{Type: TypeWatch, ID: 1, IDs: []string{""}}, true, "ids:"},
		"watch too many":      {Frame{Type: TypeWatch, ID: 1, IDs: append(many[:MaxWatchIDs:MaxWatchIDs], "b")}, true, "at most"},
		"watch too long":      {Frame{Type: TypeWatch, ID: 1, IDs: strings.Split(strings.Repeat(long+",", 20)+"a", ",")}, true, "at most"},
		"watch without id":    {Frame{Type: TypeWatch, IDs: []string{"a"}}, true, "id is missing"},
		"unwatch all":         {Frame{Type: TypeUnwatch, ID: 1}, true, ""},
		"ids in a send":       {Frame{Type: TypeSend, To: "bob", ID: 1, IDs: []string{"a"}}, true, "not allowed"},
		"watch from a server": {Frame{Type: TypeWatch, ID: 1, IDs: []string{"a"}}, false, "only clients"},
		"online":              {Frame{Type: TypePresence, Client: "a", Online: 1, Node: "n", Epoch: 3}, false, ""},
		"online nowhere":      {Frame{Type: TypePresence, Client: "a", Online: 1, Epoch: 3}, false, "node is missing"},
		"very online":         {Frame{Type: TypePresence, Client: "a", Online: 2, Node: "n", Epoch: 3}, false, "want 0 or 1"},
		"offline":             {Frame{Type: TypePresence, Client: "a"}, false, ""},
		"presence of nobody":  {Frame{Type: TypePresence}, false, "client is missing"},
		"presence by clients": {Frame{Type: TypePresence, Client: "a"}, true, "only servers"},
	} {
		err := c.f.Validate(c.fromClient)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c.want == "" {
			if b := AppendFrame(nil, &c.f); len(b)-LengthBytes > MaxHeader {
				t.Errorf("%s: a header of %d bytes", name, len(b))
			}
		}
	}
	if n := WatchIDs(many[:MaxWatchIDs]); n != MaxWatchIDs {
		t.Errorf("%d of %d ids fit", n, MaxWatchIDs)
	}
	full := make([]string, MaxWatchBytes/203)
	for i := range full {
		full[i] = long
	}
	f := Frame{Type: TypeWatch, ID: 1 << 63, To: FriendsList, IDs: full, Node: strings.Repeat("n", 255), Token: strings.Repeat("t", MaxToken)}
	if err := f.Validate(true); err != nil {
		t.Fatal(err)
	}
	if n := len(AppendFrame(nil, &f)) - LengthBytes; n > MaxHeader {
		t.Errorf("a valid header of %d bytes: nobody reads it", n)
	}
	for text, want := range map[string]string{
		`{"type":"presence","client":"a","online":"yes"}`: "online: want true or false",
		`{"type":"watch","id":"1","ids":"bob"}`:           "ids: want an array",
		`{"type":"send","re":-1}`:                         "re: want a decimal",
	} {
		if err := UnmarshalFrameJSON([]byte(text), &f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What the hot path writes of a request or an answer is the frame that DeliverFrame says.
func FuzzAppendRequest(f *testing.F) {
	f.Add("alice", "clock", uint8(ToService), uint64(1), uint64(2), uint64(3), uint64(0), uint32(0), uint32(500), []byte("hi"))
	f.Add("alice", "bob", uint8(ToClient), uint64(1), uint64(2), uint64(3), uint64(1<<63), uint32(1<<31), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, from, to string, kind uint8, instance, counter, epoch, re uint64, fault, left uint32, payload []byte) {
		m := Forward{From: from, To: to, Kind: Kind(kind), Instance: instance, Counter: counter, Re: re, ReInstance: re >> 1, Fault: fault, LeftMS: left, Ack: AckMode(kind >> 6), Payload: payload}
		if m.Kind == ToClient && m.Re == 0 {
			return // FuzzAppendDeliver's
		}
		want := DeliverFrame(&m, Epoch(epoch))
		got := AppendDeliver(nil, &m, Epoch(epoch))
		if b := AppendFrame(nil, &want); !bytes.Equal(got, b) {
			t.Fatalf("%+v: %x, want %x", m, got, b)
		}
		if n := DeliverSize(&m); len(got) > n {
			t.Fatalf("%+v: %d bytes, but DeliverSize says %d", m, len(got), n)
		}
		var back Frame
		if err := DecodeFrame(got[LengthBytes:], &back); err == nil && (back.Re != re || back.From != from || !bytes.Equal(back.Payload, payload)) {
			t.Fatalf("%+v came back as %+v", m, back)
		}
	})
}
