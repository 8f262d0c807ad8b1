package wire

import (
	"errors"
	"fmt"
)

// Bounds of the free texts in a header, in bytes, so that a header that validates always fits into MaxHeader.
const (
	MaxToken    = 4 << 10
	MaxText     = 1 << 10
	maxNodeName = 255
	maxAddr     = 128
	maxAddrs    = 8
)

// name is the type's name in JSON, "" for one this version does not know.
func (t Type) name() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return ""
}

var typeNames = [...]string{
	TypeLogin: "login", TypeWelcome: "welcome", TypeWaiting: "waiting", TypeSend: "send", TypeDeliver: "deliver", TypeAck: "ack",
	TypeResult: "result", TypePing: "ping", TypePong: "pong", TypeKick: "kick", TypeGoaway: "goaway", TypeBye: "bye",
	TypeJoin: "join", TypeLeave: "leave", TypeWatch: "watch", TypeUnwatch: "unwatch", TypePresence: "presence",
}

func (t Type) String() string {
	if n := t.name(); n != "" {
		return n
	}
	return fmt.Sprintf("type_%d", uint8(t))
}

var ackNames = [...]string{AckNone: "none", AckOwner: "owner", AckClient: "client"}

func (a AckMode) String() string {
	if int(a) < len(ackNames) {
		return ackNames[a]
	}
	return fmt.Sprintf("ack_%d", uint8(a))
}

// ParseAckMode reads "none", "owner" or "client".
func ParseAckMode(s string) (AckMode, error) {
	for i, n := range ackNames {
		if n == s {
			return AckMode(i), nil
		}
	}
	return 0, fmt.Errorf("ack is %q: want none, owner or client", s)
}

// Validate checks what a frame of its type must carry and that it comes from the right side. Errors name type and field.
// It does not know the payload limit in force, nor whether the frame is in place (login first and once).
func (f *Frame) Validate(fromClient bool) error {
	if f.Type.name() == "" {
		return fmt.Errorf("type is %d: not one of version %d", uint8(f.Type), ProtocolVersion)
	}
	if err := f.direction(fromClient); err != nil {
		return err
	}
	if err := f.fields(fromClient); err != nil {
		return fmt.Errorf("%s: %w", f.Type, err)
	}
	return nil
}

func (f *Frame) direction(fromClient bool) error {
	switch f.Type {
	case TypeLeave: // both
	case TypeLogin, TypeSend, TypePing, TypeBye, TypeAck, TypeJoin, TypeWatch, TypeUnwatch:
		if !fromClient {
			return fmt.Errorf("%s: only clients send this", f.Type)
		}
	default:
		if fromClient {
			return fmt.Errorf("%s: only servers send this; clients send login, send, ack, join, leave, watch, unwatch, ping or bye", f.Type)
		}
	}
	return nil
}

// fields checks required fields first, so that what is missing is named before what is wrong.
func (f *Frame) fields(fromClient bool) error {
	var err error
	switch f.Type {
	case TypeLogin:
		err = first(needText("client", f.Client), need("instance", f.Instance), need("attempt", f.Attempt), need("version", uint64(f.Version)))
	case TypeWelcome:
		err = first(need("epoch", uint64(f.Epoch)), needText("node", f.Node), need("idle_ms", uint64(f.IdleMS)), need("max_payload", uint64(f.MaxPayload)))
	case TypeWaiting:
		err = need("timeout_ms", uint64(f.TimeoutMS))
	case TypeSend:
		if err = need("id", f.ID); f.Kind != ToAll && f.Kind != ToOthers {
			err = first(needText("to", f.To), err)
		}
	case TypeJoin:
		err = first(needText("to", f.To), need("id", f.ID))
	case TypeLeave:
		if err = needText("to", f.To); fromClient {
			err = first(err, need("id", f.ID))
		} else {
			err = first(err, need("code", uint64(f.Code)))
		}
	case TypeWatch:
		if err = need("id", f.ID); len(f.IDs) == 0 && f.To == "" {
			err = first(errors.New("ids is missing"), err)
		}
	case TypeUnwatch:
		err = need("id", f.ID)
	case TypePresence:
		if err = needText("client", f.Client); f.Online != 0 {
			err = first(err, needText("node", f.Node), need("epoch", uint64(f.Epoch)))
		}
	case TypeDeliver:
		err = first(needText("from", f.From), need("instance", f.Instance), need("id", f.ID), need("epoch", uint64(f.Epoch)))
	case TypeAck:
		err = first(need("instance", f.Instance), need("id", f.ID))
	case TypeResult:
		err = first(need("id", f.ID), need("code", uint64(f.Code)))
	case TypeKick, TypeGoaway:
		err = need("code", uint64(f.Code))
	}
	if err != nil {
		return err
	}
	if f.Ack > AckClient {
		return fmt.Errorf("ack is %d: want 0 (none), 1 (owner) or 2 (client)", uint8(f.Ack))
	}
	if len(f.Payload) > 0 && f.Type != TypeSend && f.Type != TypeDeliver {
		return errors.New("payload is not allowed here")
	}
	if f.Re != 0 || f.ReInstance != 0 || f.Fault != 0 {
		if err := f.answer(); err != nil {
			return err
		}
	}
	if f.Online > 1 {
		return fmt.Errorf("online is %d: want 0 or 1", uint8(f.Online))
	}
	if len(f.IDs) > 0 && (f.Type != TypeWatch && f.Type != TypeUnwatch || len(f.Groups) > 0 || len(f.Addrs) > 0 || f.Text != "") { // together they might be too long
		return errors.New("ids is not allowed here")
	}
	if (f.Missed != 0 || len(f.MissedIDs) > 0) && (f.Type != TypeResult || f.Token != "" || len(f.Addrs) > 0) { // together they might be too long
		return errors.New("missed is not allowed here")
	}
	if len(f.Groups) > 0 && (f.Type != TypeLogin || len(f.Addrs) > 0 || f.Text != "") { // the three together might be too long
		return errors.New("groups is not allowed here")
	}
	if err := f.ids(); err != nil {
		return err
	}
	return f.sizes()
}

