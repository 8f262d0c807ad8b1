package wire

import (
	"errors"
	"fmt"
	"strings"
)

// TopicKind says what a Topic is: to all its members goes what is sent to a group, to one of them what is sent to a service.
// Numbers are append-only.
type TopicKind uint8

const (
	TopicGroup   TopicKind = 1
	TopicService TopicKind = 2
)

func (k TopicKind) String() string {
	switch k {
	case TopicGroup:
		return "group"
	case TopicService:
		return "service"
	}
	return fmt.Sprintf("topic_kind_%d", uint8(k))
}

// Known says whether this version knows the kind. Zero is none.
func (k TopicKind) Known() bool { return k == TopicGroup || k == TopicService }

// MarshalText makes TopicKind a word in JSON.
func (k TopicKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *TopicKind) UnmarshalText(b []byte) error {
	v, err := ParseTopicKind(string(b))
	*k = v
	return err
}

// ParseTopicKind reads "group" or "service".
func ParseTopicKind(s string) (TopicKind, error) {
	for _, k := range []TopicKind{TopicGroup, TopicService} {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("topic kind %q: want group or service", s)
}

// MaxTopicName is the longest name of a group or service, in bytes.
const MaxTopicName = MaxClientID

// Topic names a group or a service of a tenant. The two kinds have their names apart. It is comparable; the zero Topic is none.
type Topic struct {
	Tenant string    `cbor:"1,keyasint,omitempty" json:"tenant,omitempty"`
	Kind   TopicKind `cbor:"2,keyasint" json:"kind"`
	Name   string    `cbor:"3,keyasint" json:"name"`
}

// String is for people: kind, then tenant if there is one, then name, as in "group acme:lobby".
func (t Topic) String() string {
	if t.Tenant == "" {
		return t.Kind.String() + " " + t.Name
	}
	return t.Kind.String() + " " + t.Tenant + ":" + t.Name
}

// HashID spreads topics. It is the same on every node and in every version: tables and lanes may be laid out by it.
func (t Topic) HashID() uint64 {
	return hashText(hashText(hashSeed^uint64(t.Kind), t.Tenant), t.Name)
}

// Validate says what is wrong with a topic and what a right one looks like. Names follow the rules of client ids, except that
// slashes mean nothing in them: 1 to 255 bytes of UTF-8 without control characters and '*'.
func (t Topic) Validate() error {
	if !t.Kind.Known() {
		return fmt.Errorf("topic kind is %d: want 1 (group) or 2 (service)", uint8(t.Kind))
	}
	if len(t.Tenant) > MaxTenant {
		return fmt.Errorf("tenant is %d bytes long: at most %d", len(t.Tenant), MaxTenant)
	}
	if err := validText(t.Tenant, "tenant"); err != nil {
		return err
	}
	if strings.ContainsAny(t.Tenant, ":/") {
		return errors.New("tenant: must not contain ':' or '/'")
	}
	what := t.Kind.String() + " name"
	if t.Name == "" {
		return fmt.Errorf("%s is empty: want 1 to %d bytes of UTF-8", what, MaxTopicName)
	}
	if len(t.Name) > MaxTopicName {
		return fmt.Errorf("%s is %d bytes long: at most %d", what, len(t.Name), MaxTopicName)
	}
	return validText(t.Name, what)
}
