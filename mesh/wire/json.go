package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSafeInteger is the largest integer that every JSON reader keeps exactly.
const maxSafeInteger = 1<<53 - 1

// MarshalFrameJSON writes f as one JSON object for WebSocket, fields that are zero left out:
//
//	type, ack, kind       names: "send", "owner", "group"
//	id, instance, attempt, epoch   64-bit numbers, as decimal strings
//	re, re_instance, since   likewise
//	online                true or false, in a presence frame always there
//	code                  a number, its name for people beside it in "reason"
//	payload               text, if the payload is UTF-8 and escapes do not more than double it, otherwise "payload_b64"
//	                      (standard base64 with padding)
//
// All others are as they are named in Frame. It fails for a type, ack mode or kind that has no name.
func MarshalFrameJSON(f *Frame) ([]byte, error) {
	return AppendFrameJSON(make([]byte, 0, 128+FrameSize(f)), f)
}

// AppendFrameJSON is MarshalFrameJSON into dst.
func AppendFrameJSON(dst []byte, f *Frame) ([]byte, error) {
	w, err := appendJSONHead(dst, f)
	if err != nil {
		return dst, err
	}
	w.big("epoch", uint64(f.Epoch))
	appendJSONTail(&w, f)
	return w.b, nil
}

// appendJSONHead writes what stands before the epoch.
func appendJSONHead(dst []byte, f *Frame) (jsonWriter, error) {
	if f.Type.name() == "" {
		return jsonWriter{}, fmt.Errorf("type: %d has no name", uint8(f.Type))
	}
	if f.Ack > AckClient {
		return jsonWriter{}, fmt.Errorf("ack: %d has no name", uint8(f.Ack))
	}
	if !f.Kind.Known() {
		return jsonWriter{}, fmt.Errorf("kind: %d has no name", uint8(f.Kind))
	}
	w := jsonWriter{append(dst, '{')}
	w.text("type", f.Type.name())
	w.text("client", f.Client)
	if f.Kind != ToClient {
		w.text("kind", f.Kind.String())
	}
	w.text("to", f.To)
	w.text("from", f.From)
	w.big("id", f.ID)
	w.big("instance", f.Instance)
	w.big("attempt", f.Attempt)
	if f.Ack != AckNone {
		w.text("ack", f.Ack.String())
	}
	w.number("timeout_ms", uint64(f.TimeoutMS))
	w.number("code", uint64(f.Code))
	if f.Code != None {
		w.text("reason", f.Code.String())
	}
	return w, nil
}

// appendJSONTail writes what stands behind the epoch, payload and closing brace included.
func appendJSONTail(w *jsonWriter, f *Frame) {
	w.text("node", f.Node)
	w.text("token", f.Token)
	w.number("idle_ms", uint64(f.IdleMS))
	w.texts("addrs", f.Addrs)
	w.number("retry_ms", uint64(f.RetryMS))
	w.text("text", f.Text)
	w.number("max_payload", uint64(f.MaxPayload))
	w.number("version", uint64(f.Version))
	w.text("tenant", f.Tenant)
	w.texts("groups", f.Groups)
	w.number("count", uint64(f.Count))
	w.big("re", f.Re)
	w.big("re_instance", f.ReInstance)
	w.number("fault", uint64(f.Fault))
	w.texts("ids", f.IDs)
	if f.Online != 0 || f.Type == TypePresence {
		w.key("online")
		w.b = strconv.AppendBool(w.b, f.Online != 0)
	}
	w.big("since", f.Since)
	w.number("missed", uint64(f.Missed))
	w.texts("missed_ids", f.MissedIDs)
	if utf8.Valid(f.Payload) && !swells(f.Payload) {
		if len(f.Payload) > 0 {
			w.key("payload")
			w.b = appendJSONValid(w.b, f.Payload)
		}
	} else {
		w.key("payload_b64")
		w.b = append(base64.StdEncoding.AppendEncode(append(w.b, '"'), f.Payload), '"')
	}
	w.b = append(w.b, '}')
}

// swells reports whether escapes make b more than twice as long, which takes control characters: then base64 is a quarter of
// it, and a frame is never longer than twice its payload and a header. JSON in JSON, however deep, remains text.
func swells(b []byte) bool {
	more := 0
	for _, c := range b {
		switch {
		case c == '"', c == '\\', c == '\n', c == '\t', c == '\r':
			more++
		case c < 0x20:
			more += 5
		}
	}
	return more > len(b)
}

type jsonWriter struct{ b []byte }

func (w *jsonWriter) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

func (w *jsonWriter) text(name, v string) {
	if v != "" {
		w.key(name)
		w.b = appendJSONString(w.b, v)
	}
}

func (w *jsonWriter) texts(name string, list []string) {
	if len(list) == 0 {
		return
	}
	w.key(name)
	for i, v := range list {
		w.b = appendJSONString(append(w.b, "[,"[min(i, 1)]), v)
	}
	w.b = append(w.b, ']')
}

func (w *jsonWriter) number(name string, v uint64) {
	if v != 0 {
		w.key(name)
		w.b = strconv.AppendUint(w.b, v, 10)
	}
}

func (w *jsonWriter) big(name string, v uint64) {
	if v != 0 {
		w.key(name)
		w.b = append(strconv.AppendUint(append(w.b, '"'), v, 10), '"')
	}
}

func appendJSONString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return appendJSONValid(dst, s)
}

// appendJSONValid takes valid UTF-8 only.
func appendJSONValid[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[done:]...), '"')
}