// answer checks the fields that make a message the answer to another one.
func (f *Frame) answer() error {
	switch {
	case f.Type != TypeSend && f.Type != TypeDeliver:
		return errors.New("re is not allowed here")
	case f.Re == 0:
		return need("re", f.Re)
	case f.ReInstance == 0:
		return need("re_instance", f.ReInstance)
	case f.Kind != ToClient:
		return errors.New("re is for messages to one client")
	}
	return nil
}

func (f *Frame) ids() error {
	if err := f.address(); err != nil {
		return err
	}
	for _, id := range f.IDs {
		if err := (ClientID{ID: id}).Validate(); err != nil {
			return fmt.Errorf("ids: %w", err)
		}
	}
	for _, id := range f.MissedIDs {
		if err := (ClientID{ID: id}).Validate(); err != nil {
			return fmt.Errorf("missed_ids: %w", err)
		}
	}
	for _, id := range [...]struct{ field, id string }{{"client", f.Client}, {"from", f.From}} {
		if id.id == "" {
			continue
		}
		if err := (ClientID{ID: id.id}).Validate(); err != nil {
			return fmt.Errorf("%s: %w", id.field, err)
		}
	}
	if f.Tenant == "" {
		return nil
	}
	return ClientID{Tenant: f.Tenant, ID: "x"}.Validate() // says "tenant" itself
}

// address checks to, whose rules depend on the kind.
func (f *Frame) address() error {
	kind := f.Kind
	switch f.Type {
	case TypeJoin, TypeLeave:
		if kind == ToClient {
			kind = ToGroup
		}
		if kind != ToGroup && kind != ToService {
			return fmt.Errorf("kind is %s: want group or service", kind)
		}
	case TypeWatch, TypeUnwatch, TypePresence:
		if f.To != "" && f.To != FriendsList {
			return fmt.Errorf("to is %.40q: want %s, or ids", f.To, FriendsList)
		}
		return nil
	}
	if !kind.Known() {
		return kind.ValidateTo(f.To)
	}
	if f.To == "" {
		return nil // required or not: see fields
	}
	if err := kind.ValidateTo(f.To); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	return nil
}

func (f *Frame) sizes() error {
	if n := LoginGroups(f.Groups); n < len(f.Groups) {
		return fmt.Errorf("groups has %d entries: at most %d of %d bytes together; join the others behind the login",
			len(f.Groups), MaxLoginGroups, MaxLoginGroupBytes)
	}
	if n := WatchIDs(f.IDs); n < len(f.IDs) {
		return fmt.Errorf("ids has %d entries: at most %d of %d bytes together; watch the others with another frame", len(f.IDs), MaxWatchIDs, MaxWatchBytes)
	}
	if n := len(f.MissedIDs); n > MaxMissedIDs {
		return fmt.Errorf("missed_ids has %d entries: at most %d", n, MaxMissedIDs)
	}
	for _, g := range f.Groups {
		if err := ToGroup.ValidateTo(g); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
	}
	for _, t := range [...]struct {
		field string
		n     int
		most  int
	}{{"token", len(f.Token), MaxToken}, {"text", len(f.Text), MaxText}, {"node", len(f.Node), maxNodeName}} {
		if t.n > t.most {
			return fmt.Errorf("%s is %d bytes long: at most %d", t.field, t.n, t.most)
		}
	}
	if len(f.Addrs) > maxAddrs {
		return fmt.Errorf("addrs has %d entries: at most %d", len(f.Addrs), maxAddrs)
	}
	for _, a := range f.Addrs {
		if len(a) > maxAddr {
			return fmt.Errorf("addrs: an entry of %d bytes: at most %d", len(a), maxAddr)
		}
	}
	return nil
}

func need(field string, v uint64) error {
	if v == 0 {
		return fmt.Errorf("%s is missing", field)
	}
	return nil
}

func needText(field, v string) error {
	if v == "" {
		return fmt.Errorf("%s is missing", field)
	}
	return nil
}

// first gives the first error, so that one line names one field.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
