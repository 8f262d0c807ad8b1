package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind says what the To of a message names. Numbers are append-only. In JSON it goes by name.
type Kind uint8

const (
	ToClient Kind = 0 // one client id; one without a "/" stands for all devices of that user as well
	ToGroup  Kind = 1 // the members of a group, the sender too if it is one
	ToAll    Kind = 2 // every client of the tenant; To is empty
	ToOthers Kind = 3 // every client of the tenant but the sending session; To is empty
	ToPrefix Kind = 4 // every client of the tenant whose id begins with To
	ToUser   Kind = 5 // all devices of the user To, and the client of just that id

	ToService Kind = 6 // one instance of a service, whichever has least to do
)

var kindNames = [...]string{ToClient: "client", ToGroup: "group", ToAll: "all", ToOthers: "others", ToPrefix: "prefix", ToUser: "user", ToService: "service"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// Known says whether this version knows the kind.
func (k Kind) Known() bool { return int(k) < len(kindNames) }

// Cast says that a message of this kind goes to whole nodes, each of which fans it out to its own sessions. The others go
// to single clients.
func (k Kind) Cast() bool { return k == ToGroup || k == ToAll || k == ToOthers || k == ToPrefix }

// ParseKind reads a name: client, group, all, others, prefix, user or service.
func ParseKind(s string) (Kind, error) {
	for i, n := range kindNames {
		if n == s {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("kind is %q: want client, group, all, others, prefix, user or service", s)
}

// ValidateTo says what is wrong with a recipient of this kind.
func (k Kind) ValidateTo(to string) error {
	switch k {
	case ToClient:
		return (ClientID{ID: to}).Validate()
	case ToGroup:
		return Topic{Kind: TopicGroup, Name: to}.Validate()
	case ToService:
		return Topic{Kind: TopicService, Name: to}.Validate()
	case ToAll, ToOthers:
		if to != "" {
			return fmt.Errorf("must be empty: kind %s means everybody", k)
		}
		return nil
	case ToPrefix:
		if to == "" {
			return errors.New("prefix is empty: kind all means everybody")
		}
		if len(to) > MaxClientID {
			return fmt.Errorf("prefix is %d bytes long: at most %d", len(to), MaxClientID)
		}
		return validText(to, "prefix")
	case ToUser:
		if err := (ClientID{ID: to}).Validate(); err != nil {
			return err
		}
		if (ClientID{ID: to}).User() != to {
			return fmt.Errorf("user %q: names a device", to)
		}
		return nil
	}
	return fmt.Errorf("kind is %d: not one of version %d", uint8(k), ProtocolVersion)
}

// CastSender is what recipients see as the sender's instance in a message that went to (k, to); sender is the one of its direct
// messages, as welcome told it. Messages to a group travel on other lanes than direct ones, and recipients refuse an older
// counter after a newer one of the same instance: each address has a sequence of its own. Requests to a service do as well,
// for they come to an instance of it in any order; there sender is the instance of the login, which nobody else is ever told, so only
// who was asked can name the request in an answer.
func CastSender(sender uint64, k Kind, to string) uint64 {
	if !k.Cast() && k != ToService {
		return sender
	}
	b := make([]byte, 0, 8+1+MaxClientID)
	b = append(append(binary.BigEndian.AppendUint64(b, sender), byte(k)), to...)
	sum := sha256.Sum256(b)
	return max(binary.BigEndian.Uint64(sum[:]), 1) // zero means none
}

// Limits of groups.
const (
	MaxGroups          = 1000    // that one session may be in
	MaxLoginGroups     = 64      // that a login may carry, for a header is short; join the others behind it
	MaxLoginGroupBytes = 3 << 10 // of their names together, each counted with 3 bytes more
)

// Limits of presence.
const (
	MaxWatches     = 1000    // ids that one session may watch
	MaxWatchIDs    = 64      // that one watch frame may carry
	MaxWatchBytes  = 3 << 10 // of these together, each counted with 3 bytes more
	FriendsList    = "friends"
	MaxServiceLoad = 10_000 // requests that an instance may take at a time
)

// WatchIDs returns how many of ids, from the first, fit into one watch frame.
func WatchIDs(ids []string) int {
	bytes := 0
	for i, id := range ids {
		if bytes += len(id) + 3; i == MaxWatchIDs || bytes > MaxWatchBytes {
			return i
		}
	}
	return len(ids)
}

// LoginGroups returns how many of groups, from the first, fit into one login.
func LoginGroups(groups []string) int {
	bytes := 0
	for i, g := range groups {
		if bytes += len(g) + 3; i == MaxLoginGroups || bytes > MaxLoginGroupBytes {
			return i
		}
	}
	return len(groups)
}
