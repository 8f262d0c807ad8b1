package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTopicValidate(t *testing.T) {
	for _, c := range []struct {
		topic Topic
		want  string
	}{
		{Topic{Kind: TopicGroup, Name: "g"}, ""},
		{Topic{Tenant: "acme", Kind: TopicService, Name: "a/b/c:d/"}, ""},
		{Topic{Kind: TopicGroup, Name: strings.Repeat("x", MaxTopicName)}, ""},
		{Topic{Name: "g"}, "topic kind is 0"},
		{Topic{Kind: 3, Name: "g"}, "topic kind is 3"},
		{Topic{Kind: TopicGroup}, "group name is empty"},
		{Topic{Kind: TopicService, Name: strings.Repeat("x", MaxTopicName+1)}, "service name is 256 bytes long"},
		{Topic{Kind: TopicGroup, Name: "a*"}, "'*'"},
		{Topic{Kind: TopicGroup, Name: "a\n"}, "control"},
		{Topic{Kind: TopicGroup, Name: "a\u0085"}, "control"},
		{Topic{Kind: TopicGroup, Name: "\xff"}, "UTF-8"},
		{Topic{Kind: TopicGroup, Name: "g", Tenant: "a:b"}, "tenant"},
		{Topic{Kind: TopicGroup, Name: "g", Tenant: strings.Repeat("x", MaxTenant+1)}, "tenant is 65 bytes"},
	} {
		err := c.topic.Validate()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.topic, err, c.want)
		}
	}
}

// The hash never changes: it decides what lies where.
func TestTopicHash(t *testing.T) {
	seen := map[uint64]Topic{}
	for _, x := range []Topic{
		{Kind: TopicGroup, Name: "g"},
		{Kind: TopicService, Name: "g"},
		{Tenant: "g", Kind: TopicGroup, Name: "g"},
		{Tenant: "a", Kind: TopicGroup, Name: "bc"},
		{Tenant: "ab", Kind: TopicGroup, Name: "c"},
	} {
		if other, ok := seen[x.HashID()]; ok {
			t.Errorf("%v and %v have the same hash", x, other)
		}
		seen[x.HashID()] = x
	}
	if h := (Topic{Tenant: "acme", Kind: TopicGroup, Name: "lobby"}).HashID(); h != 0x6a56eafa51c9ce87 {
		t.Errorf("%#x", h)
	}
}

func TestTopicText(t *testing.T) {
	x := Topic{Tenant: "acme", Kind: TopicService, Name: "billing"}
	b, err := json.Marshal(x)
	if err != nil || string(b) != `{"tenant":"acme","kind":"service","name":"billing"}` || x.String() != "service acme:billing" {
		t.Errorf("%s, %v, %s", b, err, x)
	}
	var back Topic
	if err := json.Unmarshal(b, &back); err != nil || back != x {
		t.Errorf("%+v, %v", back, err)
	}
	if json.Unmarshal([]byte(`{"kind":"crowd"}`), &back) == nil {
		t.Error("an unknown kind was read")
	}
	b, err = Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	back = Topic{}
	if err := Unmarshal(b, &back); err != nil || back != x {
		t.Errorf("%+v, %v", back, err)
	}
	if n := len(b); n > 22 {
		t.Errorf("%d bytes: the kind is not a number any more", n)
	}
}