// UnmarshalFrameJSON reads what MarshalFrameJSON describes into f, which shares nothing with b. Field names are matched
// exactly, unknown ones and "reason" are ignored, null counts as absent; 64-bit numbers but instance may also be plain
// integers up to 2^53-1. Errors name the field, wrap ErrMalformed and leave f zero. How long b may be is for the caller to limit.
func UnmarshalFrameJSON(b []byte, f *Frame) error {
	*f = Frame{}
	if err := unmarshalFrameJSON(b, f); err != nil {
		*f = Frame{}
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

func unmarshalFrameJSON(b []byte, f *Frame) error {
	if !utf8.Valid(b) {
		return errors.New("not valid UTF-8")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	r := jsonReader{m: m}
	r.frameType(&f.Type)
	r.text("client", &f.Client)
	r.kind(&f.Kind)
	r.text("to", &f.To)
	r.text("from", &f.From)
	r.big("id", &f.ID)
	r.big("instance", &f.Instance)
	r.big("attempt", &f.Attempt)
	r.ack(&f.Ack)
	r.number("timeout_ms", &f.TimeoutMS)
	var code uint32
	if r.number("code", &code); code > 0xffff {
		r.fail("code", "want a number up to 65535")
	}
	f.Code = Code(code)
	r.big("epoch", (*uint64)(&f.Epoch))
	r.text("node", &f.Node)
	r.text("token", &f.Token)
	r.number("idle_ms", &f.IdleMS)
	if raw := r.get("addrs"); raw != nil && json.Unmarshal(raw, &f.Addrs) != nil {
		r.fail("addrs", "want an array of strings")
	}
	r.number("retry_ms", &f.RetryMS)
	r.text("text", &f.Text)
	r.number("max_payload", &f.MaxPayload)
	r.number("version", &f.Version)
	r.text("tenant", &f.Tenant)
	if raw := r.get("groups"); raw != nil && json.Unmarshal(raw, &f.Groups) != nil {
		r.fail("groups", "want an array of strings")
	}
	r.number("count", &f.Count)
	r.big("re", &f.Re)
	r.big("re_instance", &f.ReInstance)
	r.number("fault", &f.Fault)
	if raw := r.get("ids"); raw != nil && json.Unmarshal(raw, &f.IDs) != nil {
		r.fail("ids", "want an array of strings")
	}
	r.flag("online", &f.Online)
	r.big("since", &f.Since)
	r.number("missed", &f.Missed)
	if raw := r.get("missed_ids"); raw != nil && json.Unmarshal(raw, &f.MissedIDs) != nil {
		r.fail("missed_ids", "want an array of strings")
	}
	r.payload(&f.Payload)
	return r.err
}

// jsonReader keeps the first error.
type jsonReader struct {
	m   map[string]json.RawMessage
	err error
}

func (r *jsonReader) fail(field, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", field, want)
	}
}

// get gives nil for absent and null.
func (r *jsonReader) get(field string) json.RawMessage {
	raw := r.m[field]
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return raw
}

func (r *jsonReader) text(field string, v *string) bool {
	raw := r.get(field)
	if raw == nil {
		return false
	}
	if json.Unmarshal(raw, v) != nil {
		r.fail(field, "want a string")
		return false
	}
	return true
}

func (r *jsonReader) number(field string, v *uint32) {
	raw := r.get(field)
	if raw == nil {
		return
	}
	n, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil {
		r.fail(field, "want a whole number from 0 to 4294967295")
	}
	*v = uint32(n)
}

func (r *jsonReader) big(field string, v *uint64) {
	raw := r.get(field)
	if raw == nil {
		return
	}
	digits, quoted := raw, raw[0] == '"'
	if !quoted && field == "instance" && raw[0] >= '0' && raw[0] <= '9' {
		// A random 64-bit number that went through a program's floating point is another number, and often the same as others.
		r.fail(field, "64-bit numbers are decimal strings, as in \"8231907741\": this one is a plain number")
		return
	}
	if quoted {
		digits = raw[1 : len(raw)-1]
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	switch {
	case err != nil:
		r.fail(field, "want a decimal number of at most 64 bits in a string")
	case !quoted && n > maxSafeInteger:
		r.fail(field, "numbers above 9007199254740991 must be strings")
	default:
		*v = n
	}
}

func (r *jsonReader) flag(field string, v *Flag) {
	switch raw := r.get(field); string(raw) {
	case "", "false":
	case "true":
		*v = 1
	default:
		r.fail(field, "want true or false")
	}
}

func (r *jsonReader) frameType(v *Type) {
	var s string
	if !r.text("type", &s) {
		r.fail("type", "missing: want the name of a frame type, say \"send\"")
		return
	}
	for t, name := range typeNames {
		if name != "" && name == s {
			*v = Type(t)
			return
		}
	}
	r.fail("type", fmt.Sprintf("%.40q is not a frame type", s))
}

func (r *jsonReader) ack(v *AckMode) {
	var s string
	if !r.text("ack", &s) {
		return
	}
	a, err := ParseAckMode(s)
	if err != nil {
		r.fail("ack", "want \"none\", \"owner\" or \"client\"")
	}
	*v = a
}

func (r *jsonReader) kind(v *Kind) {
	var s string
	if !r.text("kind", &s) {
		return
	}
	k, err := ParseKind(s)
	if err != nil {
		r.fail("kind", "want \"client\", \"group\", \"all\", \"others\", \"prefix\", \"user\" or \"service\"")
	}
	*v = k
}

func (r *jsonReader) payload(v *[]byte) {
	var text, b64 string
	hasText, hasB64 := r.text("payload", &text), r.text("payload_b64", &b64)
	switch {
	case hasText && hasB64:
		r.fail("payload", "give either payload or payload_b64")
	case hasB64:
		p, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			r.fail("payload_b64", "not standard base64 with padding")
		}
		*v = p
	case text != "":
		*v = []byte(text)
	}
}
